"""Attention over boxes against its formula with keys and values, and what happens to slots that hold nothing."""

import pytest
import torch
from torch import Tensor

from mmattn.video.crash.network.object_attention import ObjectAttention, masked_softmax, max_boxes, mean_boxes

B, N, D, L = 3, 5, 8, 2


def parts(seed: int = 0) -> tuple[ObjectAttention, Tensor, Tensor]:
    torch.manual_seed(seed)
    return ObjectAttention(D, L).double(), torch.rand(B, N, D).double(), torch.randn(L, B, D).double()


def by_formula(attend: ObjectAttention, boxes: Tensor, hidden: Tensor, key_bias: Tensor) -> Tensor:
    """softmax(sum_l alpha_l q_l K^T / sqrt(D)) V, every box with a key and a value of its own."""
    key = boxes @ attend.key.weight.T + key_bias
    value = boxes @ attend.value.weight.T + attend.value.bias
    scores = torch.zeros(B, N).double()
    for layer, query in enumerate(attend.queries):
        scores += attend.alpha[layer] * torch.einsum("bd,bnd->bn", query(hidden[layer]), key) / D**0.5
    return torch.einsum("bn,bnd->bd", scores.softmax(dim=-1), value)


def test_attention_is_that_of_the_formula_whatever_the_keys_bias() -> None:
    attend, boxes, hidden = parts()
    out, weights = attend(boxes, hidden)
    torch.testing.assert_close(out, by_formula(attend, boxes, hidden, torch.randn(D).double()))
    torch.testing.assert_close(weights.sum(-1), torch.ones(B).double())


def test_gradients_are_those_of_the_formula() -> None:
    attend, boxes, hidden = parts()
    leaves = [boxes.requires_grad_(), hidden.requires_grad_(), *attend.parameters()]
    upstream = torch.randn(B, D).double()
    ours = torch.autograd.grad(attend(boxes, hidden)[0], leaves, upstream)
    theirs = torch.autograd.grad(by_formula(attend, boxes, hidden, torch.zeros(D).double()), leaves, upstream)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_order_of_the_boxes_does_not_matter() -> None:
    attend, boxes, hidden = parts()
    order = torch.randperm(N)
    out, weights = attend(boxes, hidden)
    shuffled, moved = attend(boxes[:, order], hidden)
    torch.testing.assert_close(shuffled, out)
    torch.testing.assert_close(moved, weights[:, order])


def test_boxes_that_do_not_exist_neither_count_nor_receive_gradients() -> None:
    attend, boxes, hidden = parts()
    valid = torch.ones(B, N, dtype=torch.bool)
    valid[:, 2:4] = False
    out, weights = attend(boxes.requires_grad_(), hidden, valid)
    kept, _ = attend(boxes[:, [0, 1, 4]], hidden)
    torch.testing.assert_close(out, kept)
    assert torch.equal(weights[:, 2:4], torch.zeros(B, 2).double())
    (gradient,) = torch.autograd.grad(out.sum(), boxes)
    assert torch.equal(gradient[:, 2:4], torch.zeros(B, 2, D).double())
    assert gradient[:, :2].abs().min() > 0


def test_a_frame_without_boxes_gives_zeros_and_finite_gradients() -> None:
    attend, boxes, hidden = parts()
    valid = torch.ones(B, N, dtype=torch.bool)
    valid[1] = False
    out, weights = attend(boxes.requires_grad_(), hidden.requires_grad_(), valid)
    assert torch.equal(out[1], torch.zeros(D).double())
    assert torch.equal(weights[1], torch.zeros(N).double())
    assert out[0].abs().max() > 0
    gradients = torch.autograd.grad(out.sum() + weights.sum(), [boxes, hidden, *attend.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert torch.equal(gradients[0][1], torch.zeros(N, D).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_masked_softmax_is_defined_in_every_dtype(dtype: torch.dtype) -> None:
    scores = torch.tensor([[0.0, 6e4, -6e4], [1.0, 2.0, 3.0]], dtype=dtype)
    valid = torch.tensor([[True, False, True], [False, False, False]])
    assert masked_softmax(scores, valid).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert torch.equal(masked_softmax(scores, None), scores.softmax(-1))


def test_mean_and_maximum_are_taken_over_the_boxes_that_exist() -> None:
    boxes = torch.tensor([[[1.0, 4.0], [3.0, 2.0], [9.0, 9.0]], [[5.0, 5.0], [6.0, 6.0], [7.0, 7.0]]])
    valid = torch.tensor([[True, True, False], [False, False, False]])
    mean, weights = mean_boxes(boxes, valid)
    assert mean.tolist() == [[2.0, 3.0], [0.0, 0.0]]
    assert weights.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    assert max_boxes(boxes, valid).tolist() == [[3.0, 4.0], [0.0, 0.0]]
    everything, equal = mean_boxes(boxes, None)
    torch.testing.assert_close(everything, boxes.mean(dim=1))
    torch.testing.assert_close(equal, torch.full((2, 3), 1 / 3))
    assert torch.equal(max_boxes(boxes, None), boxes.amax(dim=1))
