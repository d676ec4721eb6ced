"""Recurrent kernels in chunks, cut anywhere and gone on from their states, against the float64 recurrence.

150 cases; ``MMATTN_FUZZ=1500`` sets another number. A case is drawn from its number alone.
"""

import os
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mmattn.kernels import linear

CASES = int(os.environ.get("MMATTN_FUZZ", "150"))
PER_TEST = 10
# Largest differences that 1,500 cases showed, rounded up, of the largest value or 1: outputs and states, gradients.
BOUNDS = {torch.float64: (1e-12, 1e-11), torch.float32: (5e-6, 1e-5), torch.bfloat16: (8e-3, 1.5e-2)}

Form = Callable[..., tuple[Tensor, Tensor]]


def _gates(x: Tensor, strength: float) -> Tensor:
    return -strength * x.abs()


FORMS: dict[str, tuple[Form, str]] = {
    "gla": (linear.gated_linear_attention, "channel"),
    "simple gla": (linear.simple_gla, "head"),
    "delta": (linear.delta_rule, "beta"),
    "gated delta": (linear.gated_delta_rule, "head beta"),
    "rwkv6": (linear.rwkv6, "channel bonus"),
    "linear": (linear.linear_attention, ""),
    "normalised linear": (lambda *x, **o: linear.linear_attention(*x, feature_map="elu+1", normalize=True, **o), ""),
}


class Draw:
    """Sizes, inputs and cuts of a case."""

    def __init__(self, number: int) -> None:
        r = random.Random(number)
        self.name = list(FORMS)[number % len(FORMS)]
        self.form, kinds = FORMS[self.name]
        self.dtype = r.choice(list(BOUNDS))
        g = torch.Generator().manual_seed(number)
        B, H, T = r.choice([1, 2]), r.choice([1, 3]), r.choice([1, r.randint(2, 30), r.randint(31, 140)])
        K, V = r.choice([1, 4, 8]), r.choice([1, 4, 8])
        strength = r.choice([0.01, 0.3, 5.0, 60.0])

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=g, dtype=torch.float64)

        q, k, v = normal(B, H, T, K), normal(B, H, T, K), normal(B, H, T, V)
        if "beta" in kinds:
            k = k / k.norm(dim=-1, keepdim=True)
        tensors = [q, k, v]
        if "channel" in kinds:
            tensors.append(_gates(normal(B, H, T, K), strength))
        if "head" in kinds:
            tensors.append(_gates(normal(B, H, T), strength))
        if "beta" in kinds:
            tensors.append(normal(B, H, T).sigmoid())
        # Rounded once: both sides start from the same numbers.
        self.tensors = [x.to(self.dtype) for x in tensors]
        self.bonus = [normal(H, K).to(self.dtype)] if "bonus" in kinds else []
        self.state = normal(B, H, K, V + ("normalised" in self.name)).float() if r.random() < 0.5 else None
        if "normalised" in self.name and self.state is not None:
            self.state = self.state.abs()
        self.chunk_size = r.choice([1, 2, 7, 16, 64])
        self.cuts = sorted(r.randint(0, T) for _ in range(r.randint(0, 4)))

    def run(self, dtype: torch.dtype, cuts: list[int], **options: object) -> tuple[list[Tensor], list[Tensor]]:
        """Returns out and final state, and the gradients of a loss on both."""
        tensors = [x.to(dtype).requires_grad_() for x in self.tensors]
        bonus = [x.to(dtype).requires_grad_() for x in self.bonus]
        wide = torch.promote_types(dtype, torch.float32)
        first = None if self.state is None else self.state.to(wide).requires_grad_()
        state, outs = first, []
        bounds = [0, *cuts, tensors[0].shape[2]]
        for start, stop in pairwise(bounds):
            part = [x[:, :, start:stop] for x in tensors]
            out, state = self.form(*part, *bonus, initial_state=state, **options)
            outs.append(out)
        out = torch.cat(outs, dim=2)
        assert state is not None
        g = torch.Generator().manual_seed(1)
        weights = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in (out, state)]
        loss = sum((x * w.to(x.dtype)).sum() for x, w in zip((out, state), weights, strict=True))
        leaves = [*tensors, *bonus, *([] if first is None else [first])]
        return [out, state], [*torch.autograd.grad(loss, leaves)]


def _worst(got: list[Tensor], want: list[Tensor]) -> float:
    return max(
        float((a.detach().double() - b.detach()).abs().max()) / max(1.0, float(b.detach().abs().max()))
        for a, b in zip(got, want, strict=True)
    )


@pytest.mark.parametrize("start", range(0, CASES, PER_TEST))
def test_fuzz(start: int) -> None:
    for number in range(start, min(start + PER_TEST, CASES)):
        d = Draw(number)
        wanted = d.run(torch.float64, [], mode="naive")
        found = d.run(d.dtype, d.cuts, mode="chunk", chunk_size=d.chunk_size)
        for what, bound, got, want in zip(("out", "gradient"), BOUNDS[d.dtype], found, wanted, strict=True):
            worst = _worst(got, want)
            assert worst <= bound, f"case {number}, {d.name}, {d.dtype}, {what}: {worst:.2e}"


@pytest.mark.parametrize("name", FORMS)
def test_second_derivatives_are_those_of_the_recurrence(name: str) -> None:
    number = next(n for n in range(500) if (d := Draw(n)).name == name and 9 < d.tensors[0].shape[2] < 40)
    d = Draw(number)
    results = []
    for mode in ("chunk", "naive"):
        leaves = [x.double().requires_grad_() for x in (*d.tensors, *d.bonus)]
        state = torch.ones(*leaves[0].shape[:2], leaves[0].shape[3], leaves[2].shape[3] + ("normalised" in name))
        first = state.double().requires_grad_()
        # Keys that depend on queries: a path beside the operation.
        tied = [leaves[0], leaves[1] * leaves[0].mean().exp(), *leaves[2:]]
        out, final = d.form(*tied, initial_state=first, mode=mode)
        (grad,) = torch.autograd.grad(out.sin().sum() + final.sin().sum(), leaves[0], create_graph=True)
        results.append(torch.autograd.grad(grad.pow(2).sum(), [*leaves, first]))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max().clamp(min=1.0)))


def test_second_derivatives_without_gradients_of_the_upstream() -> None:
    d = Draw(0)
    results = []
    for mode in ("chunk", "naive"):
        weight = torch.full((), 0.7, dtype=torch.float64, requires_grad=True)
        x = [t.double().requires_grad_() for t in d.tensors]
        out, _ = d.form(x[0] * weight, *x[1:], mode=mode)
        (grad,) = torch.autograd.grad(out.sum(), x[0], create_graph=True)
        results.append(torch.autograd.grad(grad.pow(2).sum(), weight)[0])
    assert results[1].abs() > 0
    torch.testing.assert_close(*results)


def test_what_is_returned_may_be_changed_in_place() -> None:
    d = Draw(0)
    x = [t.float().requires_grad_() for t in d.tensors]
    out, state = d.form(*x, mode="chunk")
    out += 1
    state += 1
    (out.sum() + state.sum()).backward()
    assert x[0].grad is not None
