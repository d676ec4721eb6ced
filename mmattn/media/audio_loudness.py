"""Loudness as people hear it: ITU-R BS.1770-4 for one channel, in LUFS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["loudness"]

# The two stages of the K weighting as analogue prototypes, whose bilinear transform at 48 kHz gives the coefficients
# printed in the recommendation: a high shelf (+4 dB, the head) and a high pass.
_SHELF_HZ, _SHELF_GAIN_DB, _SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
_HIGH_PASS_HZ, _HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773
_BLOCK_SECONDS, _STEP_SECONDS = 0.4, 0.1
_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0
# In this time the high pass has forgotten the end of the recording.
_RING_SECONDS = 0.5


def loudness(samples: npt.NDArray[np.floating], sample_rate: int) -> float:
    """Returns the integrated loudness of mono samples (N,) in LUFS; -inf if nothing is louder than -70 LUFS.

    Blocks of 0.4 s, four in that time, count unless they are 10 LU quieter than the mean of those above -70 LUFS. A
    shorter recording is one block.

    Raises:
        ValueError: ``samples`` is empty or not one-dimensional, or the rate too low for the filters (below 4 kHz).
    """
    if samples.ndim != 1 or samples.size == 0 or sample_rate < 4000:
        raise ValueError(
            f"Got samples of shape {samples.shape} at {sample_rate} Hz, expected (N,) with N > 0 at 4000 Hz or more."
        )
    energy = _weighted(samples.astype(np.float64), sample_rate) ** 2
    total = np.concatenate([[0.0], np.cumsum(energy)])
    block = min(round(_BLOCK_SECONDS * sample_rate), samples.size)
    starts = np.arange(0, samples.size - block + 1, max(round(_STEP_SECONDS * sample_rate), 1))
    power = np.maximum(total[starts + block] - total[starts], 0.0) / block
    audible = power[_lufs(power) > _ABSOLUTE_GATE]
    if audible.size == 0:
        return -np.inf
    gated = audible[_lufs(audible) > float(_lufs(audible.mean())) + _RELATIVE_GATE]
    return float(_lufs(gated.mean()))


def _lufs(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(-0.691 + 10 * np.log10(np.maximum(power, 1e-30)))


def _weighted(samples: npt.NDArray[np.float64], sample_rate: int) -> npt.NDArray[np.float64]:
    """Applies the K weighting through the spectrum; what rings on after the end is cut, as a recursion would."""
    size = samples.size + int(_RING_SECONDS * sample_rate)
    frequency = np.asarray(np.fft.rfftfreq(size), dtype=np.float64)  # cycles per sample
    response = _shelf(frequency, sample_rate) * _high_pass(frequency, sample_rate)
    return np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: samples.size]


def _shelf(frequency: npt.NDArray[np.float64], sample_rate: int) -> npt.NDArray[np.complex128]:
    k = np.tan(np.pi * _SHELF_HZ / sample_rate)
    high = 10 ** (_SHELF_GAIN_DB / 20)
    # The exponent makes the band's gain the one of the printed coefficients.
    band = high**0.4996667741545416
    top = [high + band * k / _SHELF_Q + k * k, 2 * (k * k - high), high - band * k / _SHELF_Q + k * k]
    return _biquad(frequency, top, _poles(k, _SHELF_Q))


def _high_pass(frequency: npt.NDArray[np.float64], sample_rate: int) -> npt.NDArray[np.complex128]:
    k = np.tan(np.pi * _HIGH_PASS_HZ / sample_rate)
    bottom = _poles(k, _HIGH_PASS_Q)
    # The recommendation prints the numerator 1, -2, 1 beside a denominator that begins with 1.
    return _biquad(frequency, [bottom[0], -2 * bottom[0], bottom[0]], bottom)


def _poles(k: float, q: float) -> list[float]:
    return [1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k]


def _biquad(frequency: npt.NDArray[np.float64], top: list[float], bottom: list[float]) -> npt.NDArray[np.complex128]:
    """Returns the response of ``sum top_i z^-i / sum bottom_i z^-i``."""
    delay = np.exp(-2j * np.pi * frequency)
    return np.asarray(np.polyval(top[::-1], delay) / np.polyval(bottom[::-1], delay))
