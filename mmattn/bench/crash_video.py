"""The embedded CRASH on a video file: decoding, detection, tracks, risk, frame by frame.

The clip is one that the generator draws, enlarged to 640 x 360 and written as H.264. Nothing is compared here: the
number is how many of the model's frames are worked off in a second.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from mmattn.bench.report import Measure, Report, without_targets
from mmattn.bench.timer import Options, interleave, num_threads
from mmattn.media.video_writer import VideoWriter
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.synthetic.drawing.render import decode, render
from mmattn.video.crash.synthetic.world.clips import draw_clip
from mmattn.video.crash.synthetic.world.physics import FPS

__all__ = ["run"]

_SIZE = (640, 360)


def run(options: Options) -> Report:
    """Scores one video after the other, each from its file."""
    report = Report("crash_video")
    predictor = CrashPredictor.from_pretrained("embedded", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drive.mp4"
        frames = write_video(path, 10 if options.quick else None)
        for threads in options.threads:
            with num_threads(threads):
                runs = {"video": lambda: torch.from_numpy(predictor.predict(path).risk)}
                timing = interleave(runs, repeats=options.repeats)["video"]
            note = f"{frames} frames of {_SIZE[0]} x {_SIZE[1]} in {timing.median:.3g} s, {threads} thread(s)"
            rate = frames / timing.median
            report.measures.append(Measure("embedded CRASH on a video", rate, "frames/s", 10.0, "higher", note))
    return without_targets(report) if options.quick else report


def write_video(path: Path, most: int | None = None) -> int:
    """Writes a drawn clip as a video and returns its number of frames.

    Args:
        path: File to write.
        most: Largest number of frames; None takes all.
    """
    pictures = decode(render(draw_clip("val", 0)))[:most]
    with VideoWriter(path, FPS) as writer:
        for picture in pictures:
            writer.write(np.asarray(cv2.resize(picture, _SIZE, interpolation=cv2.INTER_LINEAR), np.uint8))
    return len(pictures)
