"""From a risk for every frame to alerts a person can act on: threshold, persistence, cooldown.

A frame counts when its risk is at or above the threshold. Consecutive frames that count are a run. A run raises one
alert, at the first frame at which it is at least ``persistence`` frames long and ``cooldown`` seconds have passed since
the alert before. With persistence 1 and no cooldown the first alert is the one the published metrics speak of.

:func:`find_alerts` looks at a whole curve, :class:`AlertMonitor` at one frame after the other; they agree. No torch.

Shapes: T frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError

__all__ = [
    "Alert",
    "AlertMonitor",
    "AlertRule",
    "FalseAlarms",
    "find_alerts",
    "sustained_risk",
    "threshold_for_rate",
    "upper_bound",
]

FloatArray = npt.NDArray[np.float64]

_STEPS = 1000
# Times are sums of frame intervals: 2.0000000000000004 s have passed after 20 frames of 0.1 s.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class AlertRule:
    """When risk becomes an alert.

    Attributes:
        threshold: Risk in [0, 1] from which a frame counts.
        persistence: Consecutive frames that count, at least 1.
        cooldown: Seconds after an alert without another one, 0 or more.

    Raises:
        InputError: If one of them is out of range.
    """

    threshold: float = 0.6
    persistence: int = 3
    cooldown: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise InputError(
                f"alert_threshold is {self.threshold}, expected a number in [0, 1].", "Pass --alert-threshold 0.6."
            )
        if self.persistence < 1:
            raise InputError(f"persistence is {self.persistence}, expected at least 1 frame.", "Pass --persistence 3.")
        if not (math.isfinite(self.cooldown) and self.cooldown >= 0):
            raise InputError(f"cooldown is {self.cooldown}, expected 0 or more seconds.", "Pass --cooldown 2.")


@dataclass(frozen=True)
class Alert:
    """One alert.

    Attributes:
        frame: Number of the frame at which it is raised, from 0.
        time: Its time, seconds.
        start: Time of the first frame of the run, seconds.
        risk: Risk at ``frame``.
    """

    frame: int
    time: float
    start: float
    risk: float

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types, rounded for people."""
        return {
            "frame": self.frame,
            "time": round(self.time, 3),
            "start": round(self.start, 3),
            "risk": round(self.risk, 6),
        }


class AlertMonitor:
    """Raises alerts while frames come in; constant memory.

    Args:
        rule: When to raise them.

    >>> monitor = AlertMonitor(AlertRule(threshold=0.5, persistence=2, cooldown=0.0))
    >>> [monitor.update(risk, t / 10) is not None for t, risk in enumerate([0.9, 0.2, 0.6, 0.7, 0.8])]
    [False, False, False, True, False]
    """

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self._frame = 0
        self._length = 0
        self._start = 0.0
        self._is_raised = False
        self._last = -math.inf

    def update(self, risk: float, time: float) -> Alert | None:
        """Takes the next frame and returns the alert it raises, if any.

        Args:
            risk: Probability of an accident; NaN does not count.
            time: Seconds, ascending.
        """
        frame, self._frame = self._frame, self._frame + 1
        if not risk >= self.rule.threshold:
            self._length, self._is_raised = 0, False
            return None
        if self._length == 0:
            self._start = time
        self._length += 1
        is_due = self._length >= self.rule.persistence and time - self._last >= self.rule.cooldown - _TOLERANCE
        if self._is_raised or not is_due:
            return None
        self._is_raised, self._last = True, time
        return Alert(frame, time, self._start, risk)

    def interrupt(self) -> None:
        """Ends the run at hand, as after a gap in the stream; the cooldown goes on."""
        self._length, self._is_raised = 0, False

    def state(self) -> dict[str, float]:
        """Returns what :meth:`restore` needs; a moment long before any frame stands for no alert yet."""
        return {
            "frame": self._frame,
            "length": self._length,
            "start": self._start,
            "is_raised": float(self._is_raised),
            "last": max(self._last, -1e300),
        }

    def restore(self, state: Mapping[str, float]) -> None:
        """Goes on from where :meth:`state` was taken.

        Raises:
            KeyError: If a number is missing.
        """
        self._frame, self._length = int(state["frame"]), int(state["length"])
        self._start, self._last = float(state["start"]), float(state["last"])
        self._is_raised = bool(state["is_raised"])


def find_alerts(risk: npt.ArrayLike, times: npt.ArrayLike, rule: AlertRule) -> list[Alert]:
    """Returns the alerts of a whole curve, in order.

    Args:
        risk: (T,) probabilities; NaN does not count.
        times: (T,) seconds, ascending.
        rule: When to raise them.

    Raises:
        ValueError: If the shapes differ.

    >>> [alert.frame for alert in find_alerts([0.1, 0.7, 0.8, 0.9], [0.0, 0.1, 0.2, 0.3], AlertRule(persistence=2))]
    [2]
    """
    values, moments = np.asarray(risk, np.float64), np.asarray(times, np.float64)
    if values.ndim != 1 or values.shape != moments.shape:
        raise ValueError(f"risk has shape {values.shape}, times {moments.shape}; expected (T,) for both.")
    found: list[Alert] = []
    last = -math.inf
    for start, end in _runs(values >= rule.threshold):
        # Within a run time ascends, so the first frame after the cooldown is found by bisection.
        waited = start + int(np.searchsorted(moments[start:end] - last, rule.cooldown - _TOLERANCE))
        frame = max(start + rule.persistence - 1, waited)
        if frame < end:
            last = float(moments[frame])
            found.append(Alert(frame, last, float(moments[start]), float(values[frame])))
    return found


def sustained_risk(risk: npt.ArrayLike, persistence: int) -> float:
    """Returns the highest threshold at which a curve raises an alert; 0 when it is shorter than ``persistence``.

    It is the largest value that ``persistence`` consecutive frames of the curve (T,) all reach.

    >>> sustained_risk([0.2, 0.9, 0.4, 0.5], 2)
    0.4
    """
    values = np.nan_to_num(np.asarray(risk, np.float64), nan=0.0)
    if len(values) < persistence:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(values, persistence)
    return float(windows.min(axis=1).max())


@dataclass(frozen=True)
class FalseAlarms:
    """How often normal driving raises an alert.

    Attributes:
        threshold: The threshold.
        alerts: Alerts that were raised.
        hours: Hours of driving.
        per_hour: Their quotient; NaN without footage.
        at_most: Upper end of its one-sided 95 % confidence interval: with little footage much more than ``per_hour``.
    """

    threshold: float
    alerts: int
    hours: float

    @property
    def per_hour(self) -> float:
        """Alerts per hour."""
        return self.alerts / self.hours if self.hours > 0 else math.nan

    @property
    def at_most(self) -> float:
        """Rate that is exceeded with a probability of 5 % at most, alerts per hour."""
        return upper_bound(self.alerts) / self.hours if self.hours > 0 else math.inf

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types, None where a rate is not defined."""
        rates = {"per_hour": self.per_hour, "at_most": self.at_most}
        return {**asdict(self), **{name: value if math.isfinite(value) else None for name, value in rates.items()}}

    @classmethod
    def count(cls, curves: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], rule: AlertRule) -> FalseAlarms:
        """Counts the alerts of footage in which nothing happens.

        Args:
            curves: Risk (T,) and times (T,), in seconds, of each video.
            rule: When alerts are raised.
        """
        alerts = sum(len(find_alerts(risk, times, rule)) for risk, times in curves)
        return cls(rule.threshold, alerts, sum(_seconds(times) for _, times in curves) / 3600)


def threshold_for_rate(
    curves: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], per_hour: float, rule: AlertRule
) -> FalseAlarms:
    """Returns the lowest threshold, in steps of 0.001, that keeps normal driving at or below a rate of false alarms.

    No threshold above it exceeds the rate either. (Alerts need not become fewer as the threshold rises: a long run can
    fall into two.)

    Args:
        curves: Risk (T,) and times (T,), in seconds, of each video.
        per_hour: Wanted rate, 0 or more alerts per hour.
        rule: Persistence and cooldown.

    Raises:
        InputError: If there is no footage, the rate is negative, or even a threshold of 1 exceeds it.
    """
    if not (math.isfinite(per_hour) and per_hour >= 0):
        raise InputError(f"The rate of false alarms is {per_hour}, expected 0 or more per hour.")
    if not sum(_seconds(times) for _, times in curves) > 0:
        raise InputError("There is no normal driving to calibrate on.", "Give a folder of videos without accidents.")
    found: FalseAlarms | None = None
    for step in range(_STEPS, -1, -1):
        rate = FalseAlarms.count(curves, AlertRule(step / _STEPS, rule.persistence, rule.cooldown))
        if rate.per_hour > per_hour:
            break
        found = rate
    if found is None:
        raise InputError(
            f"Even a threshold of 1 raises more than {per_hour:g} false alarms an hour: the model is sure of accidents "
            "in this footage.",
            "Look at the footage, or raise --persistence.",
        )
    return found


def upper_bound(count: int, confidence: float = 0.95) -> float:
    """Returns the largest mean of a Poisson variable under which ``count`` or fewer still happen in 5 % of cases.

    >>> round(upper_bound(0), 3)
    2.996
    """
    low, high = float(count), count + 10.0 * math.sqrt(count + 1.0) + 10.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        if _poisson_cdf(count, middle) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return high


def _poisson_cdf(count: int, mean: float) -> float:
    terms = (math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))
    return math.fsum(terms) if mean > 0 else 1.0


def _runs(counts: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yields start and end of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], counts, [False]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _seconds(times: npt.ArrayLike) -> float:
    """Returns how long footage is: the last frame lasts as long as the mean of the others."""
    moments = np.asarray(times, np.float64)
    return float((moments[-1] - moments[0]) * len(moments) / (len(moments) - 1)) if len(moments) > 1 else 0.0
