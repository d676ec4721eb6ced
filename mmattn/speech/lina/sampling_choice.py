"""Which sampling a run uses: what its options say, else what the checkpoint recommends, else the published values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmattn.core.errors import InputError
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.sampling import SamplingOptions

__all__ = ["PUBLISHED", "choose_sampling"]

PUBLISHED: dict[str, float] = {
    "temperature": 1.0, "top_k": 100, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "sampled_codebooks": 1,
    "guidance": 1.0,
}  # fmt: skip
"""Of theodorblackbird/lina-speech; also the names that ``LinaConfig.speaking`` may hold."""


def choose_sampling(options: LinaInferOptions, speaking: Mapping[str, Any]) -> tuple[SamplingOptions, float]:
    """Returns the rules of the draw, and the weight of the guidance.

    Args:
        options: Of the run; None leaves a choice to the checkpoint.
        speaking: What the checkpoint says, :attr:`LinaConfig.speaking`.

    Raises:
        InputError: If a value is out of range, or the checkpoint names something else.

    >>> chosen, guidance = choose_sampling(LinaInferOptions(top_k=5), {"temperature": 0.7, "top_k": 50})
    >>> chosen.temperature, chosen.top_k, guidance
    (0.7, 5, 1.0)
    """
    unknown = sorted(set(speaking) - set(PUBLISHED))
    if unknown:
        raise InputError(f"The checkpoint recommends {', '.join(unknown)}, which is no choice of sampling.")
    given = {name: getattr(options, name) for name in PUBLISHED if getattr(options, name) is not None}
    values: dict[str, Any] = {**PUBLISHED, **speaking, **given}
    guidance = float(values.pop("guidance"))
    try:
        return SamplingOptions(**values), guidance
    except (ValueError, TypeError) as error:
        raise InputError(f"An option is out of range: {error}") from error
