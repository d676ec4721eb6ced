"""Drawing tokens: order of the rules, each rule by hand, one number per token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.kernels.sampling import SamplingOptions, candidates, draw, penalise

LOGITS = torch.tensor([[1.0, 4.0, 3.0, -2.0, 2.0]])
LIKELIEST_FIRST = [1, 2, 4, 0, 3]


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0])
def test_top_k_keeps_k_tokens_at_every_temperature(temperature: float) -> None:
    # The published code compares scaled logits with an unscaled threshold: at 3.0 it would keep none of these.
    ids, probabilities = candidates(LOGITS, SamplingOptions(temperature=temperature, top_k=3))
    assert ids.tolist() == [[1, 2, 4]]
    expected = (LOGITS[0, [1, 2, 4]] / temperature).softmax(dim=0)
    torch.testing.assert_close(probabilities[0], expected)


def test_logits_are_left_as_they_are() -> None:
    before = LOGITS.clone()
    draw(LOGITS, SamplingOptions(top_k=2, top_p=0.5, min_p=0.1), numbers(0.5))
    assert torch.equal(LOGITS, before)


def test_top_p_keeps_the_fewest_tokens_that_reach_the_sum() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    _, probabilities = candidates(logits, SamplingOptions(top_p=0.7, top_k=0))
    torch.testing.assert_close(probabilities, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    _, certain = candidates(logits, SamplingOptions(top_p=0.0, top_k=0))
    assert certain.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_min_p_is_measured_against_the_likeliest() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    _, probabilities = candidates(logits, SamplingOptions(min_p=0.25, top_k=0))
    torch.testing.assert_close(probabilities, torch.tensor([[50 / 95, 30 / 95, 15 / 95, 0.0]]))


@pytest.mark.parametrize("options", [SamplingOptions(temperature=0.0), SamplingOptions(top_k=1)])
def test_greedy_takes_the_likeliest(options: SamplingOptions) -> None:
    assert draw(LOGITS, options, numbers(0.99)).tolist() == [1]


def test_the_number_is_a_place_in_the_cumulated_probabilities() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(6, 3)
    drawn = draw(logits, SamplingOptions(), numbers(0.0, 0.499, 0.501, 0.799, 0.801, 1.0 - 2.0**-53))
    assert drawn.tolist() == [0, 0, 1, 1, 2, 2]


def test_frequencies_are_the_probabilities() -> None:
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = draw(LOGITS.expand(20_000, 5), SamplingOptions(temperature=1.5), uniform)
    found = torch.bincount(drawn, minlength=5) / 20_000
    torch.testing.assert_close(found, (LOGITS[0] / 1.5).softmax(0), atol=0.01, rtol=0)


@given(
    uniform=st.floats(0.0, 1.0, exclude_max=True),
    top_k=st.integers(0, 5),
    top_p=st.floats(0.0, 1.0),
    min_p=st.floats(0.0, 1.0),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_dropped_or_impossible_token_is_never_drawn(
    uniform: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    logits = 10 * torch.randn(1, 6, generator=torch.Generator().manual_seed(seed))
    logits[0, seed % 6] = -torch.inf
    options = SamplingOptions(top_k=top_k, top_p=top_p, min_p=min_p)
    drawn = int(draw(logits, options, numbers(uniform)))
    ids, probabilities = candidates(logits, options)
    assert drawn != seed % 6
    assert drawn in ids[probabilities > 0].tolist()
    assert float(probabilities.sum()) == pytest.approx(1.0)


def test_a_penalty_divides_the_odds_once() -> None:
    punished = penalise(LOGITS, torch.tensor([[1, 1, 3]]), 2.0)
    torch.testing.assert_close(punished.exp() / LOGITS.exp(), torch.tensor([[1.0, 0.5, 1.0, 0.5, 1.0]]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -1.0), ("top_k", -1), ("top_p", 1.5), ("min_p", -0.1), ("repetition_penalty", 0.0),
     ("repetition_window", -1), ("sampled_codebooks", -1), ("temperature", float("nan"))],
)  # fmt: skip
def test_a_field_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        SamplingOptions(**{field: value})  # type: ignore[arg-type]
