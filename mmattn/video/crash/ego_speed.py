"""The speed of the camera over the last second, from the detector's guess at every frame."""

from __future__ import annotations

from collections import deque

import numpy as np

__all__ = ["EgoSpeed"]

_REMEMBERED = 0.75
_RECENT = 0.25
_STIFFNESS = 0.05


class EgoSpeed:
    """Smooths speeds: a mean for the speed, a line for its change.

    >>> speed = EgoSpeed()
    >>> [tuple(round(v, 2) for v in speed.update(t / 10, 10.0 - t)) for t in range(3)]
    [(10.0, 0.0), (9.5, -0.91), (9.0, -2.86)]
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def update(self, time: float, speed: float) -> tuple[float, float]:
        """Takes the next guess and returns the smoothed speed (m/s) and its change (m/s2).

        The slope is that of least squares, drawn towards zero while there is little to fit it to.
        """
        self._seen.append((time, speed))
        while time - self._seen[0][0] > _REMEMBERED:
            self._seen.popleft()
        times, speeds = np.array(self._seen).T
        lever = times - times.mean()
        slope = float((lever * speeds).sum() / ((lever**2).sum() + _STIFFNESS))
        return float(speeds[time - times < _RECENT].mean()), slope
