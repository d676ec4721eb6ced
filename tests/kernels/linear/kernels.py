"""All linear kernels in one table, with random inputs for them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mmattn.kernels import linear

H, K, V = 2, 5, 3


class Kernel(NamedTuple):
    """A kernel, its step, the names of its arguments (u is per head, not per token) and its values per state."""

    run: Callable[..., tuple[Tensor, Tensor]]
    step: Callable[..., tuple[Tensor, Tensor]]
    arguments: tuple[str, ...]
    state_width: int = V


NORMALIZED: dict[str, Any] = {"normalize": True, "feature_map": "elu+1"}
KERNELS = {
    "gla": Kernel(linear.gated_linear_attention, linear.gated_linear_attention_step, ("q", "k", "v", "g")),
    "rwkv6": Kernel(linear.rwkv6, linear.rwkv6_step, ("q", "k", "v", "w", "u")),
    "simple_gla": Kernel(linear.simple_gla, linear.simple_gla_step, ("q", "k", "v", "g1")),
    "linear": Kernel(linear.linear_attention, linear.linear_attention_step, ("q", "k", "v")),
    "normalized": Kernel(
        partial(linear.linear_attention, **NORMALIZED),
        partial(linear.linear_attention_step, **NORMALIZED),
        ("q", "k", "v"),
        V + 1,
    ),
    "delta_rule": Kernel(linear.delta_rule, linear.delta_rule_step, ("q", "k", "v", "beta")),
    "gated_delta_rule": Kernel(linear.gated_delta_rule, linear.gated_delta_rule_step, ("q", "k", "v", "g1", "beta")),
}
GATED = {name: kernel for name, kernel in KERNELS.items() if {"g", "g1", "w"} & {*kernel.arguments}}


def inputs(
    kernel: Kernel, batch: int, tokens: int, *, decay: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Returns arguments ``(B, H, T, .)``; log-decays are uniform in ``[-decay, 0]``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    every = {
        "q": normal(batch, H, tokens, K),
        "k": functional.normalize(normal(batch, H, tokens, K), dim=-1),
        "v": normal(batch, H, tokens, V),
        "g": -decay * uniform(batch, H, tokens, K),
        "w": -decay * uniform(batch, H, tokens, K),
        "g1": -decay * uniform(batch, H, tokens),
        "beta": uniform(batch, H, tokens),
        "u": normal(H, K),
    }
    return {name: every[name].to(dtype) for name in kernel.arguments}


def initial_state(kernel: Kernel, batch: int, *, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns a state ``(B, H, K, V)``; that of weights is positive."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(batch, H, K, kernel.state_width, generator=generator, dtype=torch.float64)
    state[..., V:] = state[..., V:].abs() + 1
    return state.to(dtype)


def part(tensors: dict[str, Tensor], start: int, stop: int) -> list[Tensor]:
    """Returns the arguments of some of the tokens."""
    return [x if name == "u" else x[:, :, start:stop] for name, x in tensors.items()]


def with_gradients(kernel: Kernel, tensors: dict[str, Tensor], state: Tensor, **options: Any) -> dict[str, Tensor]:
    """Returns outputs, final state and the gradients of a random combination of both."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in {**tensors, "state": state}.items()}
    out, final = kernel.run(*[leaves[name] for name in tensors], initial_state=leaves["state"], **options)
    generator = torch.Generator().manual_seed(9)
    cotangents = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in (out, final)]
    grads = torch.autograd.grad([out, final], [*leaves.values()], cotangents, allow_unused=True, materialize_grads=True)
    return {"out": out, "final": final, **{f"grad {name}": x for name, x in zip(leaves, grads, strict=True)}}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Requires differences below ``tolerance`` of the largest expected value (or of 1e-6 if that is larger)."""
    for name, want in expected.items():
        got, want = actual[name].detach().double(), want.detach().double()
        assert got.shape == want.shape, name
        error = (got - want).abs().max() if want.numel() else torch.zeros(())
        limit = tolerance * max(float(want.abs().max()) if want.numel() else 0.0, 1e-6)
        assert error <= limit, f"{name}: {error:.3g} > {limit:.3g}"
