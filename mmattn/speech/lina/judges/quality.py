"""What listeners would say of the sound: DNSMOS, whose networks the package speechmos (MIT) brings.

Source: Reddy et al., "DNSMOS P.835" (arXiv 2110.01763). A network guesses the three ratings of ITU-T P.835 from 9.01 s
of sound, and polynomials map them to the scale of listeners; both are taken from the package's file and code. It was
trained on noisy telephone speech in which noise had been suppressed, so on synthetic speech it ranks recordings of one
kind, and its numbers are no opinion scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmattn.errors import MissingExtraError
from mmattn.speech.lina.judges.judge import SAMPLE_RATE, Wave, heard_wave, packaged_file

__all__ = ["Quality", "QualityJudge"]

_SECONDS = 9.01
_SAMPLES = int(_SECONDS * SAMPLE_RATE)
_SIGNAL = (-0.08397278, 1.22083953, 0.0052439)
_BACKGROUND = (-0.13166888, 1.60915514, -0.39604546)
_OVERALL = (-0.06766283, 1.11546468, 0.04602535)
"""Polynomials from the network's outputs to ratings, highest power first."""


@dataclass(frozen=True)
class Quality:
    """Ratings from 1 (bad) to 5 (excellent).

    Attributes:
        signal: Of the speech.
        background: Of what is not speech: 5 means that it does not disturb.
        overall: Of both.
    """

    signal: float
    background: float
    overall: float

    @classmethod
    def mean(cls, ratings: Sequence[Quality]) -> Quality:
        """Returns the mean of at least one."""
        return cls(
            signal=float(np.mean([rating.signal for rating in ratings])),
            background=float(np.mean([rating.background for rating in ratings])),
            overall=float(np.mean([rating.overall for rating in ratings])),
        )


class QualityJudge:
    """Rates recordings, on one thread.

    Raises:
        MissingExtraError: If onnxruntime is not installed.
        InputError: If speechmos is not installed.
    """

    def __init__(self) -> None:
        try:
            from onnxruntime import InferenceSession, SessionOptions
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "export", "Judging quality") from error
        file = packaged_file("speechmos", "dnsmos_models/sig_bak_ovr.onnx", "speechmos", "Judging quality")
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def rate(self, wave: Wave, sample_rate: int) -> Quality:
        """Returns the mean rating over windows of 9.01 s, one second apart; shorter recordings are repeated.

        Args:
            wave: (N,) ``float32`` in [-1, 1].
            sample_rate: Hz.

        Raises:
            InputError: If the wave is empty, not one-dimensional or not finite.
        """
        samples = np.clip(heard_wave(wave, sample_rate), -1, 1)
        while len(samples) < _SAMPLES:
            samples = np.concatenate([samples, samples])
        # Rounded as in the package, which leaves out some of the last windows.
        count = int(len(samples) // SAMPLE_RATE - _SECONDS) + 1
        return Quality.mean([self._rate(samples[start * SAMPLE_RATE :][:_SAMPLES]) for start in range(count)])

    def _rate(self, samples: Wave) -> Quality:
        signal, background, overall = self._session.run(None, {"input_1": samples[None]})[0][0].tolist()
        return Quality(
            signal=float(np.polyval(_SIGNAL, signal)),
            background=float(np.polyval(_BACKGROUND, background)),
            overall=float(np.polyval(_OVERALL, overall)),
        )
