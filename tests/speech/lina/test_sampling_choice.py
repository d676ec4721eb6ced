"""Options of the run, of the checkpoint, and published ones."""

from typing import Any

import pytest

from mmattn.core.errors import InputError
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.sampling import SamplingOptions
from mmattn.speech.lina.sampling_choice import choose_sampling


def test_published_values_are_the_last_resort() -> None:
    sampling, guidance = choose_sampling(LinaInferOptions(), {})
    assert sampling == SamplingOptions()
    assert guidance == 1.0


def test_the_run_goes_before_the_checkpoint() -> None:
    speaking = {"temperature": 0.6, "guidance": 2.0, "sampled_codebooks": 3}
    sampling, guidance = choose_sampling(LinaInferOptions(temperature=1.0, guidance=1.5), speaking)
    assert (sampling.temperature, sampling.sampled_codebooks, guidance) == (1.0, 3, 1.5)


@pytest.mark.parametrize(
    ("speaking", "message"),
    [({"loudness": 1}, "recommends loudness"), ({"temperature": -1}, "out of range: temperature is -1")],
)
def test_wrong_recommendations(speaking: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_sampling(LinaInferOptions(), speaking)
