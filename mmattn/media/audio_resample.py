"""Changing the sample rate by any ratio: a polyphase filter of windowed sines.

With rates L/M in lowest terms, output n lies at input position ``t = n M / L`` and is the sum over k of
``x_k h(t - k)`` with ``h(t) = c sinc(c t) kaiser(t / w)``, where c is the cut-off in parts of the input's Nyquist
frequency and w the half width. The fraction of t takes only L values, so the filter is tabulated for each of them once
(J. O. Smith, "Digital Audio Resampling Home Page"; Crochiere and Rabiner, "Multirate Digital Signal Processing", 4).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

__all__ = ["resample"]

# This window over 48 zero crossings on each side falls by 90 dB in 12 % of the band, of which half lies below the
# cut-off.
_CROSSINGS = 48
_KAISER_BETA = 9.0
_ROLL_OFF = 0.94
_WINDOW_POINTS = 1 << 14


def resample(samples: npt.NDArray[np.float32], source_rate: int, target_rate: int) -> npt.NDArray[np.float32]:
    """Returns mono samples (N,) at another rate, ``(ceil(N * target / source),)``, without delay.

    What lies above 88 % of the lower rate's Nyquist frequency fades, what lies above 100 % is gone (-90 dB).
    The recording is surrounded by silence. Time O(N_out * w) with ``w = 102 max(1, source / target)``.

    Raises:
        ValueError: A rate is below 1, or ``samples`` is not one-dimensional.

    >>> resample(np.ones(4, dtype=np.float32), 8000, 16000).shape
    (8,)
    """
    if min(source_rate, target_rate) < 1 or samples.ndim != 1:
        raise ValueError(
            f"Got rates {source_rate} and {target_rate} and samples of shape {samples.shape}, expected positive rates "
            "and one dimension."
        )
    common = math.gcd(source_rate, target_rate)
    up, down = target_rate // common, source_rate // common
    if up == down or samples.size == 0:
        return samples.astype(np.float32)
    table = _filters(up, down)  # (L, taps)
    count = -(-samples.size * up // down)
    rounds = -(-count // up)
    position, phase = np.divmod(np.arange(up, dtype=np.int64) * down, up)
    half = table.shape[1] // 2
    padded = np.zeros(max(half - 1 + samples.size, (rounds - 1) * down + int(position[-1]) + 2 * half), np.float32)
    padded[half - 1 : half - 1 + samples.size] = samples
    result = torch.empty(rounds, up)
    # Neighbouring outputs see nearly the same inputs: together they are one convolution with a stride of M.
    group = min(up, 2 * half * up // down + 1)
    for first in range(0, up, group):
        members = slice(first, min(first + group, up))
        shift = position[members] - position[first]
        filters = np.zeros((len(shift), int(shift[-1]) + 2 * half), np.float32)
        np.put_along_axis(filters, shift[:, None] + np.arange(2 * half), table[phase[members]], axis=1)
        seen = torch.from_numpy(padded[position[first] :])[None, None]
        out = functional.conv1d(seen, torch.from_numpy(filters)[:, None], stride=down)[0, :, :rounds]
        result[:, members] = out.T
    return result.flatten()[:count].numpy()


@lru_cache(maxsize=4)
def _filters(up: int, down: int) -> npt.NDArray[np.float32]:
    """Returns the filter for every fraction of the input position, (L, taps); tap j lies at ``j - taps/2 + 1``."""
    cutoff = _ROLL_OFF * min(1.0, up / down)
    half = math.ceil(_CROSSINGS / cutoff)
    fraction = np.arange(up)[:, None] / up
    distance = fraction - np.arange(1 - half, half + 1)[None, :]  # (L, 2 half)
    # Read off a fine curve: the Bessel function itself would take seconds for thousands of fractions.
    curve = np.kaiser(2 * _WINDOW_POINTS + 1, _KAISER_BETA)[_WINDOW_POINTS:]
    window = np.interp(np.abs(distance) / half, np.linspace(0, 1, _WINDOW_POINTS + 1), curve)
    table = cutoff * np.sinc(cutoff * distance) * window
    # Each fraction alone passes a constant unchanged; otherwise a hum at the phases' rate would remain.
    return np.asarray(table / table.sum(axis=1, keepdims=True), dtype=np.float32)
