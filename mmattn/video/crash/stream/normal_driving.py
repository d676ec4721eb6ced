"""Risk curves of footage in which nothing happens, kept beside a model: how often would it cry wolf?

Alerts depend on threshold, persistence and cooldown, so no single number answers that; the curves do, for any rule, in
milliseconds and without the model. The file ``normal_driving.npz`` lies in the checkpoint folder. No torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.files import atomic_path
from mmattn.video.crash.stream.alerts import AlertRule, FalseAlarms

__all__ = ["FILE_NAME", "NormalDriving"]

FILE_NAME = "normal_driving.npz"


@dataclass(frozen=True)
class NormalDriving:
    """Curves of normal footage.

    Attributes:
        curves: Risk in [0, 1] of every step of each video, (T,) each.
        fps: Steps per second.
        source: What the footage is, a few words that follow "on": "120 generated clips without accident".
    """

    curves: Sequence[npt.NDArray[np.floating]]
    fps: float
    source: str

    def false_alarms(self, rule: AlertRule) -> FalseAlarms:
        """Returns how many alerts a rule would raise in this footage."""
        return FalseAlarms.count([(curve, np.arange(len(curve)) / self.fps) for curve in self.curves], rule)

    def save(self, folder: str | Path) -> Path:
        """Writes the file into a checkpoint folder, in half precision, and returns its path.

        Raises:
            MediaError: If it cannot be written.
        """
        target = Path(folder) / FILE_NAME
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                risk=np.concatenate([np.asarray(curve, np.float16) for curve in self.curves]),
                lengths=np.array([len(curve) for curve in self.curves]),
                fps=np.array(self.fps),
                source=np.array(self.source),
            )
        return target

    @classmethod
    def load(cls, folder: str | Path) -> NormalDriving | None:
        """Reads the file of a checkpoint folder; None if it has none.

        Raises:
            InputError: If the file is damaged.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as content:
                ends = np.cumsum(content["lengths"])
                risk = content["risk"].astype(np.float64)
                fps, source = float(content["fps"]), str(content["source"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"'{path}' is damaged: {error}.", "Delete it, or copy the checkpoint again.") from error
        if not len(ends) or ends[-1] != len(risk) or not fps > 0:
            raise InputError(f"'{path}' is damaged: its curves have other lengths than it says.", "Delete it.")
        return cls(np.split(risk, ends[:-1]), fps, source)
