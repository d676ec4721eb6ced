"""attention() on random masks of every family against a dense float64 definition, gradients of out and lse included.

300 cases; ``MMATTN_FUZZ=3000`` sets another number. A case is drawn from its number alone, so one that fails is run
again by ``-k "case[17]"``.
"""

import os
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmattn.kernels import BlockIndex, attention

CASES = int(os.environ.get("MMATTN_FUZZ", "300"))
PER_TEST = 10
# Largest differences that 3,000 cases showed, rounded up: out and lse, gradients; of the largest value or 1.
BOUNDS = {
    torch.float64: (1e-13, 1e-12),
    torch.float32: (3e-6, 9e-6),
    torch.bfloat16: (1.3e-2, 3e-2),
    torch.float16: (2e-3, 4e-3),
}


def _bools(generator: torch.Generator, *shape: int, share: float = 0.5) -> Tensor:
    return torch.rand(shape, generator=generator) < share


def _valid(r: random.Random, g: torch.Generator, batch: int, k_len: int) -> Tensor:
    """Key padding: left, right, or anywhere; sometimes of everything."""
    lengths = torch.tensor([r.randint(0, k_len) for _ in range(batch)])[:, None]
    position = torch.arange(k_len)
    return r.choice([position < lengths, position >= lengths, _bools(g, batch, k_len)])


def _cuts(r: random.Random, length: int, documents: int) -> Tensor:
    return torch.tensor([0, *sorted(r.randint(0, length) for _ in range(documents - 1)), length])


class Draw:
    """Sizes and parts of a case."""

    def __init__(self, number: int) -> None:
        self.r = random.Random(number)
        self.g = torch.Generator().manual_seed(number)
        r = self.r
        self.batch, self.kv_heads, self.group = r.choice([1, 2, 3]), r.choice([1, 2]), r.choice([1, 1, 3])
        self.heads = self.kv_heads * self.group
        self.q_len = r.choice([1, 2, r.randint(3, 40), r.randint(41, 150)])
        self.k_len = r.choice([self.q_len, self.q_len, r.randint(1, 150)])
        self.dim, self.out_dim = r.choice([1, 4, 8, 17]), r.choice([1, 4, 8, 17])
        self.blocks = {"q_block": r.choice([1, 5, 16, 64]), "k_block": r.choice([1, 7, 16, 64])}
        self.scale = r.choice([None, None, 0.3, 0.0, -0.5])

    def valid(self) -> Tensor:
        return _valid(self.r, self.g, self.batch, self.k_len)

    def grid(self, batch: int = 1, heads: int = 1) -> Tensor:
        rows, columns = -(-self.q_len // self.blocks["q_block"]), -(-self.k_len // self.blocks["k_block"])
        return _bools(self.g, batch, heads, rows, columns, share=self.r.choice([0.2, 0.6, 0.95]))


def _dense_mask(d: Draw, *, causal: bool, window: int | None = None, sinks: int = 0) -> Tensor:
    distance = torch.arange(d.q_len)[:, None] + (d.k_len - d.q_len) - torch.arange(d.k_len)
    mask = distance >= 0 if causal else torch.ones(d.q_len, d.k_len, dtype=torch.bool)
    return mask if window is None else mask & ((distance < window) | (torch.arange(d.k_len) < sinks))


def _of_blocks(d: Draw, grid: Tensor) -> Tensor:
    tall = grid.repeat_interleave(d.blocks["q_block"], dim=-2)[..., : d.q_len, :]
    return tall.repeat_interleave(d.blocks["k_block"], dim=-1)[..., : d.k_len]


Case = tuple[Tensor, dict[str, object]]
FAMILIES: dict[str, Callable[[Draw], Case]] = {}


def family(build: Callable[[Draw], Case]) -> Callable[[Draw], Case]:
    """Adds a family: what it returns is the token mask and the arguments that say the same to attention()."""
    FAMILIES[build.__name__] = build
    return build


@family
def dense(d: Draw) -> Case:
    return _dense_mask(d, causal=False), {}


@family
def causal(d: Draw) -> Case:
    return _dense_mask(d, causal=True), {"causal": True}


@family
def causal_window(d: Draw) -> Case:
    window = d.r.randint(1, 60)
    return _dense_mask(d, causal=True, window=window), {"causal": True, "window": window}


@family
def window_and_sinks(d: Draw) -> Case:
    window, sinks = d.r.randint(1, 40), d.r.randint(0, 9)
    index = BlockIndex.all_blocks(d.q_len, d.k_len, causal=True, window=window, sinks=sinks, **d.blocks)
    return _dense_mask(d, causal=True, window=window, sinks=sinks), {"blocks": index}


@family
def padding(d: Draw) -> Case:
    valid = d.valid()
    return valid[:, None, None].expand(-1, 1, d.q_len, -1), {
        "blocks": BlockIndex.all_blocks(d.q_len, d.k_len, k_valid=valid, **d.blocks)
    }


@family
def causal_padding(d: Draw) -> Case:
    valid = d.valid()
    index = BlockIndex.causal(d.q_len, d.k_len, k_valid=valid, **d.blocks)
    return _dense_mask(d, causal=True) & valid[:, None, None], {"blocks": index}


@family
def window_padding(d: Draw) -> Case:
    valid, window = d.valid(), d.r.randint(1, 40)
    index = BlockIndex.all_blocks(d.q_len, d.k_len, causal=True, window=window, k_valid=valid, **d.blocks)
    return _dense_mask(d, causal=True, window=window) & valid[:, None, None], {"blocks": index}


@family
def shared_blocks(d: Draw) -> Case:
    grid = d.grid()
    return _of_blocks(d, grid), {"blocks": BlockIndex.from_mask(grid, d.q_len, d.k_len, **d.blocks)}


@family
def blocks_per_head(d: Draw) -> Case:
    grid = d.grid(heads=d.heads)
    return _of_blocks(d, grid), {"blocks": BlockIndex.from_mask(grid, d.q_len, d.k_len, **d.blocks)}


@family
def blocks_per_item(d: Draw) -> Case:
    grid = d.grid(batch=d.batch, heads=d.heads)
    return _of_blocks(d, grid), {"blocks": BlockIndex.from_mask(grid, d.q_len, d.k_len, **d.blocks)}


@family
def causal_blocks(d: Draw) -> Case:
    grid = d.grid(heads=d.heads)
    index = BlockIndex.from_mask(grid, d.q_len, d.k_len, causal=True, **d.blocks)
    return _of_blocks(d, grid) & _dense_mask(d, causal=True), {"blocks": index}


@family
def causal_blocks_padding(d: Draw) -> Case:
    grid, valid = d.grid(batch=d.batch, heads=d.heads), d.valid()
    index = BlockIndex.from_mask(grid, d.q_len, d.k_len, causal=True, k_valid=valid, **d.blocks)
    return _of_blocks(d, grid) & _dense_mask(d, causal=True) & valid[:, None, None], {"blocks": index}


@family
def shared_causal_blocks_padding(d: Draw) -> Case:
    grid, valid = d.grid(), d.valid()
    index = BlockIndex.from_mask(grid, d.q_len, d.k_len, causal=True, k_valid=valid, **d.blocks)
    return _of_blocks(d, grid) & _dense_mask(d, causal=True) & valid[:, None, None], {"blocks": index}


@family
def documents(d: Draw) -> Case:
    number = d.r.randint(1, 4)
    cu_q, cu_k = _cuts(d.r, d.q_len, number), _cuts(d.r, d.k_len, number)
    is_causal = d.r.random() < 0.5
    mask = torch.zeros(d.q_len, d.k_len, dtype=torch.bool)
    for (q0, q1), (k0, k1) in zip(cu_q.unfold(0, 2, 1).tolist(), cu_k.unfold(0, 2, 1).tolist(), strict=True):
        distance = torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0) - torch.arange(k1 - k0)
        mask[q0:q1, k0:k1] = (distance >= 0) | (not is_causal)
    return mask, {"blocks": BlockIndex.documents(cu_q, cu_k, causal=is_causal, **d.blocks)}


@family
def spans(d: Draw) -> Case:
    bounds = torch.tensor([[sorted(d.r.choices(range(d.k_len + 1), k=2)) for _ in range(d.q_len)] for _ in range(2)])
    keys = torch.arange(d.k_len)
    mask = ((bounds[..., :1] <= keys) & (keys < bounds[..., 1:])).any(dim=0)
    return mask, {"blocks": _with(BlockIndex.all_blocks(d.q_len, d.k_len, **d.blocks), spans=bounds)}


@family
def spans_padding(d: Draw) -> Case:
    valid = d.valid()
    mask, options = spans(d)
    return mask & valid[:, None, None], {"blocks": _with(options["blocks"], k_valid=valid)}


@family
def union(d: Draw) -> Case:
    window, grid = d.r.randint(1, 20), d.grid()
    near = BlockIndex.all_blocks(d.q_len, d.k_len, causal=True, window=window, **d.blocks)
    far = BlockIndex.from_mask(grid, d.q_len, d.k_len, **d.blocks)
    return _dense_mask(d, causal=True, window=window) | _of_blocks(d, grid), {"blocks": near | far}


@family
def intersection(d: Draw) -> Case:
    grid, other = d.grid(heads=d.heads), d.grid()
    first, second = (BlockIndex.from_mask(x, d.q_len, d.k_len, **d.blocks) for x in (grid, other))
    return _of_blocks(d, grid & other), {"blocks": first & second}


def _with(index: object, **fields: Tensor) -> BlockIndex:
    assert isinstance(index, BlockIndex)
    return BlockIndex(**{**index.state_dict(), **fields})


def _definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Softmax attention of float64 tensors, written once more; rows without keys give 0 and -inf."""
    group = q.shape[1] // k.shape[1]
    scores = torch.einsum("bhid,bhjd->bhij", q, k.repeat_interleave(group, 1)) * scale
    weights = scores.exp() * mask
    total = weights.sum(-1).clamp(min=1e-300)
    out = torch.einsum("bhij,bhjd->bhid", weights, v.repeat_interleave(group, 1)) / total[..., None]
    return out, total.log().masked_fill(~mask.any(-1), -torch.inf)


def _check(number: int, dtype: torch.dtype, backend: str) -> None:
    d = Draw(number)
    names = list(FAMILIES)
    name = names[number % len(names)]
    mask, options = FAMILIES[name](d)
    shapes = ((d.heads, d.q_len, d.dim), (d.kv_heads, d.k_len, d.dim), (d.kv_heads, d.k_len, d.out_dim))
    inputs = [torch.randn(d.batch, *s, generator=d.g).to(dtype).requires_grad_() for s in shapes]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    scale = d.dim**-0.5 if d.scale is None else d.scale
    expected = _definition(*exact, mask, scale)
    actual = attention(*inputs, return_lse=True, backend=backend, scale=d.scale, **options)
    empty = (~mask.any(-1)).expand(expected[1].shape)
    assert torch.equal(actual[1] == -torch.inf, empty), f"{name}: empty rows"
    weights = [torch.randn(x.shape, generator=d.g, dtype=torch.float64) for x in expected]

    def loss(out: Tensor, lse: Tensor) -> Tensor:
        return (out * weights[0].to(out.dtype)).sum() + (lse.masked_fill(empty, 0.0) * weights[1].to(lse.dtype)).sum()

    grads = torch.autograd.grad(loss(*actual), inputs)
    wanted = torch.autograd.grad(loss(*expected), exact)
    for what, got, want, bound in zip(
        ("out", "lse", "dq", "dk", "dv"), (*actual, *grads), (*expected, *wanted),
        (BOUNDS[dtype][0],) * 2 + (BOUNDS[dtype][1],) * 3, strict=True,
    ):  # fmt: skip
        difference = (got.detach().double() - want.detach()).masked_fill(got.isinf() & want.isinf(), 0.0).abs()
        largest = float(want.detach().masked_fill(want.isinf(), 0.0).abs().max()) if want.numel() else 0.0
        worst = float(difference.max()) / max(1.0, largest) if difference.numel() else 0.0
        assert worst <= bound, f"case {number}, {name}, {dtype}, {backend}, {what}: {worst:.2e}"


@pytest.mark.parametrize("start", range(0, CASES, PER_TEST))
def test_fuzz(start: int) -> None:
    for number in range(start, min(start + PER_TEST, CASES)):
        r = random.Random(-number - 1)
        _check(number, r.choice(list(BOUNDS)), r.choice(["cpu", "cpu", "reference"]))
