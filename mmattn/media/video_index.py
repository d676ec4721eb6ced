"""What is in a video file: presentation time of each frame, key frames, size, rotation; read without decoding.

The container's packets carry the exact times, so variable frame rates, edit lists and reordered frames are right, and
the number of frames is counted instead of trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mmattn.errors import MediaError
from mmattn.media.regular import check_regular

__all__ = ["VideoIndex", "import_av", "open_container", "read_index", "video_stream"]

# The container's clock; each stream has its own.
_CONTAINER_TICKS_PER_SECOND = 1_000_000


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """The frames of a video in presentation order.

    Args:
        pts: ``(N,)`` int64, presentation times in ticks of the stream.
        timestamps: ``(N,)`` float64, the same in seconds from the start of the file, as players show them.
        keys: ``(K,)`` int64, increasing numbers of the frames at which decoding can start.
        size: Height and width in pixels as shown, rotation applied.
        quarter_turns: How often the decoded picture is turned counter-clockwise by 90 degrees for showing.
        fps: Average frames per second.
        seeks_exactly: Whether frames keep their times after a seek. In containers without an exact index (AVI, MPEG,
            transport streams) they do not, and a frame is found by decoding from the start.
        is_timed: Whether decoded frames carry their ``pts``; if not, the n-th frame decoded is frame n.
        has_open_gops: Whether frames shown before a key frame are stored after it; decoding them has to start at the
            key frame before.
        missing: Frames that the file promises and does not hold: it was cut short.
    """

    pts: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.float64]
    keys: npt.NDArray[np.int64]
    size: tuple[int, int]
    quarter_turns: int
    fps: float
    seeks_exactly: bool
    is_timed: bool
    has_open_gops: bool
    missing: int = 0

    def key_before(self, frame: int) -> int:
        """Returns the last key frame that is not after ``frame``; 0 when there is none."""
        position = int(np.searchsorted(self.keys, frame, side="right")) - 1
        return int(self.keys[position]) if position >= 0 else 0


def read_index(path: Path) -> VideoIndex:
    """Reads the packets of the whole file and decodes its first frame.

    Raises:
        MediaNotFoundError: The path does not exist.
        MediaError: Not a video, no video stream, or no frames.
        ImportError: PyAV is not installed.
    """
    av = import_av()
    if check_regular(path) == 0:
        raise MediaError(f"{path} is empty (0 bytes).", "Copy or export the video again.")
    try:
        with open_container(path) as container:
            stream = video_stream(container, path)
            packets = _read_packets(container, stream, path)
        with open_container(path) as container:
            stream = video_stream(container, path)
            first = next(container.decode(stream), None)
            if first is None or len(packets.pts) == 0:
                raise MediaError(f"{path} has no video frames.", "Copy or export the video again.")
            return _index(container, stream, first, packets)
    except av.error.FFmpegError as error:
        reason = (error.strerror or str(error)).rstrip(".").lower()
        raise MediaError(
            f"{path} cannot be read as a video: {reason}.",
            "It may be truncated, damaged or of another type; copy or export it again.",
        ) from error


def open_container(path: Path) -> Any:
    """Opens a file with PyAV; titles that are not UTF-8 get replacement characters.

    Raises:
        ImportError: PyAV is not installed.
    """
    return import_av().open(str(path), metadata_errors="replace")


def video_stream(container: Any, path: Path) -> Any:
    """Returns the video stream that a player would show; cover pictures of music files do not count.

    Raises:
        MediaError: There is none.
    """
    av = import_av()
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise MediaError(f"{path} has no video stream (it has: {', '.join(kinds) or 'nothing'}).", "Pass a video file.")


def import_av() -> ModuleType:
    """Imports PyAV.

    Raises:
        ImportError: It is not installed; says which extra brings it.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("Video needs the package 'av'. Install it with: pip install 'mmattn[video]'") from error
    module: ModuleType = av
    return module


@dataclass(frozen=True)
class _Packets:
    """Ticks and key-frame flags of the shown frames in presentation order; the rest as in :class:`VideoIndex`."""

    pts: npt.NDArray[np.int64]
    is_key: npt.NDArray[np.bool_]
    is_timed: bool
    has_open_gops: bool
    missing: int


def _read_packets(container: Any, stream: Any, path: Path) -> _Packets:
    # Only what is needed of each packet is kept: together they are the whole file.
    rows = [
        (packet.pts, packet.dts, packet.is_keyframe, packet.is_discard)
        for packet in container.demux(stream)
        if packet.size
    ]
    # Only this family of containers knows the number of its packets exactly.
    missing = max(stream.frames - len(rows), 0) if "mp4" in container.format.name else 0
    shown = [(pts, dts, is_key) for pts, dts, is_key, is_discarded in rows if not is_discarded]
    # AVI stores no presentation times; FFmpeg guesses them and gets reordered frames wrong.
    is_timed = container.format.name != "avi" and all(pts is not None for pts, _, _ in shown)
    ticks = [pts if is_timed else dts for pts, dts, _ in shown]
    if None in ticks:
        raise MediaError(
            f"{path} has no presentation times.", "Put it into a container that has: ffmpeg -i in -c copy out.mp4"
        )
    pts = np.array(ticks, dtype=np.int64)
    is_key = np.array([key for _, _, key in shown], dtype=np.bool_)
    latest_key = np.maximum.accumulate(np.where(is_key, pts, np.iinfo(np.int64).min))
    has_open_gops = bool((pts < latest_key).any())
    order = np.argsort(pts, kind="stable")
    return _Packets(pts[order], is_key[order], is_timed, has_open_gops, missing)


def _index(container: Any, stream: Any, first: Any, packets: _Packets) -> VideoIndex:
    start = (container.start_time or 0) / _CONTAINER_TICKS_PER_SECOND
    timestamps = packets.pts * float(stream.time_base) - start
    span = float(timestamps[-1] - timestamps[0])
    quarter_turns = round(first.rotation / 90) % 4
    return VideoIndex(
        pts=packets.pts,
        timestamps=timestamps,
        keys=np.flatnonzero(packets.is_key),
        size=(first.height, first.width) if quarter_turns % 2 == 0 else (first.width, first.height),
        quarter_turns=quarter_turns,
        fps=(len(timestamps) - 1) / span if span > 0 else float(stream.average_rate or stream.guessed_rate or 1),
        seeks_exactly=packets.is_timed and any(kind in container.format.name for kind in ("mp4", "matroska")),
        is_timed=packets.is_timed,
        has_open_gops=packets.has_open_gops,
        missing=packets.missing,
    )
