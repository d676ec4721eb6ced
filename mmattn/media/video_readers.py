"""The two video decoders behind one interface: PyAV, and decord for those who ask for it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mmattn.errors import MediaError
from mmattn.media.process_local import ProcessLocal
from mmattn.media.video_index import VideoIndex, import_av, open_container, video_stream

__all__ = ["DecordReader", "IndexedReader", "PyAVReader"]

UInt8Array = npt.NDArray[np.uint8]
_FRAMES_PER_READ = 16


class IndexedReader(ABC):
    """Random access to the frames of one file, whose times are known from its :class:`VideoIndex`.

    Readers can be pickled and used after a fork (each process opens its own decoder); one reader must not be used by
    several threads at once.

    Args:
        path: The file.
        index: Its frames.
        num_threads: Threads of the decoder.
    """

    def __init__(self, path: Path, index: VideoIndex, num_threads: int = 1) -> None:
        self.path = path
        self.index = index
        self._decoder: ProcessLocal[Any] = ProcessLocal(
            partial(self._open_decoder, path, num_threads), self._close_decoder
        )
        self._is_closed = False

    def __len__(self) -> int:
        return len(self.index.pts)

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return self.index.fps

    @property
    def timestamps(self) -> npt.NDArray[np.float64]:
        """Presentation time of each frame in seconds, ``(N,)``, increasing."""
        return self.index.timestamps

    @property
    def missing(self) -> int:
        """Frames that the file promises and does not hold."""
        return self.index.missing

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.index.size

    def get_batch(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> UInt8Array:
        """Returns frames as ``uint8`` RGB ``(N, H, W, 3)``, in the order asked for.

        Args:
            indices: N frame numbers, unsorted and repeated if need be; negative ones count from the end.

        Raises:
            IndexError: A number outside the video.
            MediaError: A frame cannot be decoded, or the reader is closed.
        """
        if self._is_closed:
            raise MediaError(f"The reader of {self.path} is closed.", "Open the video again.")
        frames, positions = np.unique(self._checked(indices), return_inverse=True)
        batch = np.empty((len(frames), *self.size, 3), dtype=np.uint8)
        if len(frames):
            self._read_into(batch, frames)
        # A copy only where the order asked for differs from the order of decoding.
        return batch if np.array_equal(positions, np.arange(len(frames))) else batch[positions]

    def iter_frames(self) -> Iterator[UInt8Array]:
        """Yields all frames in order, each ``uint8`` RGB ``(H, W, 3)``, holding only a few in memory."""
        for start in range(0, len(self), _FRAMES_PER_READ):
            yield from self.get_batch(range(start, min(start + _FRAMES_PER_READ, len(self))))

    def close(self) -> None:
        """Frees the decoder; may be called repeatedly."""
        self._is_closed = True
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        numbers = np.asarray(indices)
        if numbers.size == 0:
            return np.zeros(0, dtype=np.int64)
        if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
            raise TypeError(f"Frame numbers must be a flat list of integers, got {numbers.dtype} {numbers.shape}.")
        outside = (numbers < -len(self)) | (numbers >= len(self))
        if outside.any():
            raise IndexError(f"Frame {int(numbers[outside][0])} is outside {self.path} with {len(self)} frames.")
        return np.where(numbers < 0, numbers + len(self), numbers).astype(np.int64)

    @abstractmethod
    def _read_into(self, batch: UInt8Array, frames: npt.NDArray[np.int64]) -> None:
        """Fills ``batch`` with ``frames``, which are increasing and distinct."""

    @staticmethod
    @abstractmethod
    def _open_decoder(path: Path, num_threads: int) -> Any:
        """Opens the decoder in this process."""

    @staticmethod
    @abstractmethod
    def _close_decoder(decoder: Any) -> None:
        """Frees the decoder."""


class PyAVReader(IndexedReader):
    """Decodes with FFmpeg through PyAV, from the nearest key frame and onward from where it is."""

    def _read_into(self, batch: UInt8Array, frames: npt.NDArray[np.int64]) -> None:
        cursor: _Cursor = self._decoder.get()
        for row, number in enumerate(frames.tolist()):
            try:
                frame = cursor.frame(number, self.index)
            except import_av().error.FFmpegError as error:
                raise self._undecodable(number, str(error)) from error
            if frame is None:
                raise self._undecodable(number, "the decoder does not return it")
            height, width = self.size if self.index.quarter_turns % 2 == 0 else self.size[::-1]
            # Width and height matter for the rare stream that changes its size on the way.
            picture = frame.to_ndarray(format="rgb24", width=width, height=height)
            batch[row] = np.rot90(picture, self.index.quarter_turns)

    def _undecodable(self, number: int, reason: str) -> MediaError:
        time = self.timestamps[number]
        return MediaError(
            f"Frame {number} of {self.path} (at {time:.2f} s) cannot be decoded: {reason}.",
            "The file is damaged there; copy or export it again.",
        )

    @staticmethod
    def _open_decoder(path: Path, num_threads: int) -> _Cursor:
        return _Cursor(path, num_threads)

    @staticmethod
    def _close_decoder(decoder: _Cursor) -> None:
        decoder.container.close()


class _Cursor:
    """An open container and the number of the frame decoded last."""

    def __init__(self, path: Path, num_threads: int) -> None:
        self.path = path
        self.num_threads = num_threads
        self.last = -1
        self._open()

    def frame(self, number: int, index: VideoIndex) -> Any | None:
        """Returns the frame, going on from where the decoder is when that is the shorter way."""
        key = index.key_before(number)
        target = int(index.pts[number]) if index.is_timed else None
        goes_on = self.last < number and (self.last >= key - 1 or not index.seeks_exactly)
        if not goes_on:
            self._seek(int(index.pts[key]), index)
        frame = self._advance(number, target)
        if frame is None:
            # From the start every frame has the time that the index has.
            self._restart()
            frame = self._advance(number, target)
        self.last = number if frame is not None else len(index.pts)
        return frame

    def _open(self) -> None:
        self.container = open_container(self.path)
        self.stream = video_stream(self.container, self.path)
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = self.num_threads
        self.decoded = self.container.decode(self.stream)
        self.last = -1

    def _restart(self) -> None:
        self.container.close()
        self._open()

    def _seek(self, pts: int, index: VideoIndex) -> None:
        if index.seeks_exactly:
            self.container.seek(pts, stream=self.stream)
            self.decoded = self.container.decode(self.stream)
        else:
            self._restart()

    def _advance(self, number: int, target: int | None) -> Any | None:
        for frame in self.decoded:
            if target is None:
                self.last += 1
                if self.last == number:
                    return frame
            elif frame.pts is not None and frame.pts >= target:
                return frame if frame.pts == target else None
        return None


class DecordReader(IndexedReader):
    """Decodes with decord, which is quick at scattered frames.

    Raises:
        MediaError: decord cannot open the file or misreads it: frames only a few pixels wide come out with more than 3
            channels because decord takes the count from the row stride (upstream issues 93 and 336), and it returns
            wrong frames from AVI, MPEG and transport streams and from open groups of pictures.
        ImportError: decord is not installed.
    """

    def __init__(self, path: Path, index: VideoIndex, num_threads: int = 1) -> None:
        super().__init__(path, index, num_threads)
        if not index.seeks_exactly or index.has_open_gops:
            reason = "its groups of pictures are open" if index.has_open_gops else "its container has no exact index"
            raise MediaError(f"decord returns wrong frames from {path} because {reason}.", _TRY_PYAV)
        count = len(self._decoder.get())
        if count != len(index.pts):
            raise MediaError(f"decord counts {count} frames in {path}, the container has {len(index.pts)}.", _TRY_PYAV)
        self.get_batch([0])

    def _read_into(self, batch: UInt8Array, frames: npt.NDArray[np.int64]) -> None:
        try:
            pictures = self._decoder.get().get_batch(frames).asnumpy()
        except (RuntimeError, _import_decord().DECORDError) as error:
            raise MediaError(f"decord cannot decode {self.path}: {_first_line(error)}", _TRY_PYAV) from error
        if pictures.shape != batch.shape:
            raise MediaError(
                f"decord reads frames of shape {pictures.shape[1:]} from {self.path}, expected {batch.shape[1:]}.",
                _TRY_PYAV,
            )
        batch[:] = pictures

    @staticmethod
    def _open_decoder(path: Path, num_threads: int) -> Any:
        decord = _import_decord()
        try:
            return decord.VideoReader(str(path), num_threads=num_threads)
        except (RuntimeError, decord.DECORDError) as error:
            raise MediaError(f"decord cannot open {path}: {_first_line(error)}", _TRY_PYAV) from error

    @staticmethod
    def _close_decoder(decoder: Any) -> None:
        """Decord frees its reader when the last reference goes."""


_TRY_PYAV = 'Open it with backend="pyav" or "auto".'


def _import_decord() -> ModuleType:
    # decord 0.6 exposes its own zlib: an OpenCV that is loaded after it can no longer decode PNG.
    with suppress(ImportError):
        importlib.import_module("cv2")
    try:
        import decord
    except ImportError as error:
        raise ImportError("decord is not installed. Install it with: pip install 'mmattn[video]'") from error
    module: ModuleType = decord
    return module


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
