"""The JRT layer and prompt: features, prefix, padding, streams."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.attention.recurrent.prefix_linear import PrefixLinearAttention, repeat_context


def layer(**options: object) -> PrefixLinearAttention:
    return PrefixLinearAttention(8, num_heads=2, feature_dim=3, **{"enc_length": 5, **options}).double()


def close(left: object, right: object, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(5, 13), max_size=4))
def test_a_stream_may_be_cut_anywhere_after_its_prefix(cuts: list[int]) -> None:
    mixer, x = layer(), torch.randn(2, 14, 8, dtype=torch.float64)
    state, outs = None, []
    for start, stop in pairwise([0, *sorted(set(cuts)), 14]):
        out, state = mixer(x[:, start:stop], state)
        outs.append(out)
    close(torch.cat(outs, dim=1), mixer(x)[0])


def test_the_prefix_is_seen_from_its_first_token_and_the_rest_is_causal() -> None:
    mixer, x = layer(), torch.randn(1, 12, 8, dtype=torch.float64)
    out, _ = mixer(x)
    inside, after = x.clone(), x.clone()
    inside[:, 4] += 1.0
    after[:, 8:] += 1.0
    assert (mixer(inside)[0] - out)[:, 0].abs().max() > 1e-4
    close(mixer(after)[0][:, :8], out[:, :8])


def test_padding_after_the_feature_map_is_as_good_as_absent_and_before_it_is_not() -> None:
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    mask = torch.tensor([[False, False] + [True] * 7])
    clean, published = layer(mask_after_feature_map=True), layer()
    published.load_state_dict(clean.state_dict())
    clean_alone = PrefixLinearAttention(8, num_heads=2, feature_dim=3, enc_length=3).double()
    clean_alone.load_state_dict(clean.state_dict())
    expected, _ = clean_alone(x[:, 2:])
    close(clean(x, mask=mask)[0][:, 2:], expected)
    assert (published(x, mask=mask)[0][:, 2:] - expected).abs().max() > 1e-3


def test_a_prompt_is_repeated() -> None:
    context, question = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[8], [9]])
    assert repeat_context(context, question).tolist() == [[1, 2, 1, 2, 8], [3, 4, 3, 4, 9]]
    assert repeat_context(context, repeats=3).tolist() == [[1, 2] * 3, [3, 4] * 3]
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        repeat_context(context, repeats=0)


def test_reading_again_from_the_state_is_the_repeated_prompt() -> None:
    mixer, x = layer(enc_length=0), torch.randn(2, 6, 8, dtype=torch.float64)
    twice, _ = mixer(repeat_context(x.transpose(1, 2)).transpose(1, 2))
    _, state = mixer(x)
    close(mixer(x, state)[0], twice[:, 6:])


def test_what_does_not_fit_is_explained() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a model of width 8"):
        PrefixLinearAttention(8, num_heads=3)
    with pytest.raises(ValueError, match=r"x must be \(B, T, 8\), got \(1, 4, 7\)"):
        layer()(torch.zeros(1, 4, 7))
    for mask in (torch.ones(1, 4), torch.ones(4, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"mask must be bool \(B, T\) = \(1, 4\), got torch"):
            layer()(torch.zeros(1, 4, 8, dtype=torch.float64), mask=mask)
