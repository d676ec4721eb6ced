"""Do probabilities mean what they say: expected calibration error, reliability bins, temperature scaling.

Source: Guo et al., "On calibration of modern neural networks" (arXiv 1706.04599), for two classes: the confidence is
the probability of the positive class, and it is compared with how often the positive class occurs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Reliability", "apply_temperature", "expected_calibration_error", "fit_temperature", "reliability"]

FloatArray = npt.NDArray[np.float64]

_ITERATIONS = 60


@dataclass(frozen=True)
class Reliability:
    """Probabilities in bins beside what happened.

    Attributes:
        edges: (K + 1,) borders of the bins; a probability on a border belongs to the bin above, 1 to the last.
        counts: (K,) probabilities in each bin.
        confidence: (K,) their mean, NaN in an empty bin.
        frequency: (K,) share of positives among them, NaN in an empty bin.
    """

    edges: FloatArray
    counts: npt.NDArray[np.int64]
    confidence: FloatArray
    frequency: FloatArray

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance of confidence and frequency, weighted by count; NaN if empty."""
        used = self.counts > 0
        if not used.any():
            return math.nan
        gap = np.abs(self.confidence[used] - self.frequency[used])
        return float(gap @ self.counts[used] / self.counts.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error: largest distance in a bin that is not empty; NaN if all are."""
        used = self.counts > 0
        return float(np.abs(self.confidence[used] - self.frequency[used]).max()) if used.any() else math.nan


def reliability(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    bins: int = 15,
    spacing: Literal["uniform", "quantile"] = "uniform",
) -> Reliability:
    """Returns the bins of a reliability diagram.

    Args:
        probabilities: (N,) in [0, 1]; for clips their largest probability, for frames each one's.
        labels: (N,) 0/1.
        bins: Number of bins K.
        spacing: Bins of equal width, or of equal count as far as ties allow.

    Raises:
        ValueError: If shapes differ, a probability lies outside [0, 1], or an option is out of range.

    >>> found = reliability([0.1, 0.2, 0.9, 0.8], [0, 0, 1, 0], bins=2)
    >>> found.counts.tolist(), round(found.ece, 3)
    ([2, 2], 0.25)
    """
    values, flags = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    if values.ndim != 1 or values.shape != flags.shape:
        raise ValueError(f"probabilities have shape {values.shape}, labels {flags.shape}; expected (N,) and (N,).")
    if not ((values >= 0) & (values <= 1)).all() or not np.isin(flags, (0, 1)).all():
        raise ValueError("probabilities must lie in [0, 1] and labels be 0 or 1.")
    if bins < 1 or spacing not in ("uniform", "quantile"):
        raise ValueError(f"bins is {bins} and spacing {spacing!r}; expected at least 1 and 'uniform' or 'quantile'.")
    edges = np.linspace(0.0, 1.0, bins + 1)
    if spacing == "quantile" and len(values):
        edges = np.concatenate([[0.0], np.quantile(values, edges[1:-1]), [1.0]])
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, values, minlength=bins) / counts
        frequency = np.bincount(place, flags, minlength=bins) / counts
    return Reliability(edges, counts, confidence, frequency)


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 15) -> float:
    """Returns the expected calibration error over bins of equal width; NaN without probabilities.

    Args:
        probabilities: (N,) in [0, 1].
        labels: (N,) 0/1.
        bins: Their number.

    >>> round(expected_calibration_error([0.1, 0.2, 0.9, 0.8], [0, 0, 1, 0], bins=2), 3)
    0.25
    """
    return reliability(probabilities, labels, bins=bins).ece


def fit_temperature(
    logits: npt.ArrayLike, labels: npt.ArrayLike, *, limits: tuple[float, float] = (0.05, 20.0)
) -> float:
    """Returns the temperature that minimises the negative log-likelihood of *validation* data.

    The likelihood is convex in 1 / temperature; its slope is bisected to the last bit that matters.

    Args:
        logits: (N,) logit of the positive class, or (N, 2) logits of both classes.
        labels: (N,) 0/1.
        limits: Range of the temperature. Logits that separate the labels would drive it to 0, and logits that rank no
            better than chance to infinity; the limit is returned then.

    Raises:
        ValueError: If shapes do not fit, a logit is not finite, there is no data, or the limits are not ascending and
            positive.

    >>> round(fit_temperature([4.0, 4.0, -4.0, 4.0], [1, 0, 0, 1]), 2)
    3.64
    """
    margin, flags = _margin(logits), np.asarray(labels, np.float64)
    if margin.shape != flags.shape or len(margin) == 0 or not np.isin(flags, (0, 1)).all():
        raise ValueError(
            f"got {len(margin)} logits, labels of shape {flags.shape}; expected one label, 0 or 1, for each."
        )
    if not 0 < limits[0] < limits[1]:
        raise ValueError(f"limits are {limits}; expected two ascending positive numbers.")
    low, high = 1.0 / limits[1], 1.0 / limits[0]
    if _slope(margin, flags, low) >= 0:
        return limits[1]
    if _slope(margin, flags, high) <= 0:
        return limits[0]
    for _ in range(_ITERATIONS):
        middle = 0.5 * (low + high)
        if _slope(margin, flags, middle) < 0:
            low = middle
        else:
            high = middle
    return 2.0 / (low + high)


def apply_temperature(logits: npt.ArrayLike, temperature: float) -> FloatArray:
    """Returns the probability of the positive class at a temperature.

    Args:
        logits: (..., 2) logits of both classes, or (N,) logits of the positive class.
        temperature: Above 1 moves probabilities towards one half; the order of clips stays.

    Raises:
        ValueError: If the temperature is not positive or a logit is not finite.

    >>> apply_temperature([[0.0, 2.0]], 2.0).round(4).tolist()
    [0.7311]
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a positive number.")
    return _sigmoid(_margin(logits) / temperature)


def _margin(logits: npt.ArrayLike) -> FloatArray:
    """Returns the logit of the positive class."""
    values = np.asarray(logits, np.float64)
    if values.ndim == 0 or not np.isfinite(values).all():
        raise ValueError(f"logits have shape {values.shape}; expected (N,) or (..., 2) finite numbers.")
    if values.ndim == 1:
        return values
    if values.shape[-1] != 2:
        raise ValueError(f"logits have shape {values.shape}; expected (N,) or (..., 2).")
    return np.asarray(values[..., 1] - values[..., 0])


def _slope(margin: FloatArray, flags: FloatArray, inverse_temperature: float) -> float:
    """Returns the derivative of the mean negative log-likelihood by 1 / temperature."""
    return float(np.mean((_sigmoid(margin * inverse_temperature) - flags) * margin))


def _sigmoid(x: FloatArray) -> FloatArray:
    # tanh does not overflow.
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))
