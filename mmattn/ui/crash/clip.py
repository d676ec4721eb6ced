"""One video of a visitor: watched once by the model, then shown and packed under whatever settings are chosen."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import gradio as gr

from mmattn.errors import InputError
from mmattn.media.video import open_video
from mmattn.media.video_writer import VideoWriter
from mmattn.ui.notices import as_notices
from mmattn.ui.queue import stop_if_gone
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.results import SHOWN_BOXES, CrashResult, fit_picture
from mmattn.video.crash.stream.alerts import AlertRule
from mmattn.viz.risk import draw_boxes

__all__ = ["MAX_SECONDS", "Watched", "pack", "watch"]

MAX_SECONDS = 300
_READ_AT_ONCE = 16


@dataclass
class Watched:
    """One video of a session: its result and the video with boxes.

    Attributes:
        name: File name of the video.
        result: What the model said.
        clip: The video with the attended boxes drawn on it.
        folder: Holds the files of this video; it is removed when the session forgets the video.
    """

    name: str
    result: CrashResult
    clip: Path
    folder: Path

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def watch(predictor: CrashPredictor, video: str | Path | None) -> Watched:
    """Runs the model over a video and writes the video with the boxes it attends to.

    Raises:
        gr.Error: With a notice for the visitor when there is no video or it cannot be used.
    """
    if video is None:
        raise gr.Error("Give a video first: upload one, record one, or click a sample.")
    path = Path(video)
    with as_notices():
        check_length(path)
        result = predictor.predict(path, each=stop_if_gone)
        folder = Path(tempfile.mkdtemp(prefix="mmattn-crash-"))
        watched = Watched(path.name, result, write_attention(result, folder / "watched.mp4"), folder)
    if result.left_out:
        gr.Warning(f"{result.left_out} frames could not be used: {'; '.join(result.problems[-2:])}")
    return watched


def check_length(path: Path) -> None:
    """Checks that this page takes a video.

    Raises:
        InputError: If it is too long.
    """
    with open_video(path, cut_short=True) as reader:
        seconds = float(reader.timestamps[-1] - reader.timestamps[0])
    if seconds > MAX_SECONDS:
        raise InputError(
            f"The video is {seconds / 60:.1f} minutes long; this page takes up to {MAX_SECONDS // 60}.",
            "Cut it, or use: mmattn infer crash VIDEO --output OUT",
        )


def write_attention(result: CrashResult, target: Path) -> Path:
    """Writes the frames the model has read with the boxes it attends to most; alerts are left to the page."""
    source = open_video(Path(str(result.video)), cut_short=True)
    with source as reader, VideoWriter(target, result.fps, key_interval=10) as writer:
        for start in range(0, len(result.sources), _READ_AT_ONCE):
            stop_if_gone()
            frames = reader.get_batch(result.sources[start : start + _READ_AT_ONCE])
            for frame, sight in zip(frames, result.sights[start : start + _READ_AT_ONCE], strict=True):
                fitted, scale = fit_picture(frame)
                seen = sight.strongest(SHOWN_BOXES)
                writer.write(draw_boxes(fitted, seen.boxes * scale, seen.attention, seen.captions))
    return target


def pack(watched: Watched | None, rule: AlertRule) -> list[str]:
    """Writes JSON, CSV, curve and overlay video under a rule and returns the paths.

    Raises:
        gr.Error: With a notice for the visitor when nothing was watched yet or the disk is full.
    """
    if watched is None:
        raise gr.Error("Watch a video first.")
    result = replace(watched.result, rule=rule, overlay=True)
    with as_notices():
        return [str(path) for path in result.save(watched.folder, watched.name)]
