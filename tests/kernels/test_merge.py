"""merge: the log-sum-exp identity and its laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.kernels import attention, merge


def _partials(seed: int, number: int) -> list[tuple[Tensor, Tensor]]:
    """Random partials of 6 rows; about a third of the rows are empty."""
    generator = torch.Generator().manual_seed(seed)
    partials = []
    for _ in range(number):
        out = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        lse = 3 * torch.randn(6, generator=generator, dtype=torch.float64)
        empty = torch.rand(6, generator=generator) < 0.34
        partials.append((out.masked_fill(empty[:, None], 0.0), lse.masked_fill(empty, -torch.inf)))
    return partials


def _assert_same(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(left, right, atol=1e-12, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.permutations(range(4)))
def test_the_order_of_partials_does_not_matter(seed: int, order: list[int]) -> None:
    partials = _partials(seed, 4)
    _assert_same(merge([partials[i] for i in order]), merge(partials))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_merging_is_associative(seed: int) -> None:
    a, b, c = _partials(seed, 3)
    _assert_same(merge([merge([a, b]), c]), merge([a, merge([b, c])]))


def test_merged_key_shards_are_the_whole_attention_with_gradients() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 4, dtype=torch.float64, requires_grad=True) for n in (5, 9, 9))
    whole = attention(q, k, v, return_lse=True, backend="reference")
    shards = [
        attention(q, k[:, :, part], v[:, :, part], return_lse=True, backend="reference")
        for part in (slice(0, 4), slice(4, 5), slice(5, 9))
    ]
    merged = merge(shards)
    _assert_same(merged, whole)
    weights = torch.randn_like(whole[0]), torch.randn_like(whole[1])
    gradients = [
        torch.autograd.grad((out * weights[0]).sum() + (lse * weights[1]).sum(), (q, k, v), retain_graph=True)
        for out, lse in (merged, whole)
    ]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)


def test_rows_without_any_key_stay_empty_with_zero_gradients() -> None:
    out = torch.zeros(2, 1, 3, requires_grad=True)
    lse = torch.full((2, 1), -torch.inf, requires_grad=True)
    merged_out, merged_lse = merge(list(zip(out, lse, strict=True)))
    assert merged_out.tolist() == [[0.0, 0.0, 0.0]]
    assert merged_lse.tolist() == [-torch.inf]
    (merged_out.sum() + merged_lse.sum()).backward()
    assert torch.equal(out.grad, torch.zeros_like(out))
    assert torch.equal(lse.grad, torch.zeros_like(lse))


def test_a_sink_logit_takes_its_share_of_the_softmax() -> None:
    x = torch.zeros(1, 1, 3, 2)
    value = torch.ones(1, 1, 3, 2)
    out, lse = merge([attention(x, x, value, return_lse=True), (torch.zeros_like(value), torch.zeros(1, 1, 3))])
    torch.testing.assert_close(out, torch.full_like(out, 0.75))
    torch.testing.assert_close(lse, torch.full_like(lse, 4.0).log())


@pytest.mark.parametrize("options", [{"causal": True}, {"causal": True, "window": 2}, {"causal": True, "softcap": 3.0}])
def test_learned_sinks_are_a_key_without_a_value_with_their_gradient(options: dict) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 6, 4, dtype=torch.float64, generator=generator).requires_grad_()
    sinks = torch.randn(3, dtype=torch.float64, generator=generator).requires_grad_()
    weights = torch.randn(2, 3, 6, 4, dtype=torch.float64, generator=generator)

    out, lse = attention(q, k, v, return_lse=True, **options)
    ours, _ = merge([(out, lse), (torch.zeros_like(out), sinks[:, None].expand_as(lse))])

    scores = q @ k.transpose(-1, -2) / 2
    scores = scores if "softcap" not in options else 3.0 * (scores / 3.0).tanh()
    near = torch.ones(6, 6).tril() * torch.ones(6, 6).triu(1 - options.get("window", 6))
    scores = torch.cat([scores.masked_fill(near == 0, -torch.inf), sinks[:, None, None].expand(2, 3, 6, 1)], dim=-1)
    theirs = scores.softmax(-1)[..., :-1] @ v  # as gpt-oss does it: one more column, dropped after the softmax

    torch.testing.assert_close(ours, theirs)
    grads = [torch.autograd.grad((x * weights).sum(), (sinks, q, k, v)) for x in (ours, theirs)]
    torch.testing.assert_close(*grads)


def test_large_logits_do_not_overflow() -> None:
    out, lse = merge([(torch.ones(1, 1), torch.tensor([1e4])), (torch.zeros(1, 1), torch.tensor([-1e4]))])
    assert out.item() == 1.0
    assert lse.item() == 1e4


def test_wrong_partials_are_explained() -> None:
    with pytest.raises(ValueError, match="at least one partial"):
        merge([])
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3,\)"):
        merge([(torch.zeros(2, 3), torch.zeros(3))])
