"""Reading video: one interface over decord and PyAV, exact presentation times, frames as ``uint8`` RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
import numpy.typing as npt

from mmattn.errors import MediaError
from mmattn.media.video_index import read_index
from mmattn.media.video_readers import DecordReader, PyAVReader
from mmattn.media.video_writer import VideoWriter

__all__ = ["VIDEO_SUFFIXES", "Backend", "VideoReader", "VideoWriter", "is_video", "open_video", "sample_times"]

VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
)

Backend = Literal["auto", "decord", "pyav"]


class VideoReader(Protocol):
    """A video as a sequence of N frames; the contract of every backend, see ``IndexedReader`` for the details."""

    def __len__(self) -> int:
        """Number of frames."""

    @property
    def fps(self) -> float:
        """Average frames per second."""

    @property
    def timestamps(self) -> npt.NDArray[np.float64]:
        """Presentation time of each frame in seconds from the start of the file, ``(N,)``, increasing."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, rotation applied."""

    @property
    def missing(self) -> int:
        """Frames that the file promises and does not hold."""

    def get_batch(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        """Returns frames as ``uint8`` RGB ``(N, H, W, 3)``, in the order of the N indices."""

    def iter_frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields all frames in order, each ``(H, W, 3)``."""

    def close(self) -> None:
        """Frees the decoder."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def is_video(path: str | os.PathLike[str]) -> bool:
    """Says whether the name of ``path`` ends like a video's, whatever its case.

    >>> is_video("drive.MP4"), is_video("drive.png")
    (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def open_video(
    path: str | os.PathLike[str], backend: Backend = "auto", *, num_threads: int = 1, cut_short: bool = False
) -> VideoReader:
    """Opens a video file for random access.

    Args:
        path: The file.
        backend: "auto" is PyAV. "decord" has to be asked for: the FFmpeg inside it is of 2019 and gets no more repairs,
            so it is for files that one made oneself.
        num_threads: Decoder threads; 1 is right inside data-loader workers, 0 lets the decoder take all cores.
        cut_short: Take a file that ends before the frames it promises; ``missing`` of the reader says how many are not
            there, and the last ones that are may not decode.

    Returns:
        A reader that can be pickled and used in forked workers, but not by several threads at once.

    Raises:
        MediaNotFoundError: The path does not exist.
        MediaError: Not a video, no video stream, no frames, truncated; or decord was asked for and cannot read it.
        ImportError: The backend is not installed.
        ValueError: There is no backend of that name.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"There is no video backend {backend!r}. Expected one of {', '.join(get_args(Backend))}.")
    file = Path(path)
    index = read_index(file)
    if index.missing and not cut_short:
        count = len(index.pts)
        raise MediaError(
            f"{path} is truncated: it promises {count + index.missing} frames and has {count}.",
            "Copy or export it again, or cut it to what is there: ffmpeg -i in.mp4 -c copy out.mp4",
        )
    return (DecordReader if backend == "decord" else PyAVReader)(file, index, num_threads)


def sample_times(reader: VideoReader, fps: float) -> npt.NDArray[np.int64]:
    """Returns the numbers of the frames nearest to regular times, ``(K,)``, ``fps`` of them a second.

    The times are the first frame's and then every ``1 / fps`` seconds up to the last frame's; of two equally near
    frames the earlier is taken. Asking for more than the video has repeats frames.

    Raises:
        ValueError: ``fps`` is not a positive number.
    """
    if not (fps > 0 and np.isfinite(fps)):
        raise ValueError(f"fps must be a positive number, got {fps}.")
    stamps = reader.timestamps
    # Half a microsecond keeps a last frame whose time was rounded down.
    count = int(np.floor((stamps[-1] - stamps[0]) * fps + 5e-7 * fps)) + 1
    times = stamps[0] + np.arange(count) / fps
    middles = (stamps[:-1] + stamps[1:]) / 2
    # The same tolerance decides ties in favour of the earlier frame.
    return np.searchsorted(middles, times - 5e-7, side="left").astype(np.int64)
