"""Arguments that do not fit are refused with what was given and expected."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmattn.kernels.linear import gated_linear_attention, linear_attention, rwkv6, simple_gla
from mmattn.kernels.linear.sequences import compute_dtype


def run(**changed: object) -> tuple[Tensor, Tensor]:
    q = torch.zeros(2, 3, 8, 4)
    arguments = {"q": q, "k": q, "v": torch.zeros(2, 3, 8, 5), "g": q}
    return gated_linear_attention(**{**arguments, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"k": torch.zeros(2, 3, 8, 5)},
            r"'bhtd' q and k must be \(B, H, T, K\) and v .*got q \(2, 3, 8, 4\), k \(2, 3",
        ),
        ({"v": torch.zeros(2, 3, 7, 5)}, r"v \(B, H, T, V\), got .*v \(2, 3, 7, 5\)"),
        ({"q": torch.zeros(2, 3, 8)}, r"got q \(2, 3, 8\)"),
        ({"q": torch.zeros(8)}, r"got q \(8,\)"),
        (
            {"q": torch.zeros(2, 3, 8, 0), "k": torch.zeros(2, 3, 8, 0)},
            r"at least 1 channel per head, got q \(2, 3, 8, 0",
        ),
        ({"g": torch.zeros(2, 3, 8, 5)}, r"g must be \(B, H, T, K\), got .*g \(2, 3, 8, 5\)"),
        ({"g": torch.zeros(2, 8, 3)}, r"g must be \(B, H, T\), got"),
        ({"v": torch.zeros(2, 3, 8, 5, dtype=torch.int64)}, r"v must be floating point on cpu like q, got torch.int64"),
        ({"initial_state": torch.zeros(2, 3, 5, 4)}, r"\(B, H, K, V\) = \(2, 3, 4, 5\), got \(2, 3, 5, 4\)"),
        ({"mask": torch.ones(2, 7, dtype=torch.bool)}, r"mask must be bool \(B, T\) = \(2, 8\), got .*\(2, 7\)"),
        ({"mask": torch.ones(2, 8)}, r"mask must be bool .* got torch.float32"),
        ({"cu_seqlens": torch.tensor([0, 8])}, r"a batch of 1, got a batch of 2"),
        ({"mode": "fast"}, r"mode must be 'auto', 'naive' or 'chunk', got 'fast'"),
        ({"layout": "tbhd"}, r"layout must be 'bhtd' or 'bthd', got 'tbhd'"),
        ({"chunk_size": 0}, r"chunk_size must be at least 1 token, got 0"),
        ({"subchunk_size": -1}, r"subchunk_size must be at least 1 token, got -1"),
    ],
)
def test_what_does_not_fit_is_named(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(**changed)


@pytest.mark.parametrize(
    ("borders", "message"),
    [
        (torch.tensor([0, 5]), r"rise from 0 to T = 8, got \[0, 5\]"),
        (torch.tensor([1, 8]), r"rise from 0 to T = 8, got \[1, 8\]"),
        (torch.tensor([0, 6, 4, 8]), r"rise from 0 to T = 8"),
        (torch.tensor([0.0, 8.0]), r"integers \(N \+ 1,\) with N >= 1, got torch.float32"),
        (torch.tensor([0]), r"integers .*got torch.int64 \(1,\)"),
    ],
)
def test_borders_that_do_not_fit_are_refused(borders: Tensor, message: str) -> None:
    x = torch.zeros(1, 2, 8, 4)
    with pytest.raises(ValueError, match=message):
        linear_attention(x, x, x, cu_seqlens=borders)


def test_packed_sequences_have_a_state_each() -> None:
    x = torch.zeros(1, 2, 8, 4)
    borders = torch.tensor([0, 3, 8])
    assert linear_attention(x, x, x, cu_seqlens=borders)[1].shape == (2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"initial_state must be \(N, H, K, V\) = \(2, 2, 4, 4\), got \(1, 2, 4, 4\)"):
        linear_attention(x, x, x, cu_seqlens=borders, initial_state=torch.zeros(1, 2, 4, 4))


def test_a_layout_that_is_mixed_up_is_seen_where_shapes_tell() -> None:
    x = torch.zeros(1, 2, 8, 4)
    with pytest.raises(ValueError, match=r"in layout 'bthd' q and k must be \(B, T, H, K\)"):
        simple_gla(x, x, torch.zeros(1, 8, 2, 4), torch.zeros(1, 2, 8), layout="bthd")


def test_the_bonus_is_per_head_and_key() -> None:
    x = torch.zeros(1, 2, 8, 4)
    with pytest.raises(ValueError, match=r"u must be \(H, K\) = \(2, 4\), got \(4, 2\)"):
        rwkv6(x, x, x, x, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"q and k must be \(B, H, T, K\) and v .*got q \(2, 8, 4\)"):
        rwkv6(x[0], x, x, x, torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.bfloat16, torch.bfloat16), torch.float32),
        ((torch.float16, torch.float32), torch.float32),
        ((torch.float32, torch.float64), torch.float64),
    ],
)
def test_arithmetic_is_float32_or_wider(dtypes: tuple[torch.dtype, ...], expected: torch.dtype) -> None:
    assert compute_dtype(*(torch.zeros((), dtype=dtype) for dtype in dtypes)) == expected


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.requires_grad_()], ids=["inference", "training"])
def test_the_initial_state_is_not_changed(make: Callable[[Tensor], Tensor]) -> None:
    x, state = torch.randn(1, 2, 20, 4), torch.randn(1, 2, 4, 4)
    before = state.clone()
    linear_attention(make(x), x, x, initial_state=state)
    assert torch.equal(state, before)
