"""Frames from a camera, a file or a network stream as they come, with reconnection. Read by PyAV.

Times are seconds since the first frame, taken from the stream itself. A network stream that ends, fails or falls silent
is opened again; its frames then go on after as many seconds as the interruption has lasted by the clock on the wall, so
that whoever consumes them sees how long the gap was. A camera that delivers faster than its frames are consumed loses
frames rather than fall behind.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.video_index import import_av, video_stream

__all__ = ["LiveFrame", "LiveSource", "Notice"]

_CAMERA = re.compile(r"\d+|/dev/video\d+")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SECONDS_OF_SILENCE = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_LATE = 1.0
# A recording whose clean end is this near to its announced length is over; anything else has been cut off.
_NEAR_END = 1.0


class LiveFrame(NamedTuple):
    """A frame, uint8 RGB (H, W, 3), None if it could not be decoded; and its time, seconds."""

    picture: npt.NDArray[np.uint8] | None
    time: float


class Notice(NamedTuple):
    """Something a person watching wants to know."""

    text: str


@dataclass
class LiveSource:
    """An iterable of frames and notices.

    Args:
        address: Number of a camera, path of a device or a file, or an address such as http:// or rtsp://.
        patience: Seconds of trying to reconnect after which the stream is given up.
        clock: Seconds that only go on; for tests.
        sleep: Waits; for tests.

    Raises:
        InputError: If the source cannot be opened in the first place, or is given up.
    """

    address: str
    patience: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @property
    def kind(self) -> Literal["camera", "network", "file"]:
        """What the address names."""
        if _CAMERA.fullmatch(self.address):
            return "camera"
        return "network" if _ADDRESS.match(self.address) else "file"

    def __iter__(self) -> Iterator[LiveFrame | Notice]:
        """Yields frames and notices until the source is over."""
        container = self._open()
        start = last_time = 0.0
        last_seen = self.clock()
        while True:
            reason, is_over, is_empty = "it ended", False, True
            try:
                for frame in self._frames(container, start):
                    yield frame
                    last_time, last_seen, is_empty = frame.time, self.clock(), False
                is_over = self._is_over(container, last_time - start)
            except import_av().error.FFmpegError as error:
                reason = _reason(error)
            finally:
                container.close()
            if is_over:
                return
            if self.kind == "file":
                yield Notice(f"'{self.address}' cannot be read any further: {reason}.")
                return
            if not is_empty:
                yield Notice(f"The stream was lost at {last_time:.1f} s: {reason}. Connecting again.")
            container = self._reopen(last_seen, pauses=is_empty)
            start = last_time + max(self.clock() - last_seen, 1e-3)
            yield Notice(f"Connected again after {start - last_time:.1f} s.")

    def _open(self) -> Any:
        av = import_av()
        address, options, form = self.address, {}, None
        if self.kind == "camera":
            address = f"/dev/video{address}" if address.isdigit() else address
            form = "v4l2"
        elif address.lower().startswith("rtsp"):
            # Over UDP single lost packets smear pictures.
            options["rtsp_transport"] = "tcp"
        try:
            return av.open(
                address, format=form, options=options, timeout=_SECONDS_OF_SILENCE, metadata_errors="replace"
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            hints = {
                "camera": "Check that the camera is plugged in and that you may read it (group video).",
                "network": "Check the address, and that a player such as ffplay shows it.",
                "file": "Check the path; an address starts with http://, rtsp:// or the like.",
            }
            raise InputError(f"'{self.address}' cannot be opened: {_reason(error)}.", hints[self.kind]) from error

    def _reopen(self, lost_at: float, *, pauses: bool) -> Any:
        """Tries again with growing pauses until it works or patience is over.

        Args:
            lost_at: When the last frame came.
            pauses: Wait before the first attempt, because the connection before gave nothing.
        """
        pause, reason = _FIRST_PAUSE, "it gave no frame."
        while True:
            if pauses:
                if self.clock() - lost_at > self.patience:
                    what = f"'{self.address}' was lost and did not come back in {self.patience:g} s: {reason}"
                    raise InputError(what, "Check the camera or the network, and start again.")
                self.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                return self._open()
            except InputError as error:
                pauses, reason = True, error.message

    def _frames(self, container: Any, start: float) -> Iterator[LiveFrame]:
        """Yields the frames of one connection, the first one at ``start``."""
        av = import_av()
        stream = video_stream(container, Path(self.address))
        stream.thread_type = "AUTO"
        first: float | None = None
        opened = self.clock()
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        count = 0
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                # A damaged packet costs its frame and not the stream.
                yield LiveFrame(None, start + count / rate)
                continue
            for frame in decoded:
                moment = float(frame.time) if frame.time is not None else count / rate
                first = moment if first is None else first
                count += 1
                passed = moment - first
                if self.kind == "camera" and self.clock() - opened - passed > _LATE:
                    continue
                picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                yield LiveFrame(np.ascontiguousarray(picture), start + passed)

    def _is_over(self, container: Any, passed: float) -> bool:
        """Says whether a clean end is the end: of a file always, of a network stream when it has a length."""
        if self.kind == "file":
            return True
        if self.kind == "camera" or not container.duration:
            return False
        return passed > container.duration / import_av().time_base - _NEAR_END


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(".").lower()
