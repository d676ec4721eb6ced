"""``mmattn infer crash --live SOURCE``: watches a camera or stream, says when danger comes, and writes as it goes.

``risk.csv`` grows by a line per step, ``alerts.jsonl`` by a line per alert, and each alert leaves a picture. Everything
is on disk the moment it happened, so that whatever ends the run costs nothing. No video is recorded: it would have no
end.

After an interruption of at most a second the session goes on with what it knew; after a longer one tracks and risk
begin anew (see :mod:`.stream.session`), and a message says so.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmattn.errors import InputError
from mmattn.media.image import write_png
from mmattn.media.stream.live_source import LiveFrame, LiveSource, Notice
from mmattn.video.crash.predictor import CrashPredictor
from mmattn.video.crash.results import draw_step
from mmattn.video.crash.stream.frame_risk import FrameRisk

__all__ = ["LiveWriter", "watch"]

_FILES = ("risk.csv", "alerts.jsonl")
_REMEMBERED = 10.0


def watch(
    predictor: CrashPredictor,
    source: LiveSource | Iterable[LiveFrame | Notice],
    output: Path,
    *,
    seconds: float | None = None,
    overwrite: bool = False,
    echo: IO[str] | None = None,
) -> int:
    """Watches a source until it ends, and returns the number of alerts.

    Args:
        predictor: The model; it needs a perception.
        source: Frames and notices.
        output: Folder for the files.
        seconds: Stop after so many seconds of the stream; None goes on.
        overwrite: Replace the files of an earlier run.
        echo: Where alerts and notices are told; None is stderr.

    Raises:
        InputError: If the model has no perception, the folder holds an earlier run, or the source cannot be opened.
        MediaError: If the folder cannot be written or the disk is full; what was written stays.
    """
    told = echo or sys.stderr
    session = predictor.open_session()
    with LiveWriter(output, predictor, overwrite=overwrite) as writer:
        start: float | None = None
        for event in source:
            if isinstance(event, Notice):
                print(event.text, file=told, flush=True)
                continue
            start = event.time if start is None else start
            if seconds is not None and event.time - start > seconds:
                break
            for step in session.feed(event.picture, event.time):
                if step.restarted:
                    print(f"{step.time:.1f} s: the gap was long, starting over.", file=told, flush=True)
                writer.write(step, event.picture)
                if step.alert is not None:
                    print(f"{step.time:.1f} s: ALERT, risk {step.risk:.2f}", file=told, flush=True)
        session.close()
    return writer.num_alerts


class LiveWriter:
    """Writes a run's files line by line; a context manager.

    Args:
        output: Folder for the files.
        predictor: Its rule is noted with each alert.
        overwrite: Replace the files of an earlier run.
    """

    def __init__(self, output: Path, predictor: CrashPredictor, *, overwrite: bool) -> None:
        present = [name for name in _FILES if (output / name).exists()]
        if present and not overwrite:
            raise InputError(
                f"'{output}' holds an earlier run ({', '.join(present)}).",
                "Choose another --output, or --overwrite it.",
            )
        output.mkdir(parents=True, exist_ok=True)
        for old in output.glob("alert_*.png"):
            old.unlink()
        self.output = output
        self.rule = predictor.rule
        self.num_alerts = 0
        self._recent: list[tuple[float, float]] = []
        self._risks = (output / _FILES[0]).open("w", newline="", encoding="utf-8", buffering=1)
        self._alerts = (output / _FILES[1]).open("w", encoding="utf-8", buffering=1)
        self._rows = csv.writer(self._risks)
        self._rows.writerow(["seconds", "risk", "std", "road_users", "alert", "restarted"])

    def write(self, step: FrameRisk, picture: np.ndarray | None) -> None:
        """Writes a step, and its alert with the picture (H, W, 3), uint8 RGB, if it raises one."""
        std = "" if step.uncertainty is None else f"{step.uncertainty:.6f}"
        marks = (int(step.alert is not None), int(step.restarted))
        self._rows.writerow([f"{step.time:.3f}", f"{step.risk:.6f}", std, len(step.sight.boxes), *marks])
        self._recent = [(t, r) for t, r in self._recent if step.time - t <= _REMEMBERED] + [(step.time, step.risk)]
        if step.alert is None:
            return
        self.num_alerts += 1
        name = f"alert_{self.num_alerts:04d}.png"
        if picture is not None:
            times, risks = zip(*self._recent, strict=True)
            threshold = self.rule.threshold
            drawn = draw_step(picture, step.sight, times, risks, threshold=threshold, alerts=[step.time])
            write_png(self.output / name, drawn)
        line = {**step.alert.to_json(), "picture": name if picture is not None else None}
        self._alerts.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Writes everything to the disk."""
        for file in (self._risks, self._alerts):
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def __enter__(self) -> LiveWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
