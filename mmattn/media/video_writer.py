"""Writing video that every browser plays: H.264, yuv420p, BT.709, in an mp4 that appears only when it is whole."""

from __future__ import annotations

import os
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mmattn.errors import MediaError
from mmattn.media.files import atomic_path, write_error
from mmattn.media.video_index import import_av

__all__ = ["VideoWriter"]

# FFmpeg's numbers of ITU-T H.273: BT.709 for primaries, transfer and matrix; 1 is also its limited range.
_BT709 = 1


class VideoWriter:
    """Writes frames to an mp4 file; a context manager.

    The file is renamed into place by :meth:`close`. After an exception in the ``with`` block nothing is left.

    Args:
        path: The file, usually ``*.mp4``.
        fps: Frames per second.
        size: Height and width of the frames; taken from the first frame if not given. Odd sizes are extended by one
            row or column that repeats the edge, because yuv420p needs even ones.
        crf: Quality of x264 from 0 (lossless) to 51; 18 is visually lossless.
        key_interval: Frames between key frames; small values make seeking quick and files large.
        comment: Text for the file's metadata, as "made with ...".

    Raises:
        ValueError: ``fps`` or ``size`` is not positive.
        MediaError: The file cannot be written.
        ImportError: PyAV is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float,
        *,
        size: tuple[int, int] | None = None,
        crf: int = 20,
        key_interval: int = 48,
        comment: str = "",
    ) -> None:
        if not (fps > 0 and np.isfinite(fps)):
            raise ValueError(f"fps must be a positive number, got {fps}.")
        if size is not None and min(size) < 1:
            raise ValueError(f"size must be positive, got {size}.")
        self.path = Path(path)
        self.num_frames = 0
        self._rate = Fraction(fps).limit_denominator(1001)
        self._options = {"crf": str(crf), "g": str(key_interval), "preset": "veryfast"}
        self._size = size
        self._stream: Any = None
        self._cleanup = ExitStack()
        av = import_av()
        with ExitStack() as opening:
            temporary = opening.enter_context(atomic_path(self.path))
            # The index at the front lets a browser start before it has the whole file.
            self._container = av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})
            if comment:
                self._container.metadata["comment"] = comment
            self._cleanup = opening.pop_all()
        self._is_open = True

    def write(self, frame: npt.NDArray[np.uint8]) -> None:
        """Appends one frame, ``uint8`` RGB ``(H, W, 3)``.

        Raises:
            ValueError: Wrong dtype or shape, or another size than the first frame's.
            MediaError: The writer is closed, or the disk is full; then nothing is left.
        """
        if not self._is_open:
            raise MediaError(f"The writer of {self.path} is closed.")
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            raise ValueError(f"Expected a uint8 RGB frame (H, W, 3), got {frame.dtype} {frame.shape}.")
        size = (frame.shape[0], frame.shape[1])
        self._size = self._size or size
        if size != self._size:
            raise ValueError(f"Frame {self.num_frames} is {size}, the video is {self._size}. Resize the frame first.")
        self._stream = self._stream or self._add_stream()
        even = np.pad(frame, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
        picture = import_av().VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=_BT709)
        picture.pts = self.num_frames
        picture.time_base = 1 / self._rate
        try:
            self._container.mux(self._stream.encode(picture))
        except OSError as error:
            self.abort()
            raise write_error(error, self.path) from error
        self.num_frames += 1

    def close(self) -> None:
        """Finishes the file and renames it into place; may be called repeatedly.

        Raises:
            MediaError: No frame was written, or the disk is full. Nothing is left then.
        """
        if not self._is_open:
            return
        if self._stream is None:
            self.abort()
            raise MediaError(f"Cannot write {self.path}: no frame was given.", "Write at least one frame.")
        self._is_open = False
        with self._cleanup:
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def abort(self) -> None:
        """Gives up: closes the encoder and removes what was written."""
        if self._is_open:
            self._is_open = False
            self._container.close()
            self._cleanup.__exit__(MediaError, MediaError(f"Writing {self.path} was given up."), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _add_stream(self) -> Any:
        height, width = self._size or (0, 0)
        stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self._rate
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = _BT709
        return stream
