"""How a run speaks: what its options say, else what the checkpoint recommends, else the published values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmattn.errors import InputError
from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.text.sentences import LEAST_CHARACTERS

__all__ = ["PUBLISHED", "SpeakingChoice", "choose_speaking"]

PUBLISHED: dict[str, float] = {
    "temperature": 1.0, "top_k": 100, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "sampled_codebooks": 1,
    "guidance": 1.0, "max_characters": 200,
}  # fmt: skip
"""Of theodorblackbird/lina-speech, and the longest sentence, which it does not limit; also the names that
``LinaConfig.speaking`` may hold."""


class SpeakingChoice(NamedTuple):
    """How a run speaks.

    Attributes:
        sampling: The rules of the draw.
        guidance: Its weight; 1 is none.
        max_characters: Longest sentence that is spoken at one go.
    """

    sampling: SamplingOptions
    guidance: float
    max_characters: int


def choose_speaking(options: LinaInferOptions, speaking: Mapping[str, Any]) -> SpeakingChoice:
    """Returns how a run speaks.

    Args:
        options: Of the run; None leaves a choice to the checkpoint.
        speaking: What the checkpoint says, :attr:`LinaConfig.speaking`.

    Raises:
        InputError: If a value is out of range, or the checkpoint names something else.

    >>> chosen = choose_speaking(LinaInferOptions(top_k=5), {"temperature": 0.7, "top_k": 50, "max_characters": 80})
    >>> chosen.sampling.temperature, chosen.sampling.top_k, chosen.guidance, chosen.max_characters
    (0.7, 5, 1.0, 80)
    """
    unknown = sorted(set(speaking) - set(PUBLISHED))
    if unknown:
        raise InputError(
            f"The checkpoint recommends {', '.join(unknown)}, which is no choice of speaking.",
            f"Expected some of {', '.join(PUBLISHED)}.",
        )
    given = {name: getattr(options, name) for name in PUBLISHED if getattr(options, name) is not None}
    values: dict[str, Any] = {**PUBLISHED, **speaking, **given}
    longest = values.pop("max_characters")
    if not isinstance(longest, int) or longest < LEAST_CHARACTERS:
        raise InputError(f"max_characters is {longest!r}, expected a whole number of at least {LEAST_CHARACTERS}.")
    try:
        guidance = float(values.pop("guidance"))
        return SpeakingChoice(SamplingOptions(**values), guidance, longest)
    except (ValueError, TypeError) as error:
        raise InputError(f"An option is out of range: {error}") from error
