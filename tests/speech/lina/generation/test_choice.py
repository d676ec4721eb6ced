"""Options of the run, what the checkpoint recommends, and published values."""

from typing import Any

import pytest

from mmattn.errors import InputError
from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.generation.choice import choose_speaking


def test_published_values_are_the_last_resort() -> None:
    assert choose_speaking(LinaInferOptions(), {}) == (SamplingOptions(), 1.0, 200)


def test_the_run_goes_before_the_checkpoint() -> None:
    speaking = {"temperature": 0.6, "guidance": 2.0, "sampled_codebooks": 3, "max_characters": 80}
    chosen = choose_speaking(LinaInferOptions(temperature=1.0, guidance=1.5), speaking)
    assert (chosen.sampling.temperature, chosen.sampling.sampled_codebooks, chosen.guidance) == (1.0, 3, 1.5)
    assert chosen.max_characters == 80
    assert choose_speaking(LinaInferOptions(max_characters=50), speaking).max_characters == 50


@pytest.mark.parametrize(
    ("speaking", "message"),
    [
        ({"loudness": 1}, "recommends loudness"),
        ({"temperature": -1}, "out of range: temperature is -1"),
        ({"guidance": "much"}, "out of range: could not convert"),
        ({"max_characters": 19}, "max_characters is 19, expected a whole number of at least 20"),
        ({"max_characters": 80.5}, "max_characters is 80.5, expected a whole number"),
        ({"max_characters": None}, "max_characters is None, expected a whole number"),
    ],
)
def test_wrong_recommendations(speaking: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_speaking(LinaInferOptions(), speaking)
