"""A threshold for a wanted false-alarm rate, from the scores of pictures known to be normal.

The rule is split-conformal: with n normal scores, the ``ceil((n + 1)(1 - rate))``-th smallest is exceeded by a new
normal picture with probability at most ``rate``, whatever the distribution, as long as it is the same one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmattn.errors import InputError

__all__ = ["Calibration", "find_threshold"]


@dataclass(frozen=True)
class Calibration:
    """Result of :func:`find_threshold`.

    Attributes:
        threshold: A picture is called anomalous when its score exceeds this number.
        false_alarm_rate: Rate that was asked for, in (0, 1).
        pictures: Number of normal pictures the threshold rests on.
        guaranteed: False when there are too few pictures for the rate: the threshold is then their maximum, and
            the rate that can be promised is ``1 / (pictures + 1)``.
        reachable_rate: Smallest rate that this many pictures can promise.
        scores: The normal scores, ascending.
    """

    threshold: float
    false_alarm_rate: float
    pictures: int
    guaranteed: bool
    reachable_rate: float
    scores: list[float]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return asdict(self)


def find_threshold(scores: Sequence[float], false_alarm_rate: float = 0.05) -> Calibration:
    """Returns the threshold that a new normal picture exceeds with probability at most ``false_alarm_rate``.

    >>> result = find_threshold([0.1, 0.2, 0.3, 0.4], false_alarm_rate=0.4)
    >>> result.threshold, result.guaranteed
    (0.3, True)
    >>> find_threshold([0.1, 0.2], false_alarm_rate=0.05).guaranteed
    False

    Raises:
        InputError: If there are no scores or the rate is outside (0, 1).
    """
    if not 0.0 < false_alarm_rate < 1.0:
        raise InputError(
            f"The false-alarm rate is {false_alarm_rate}, expected a number between 0 and 1.", "Pass for example 0.05."
        )
    if not scores:
        raise InputError("There are no normal pictures to calibrate on.", "Give a folder with at least one picture.")
    ordered = sorted(float(s) for s in scores)
    n = len(ordered)
    # Rounding keeps (n + 1)(1 - rate) = 3.0000000000000004 from becoming rank 4.
    rank = math.ceil(round((n + 1) * (1.0 - false_alarm_rate), 9))
    return Calibration(
        threshold=ordered[min(rank, n) - 1],
        false_alarm_rate=false_alarm_rate,
        pictures=n,
        guaranteed=rank <= n,
        reachable_rate=1.0 / (n + 1),
        scores=ordered,
    )
