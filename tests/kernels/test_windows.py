"""Windows as they are written, as they decode, and as they are built for long texts."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmattn.kernels import BlockIndex, attention
from mmattn.kernels.windows import sides, windowed


def _mask(q_len: int, k_len: int, left: int, right: int) -> Tensor:
    distance = torch.arange(q_len)[:, None] + (k_len - q_len) - torch.arange(k_len)
    return ((distance <= left) | (left == -1)) & ((distance >= -right) | (right == -1))


FORMS: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({}, (-1, -1)),
    ({"causal": True}, (-1, 0)),
    ({"window": 3}, (2, 0)),
    ({"window": 3, "causal": True}, (2, 0)),
    ({"window": 3, "causal": False}, (2, -1)),
    ({"window": (2, 0)}, (2, 0)),
    ({"window": (2, -1)}, (2, -1)),
    ({"window": (-1, 0)}, (-1, 0)),
    ({"window": (-1, 2)}, (-1, 2)),
    ({"window": (4, 2)}, (4, 2)),
    ({"window": (0, 0), "causal": True}, (0, 0)),
    ({"window": (-1, -1)}, (-1, -1)),
]


@pytest.mark.parametrize(("options", "expected"), FORMS, ids=lambda x: str(x))
@pytest.mark.parametrize("lengths", [(9, 9), (4, 11), (11, 4), (1, 9), (9, 1)], ids=str)
def test_what_a_window_shows(options: dict[str, Any], expected: tuple[int, int], lengths: tuple[int, int]) -> None:
    mask = _mask(*lengths, *expected)
    built = BlockIndex.all_blocks(*lengths, q_block=2, k_block=3, **options)
    assert torch.equal(built.dense()[0, 0], mask)
    selected = BlockIndex.from_mask(
        torch.ones(-(-lengths[0] // 2), -(-lengths[1] // 3), dtype=torch.bool),
        *lengths,
        q_block=2,
        k_block=3,
        **options,
    )
    assert torch.equal(selected.dense()[0, 0], mask)
    q, k, v = (torch.randn(1, 2, length, 4, dtype=torch.float64) for length in (*lengths, lengths[1]))
    want = attention(q, k, v, BlockIndex.from_mask(mask, q_block=1, k_block=1), backend="reference", return_lse=True)
    for backend in ("cpu", "reference"):
        got = attention(q, k, v, backend=backend, return_lse=True, **options)
        torch.testing.assert_close(got[0], want[0])
        torch.testing.assert_close(got[1], want[1])
    meta = attention(*(x.to("meta") for x in (q, k, v)), **options)
    assert meta.shape == want[0].shape


def test_sinks_and_documents_with_keys_ahead() -> None:
    cu = torch.tensor([0, 3, 9])
    index = BlockIndex.documents(cu, causal=None, window=(1, 1), sinks=1, q_block=2, k_block=2)
    expected = torch.zeros(9, 9, dtype=torch.bool)
    for start, stop in itertools.pairwise(cu.tolist()):
        part = _mask(stop - start, stop - start, 1, 1)
        part[:, 0] |= _mask(stop - start, stop - start, -1, 1)[:, 0]
        expected[start:stop, start:stop] = part
    assert torch.equal(index.dense()[0, 0], expected)


def test_a_window_keeps_other_spans() -> None:
    spans = torch.tensor([[[0, 2], [1, 3], [2, 4]]])
    index = BlockIndex.all_blocks(3, 4, spans=spans, window=(0, 1))
    assert index.dense()[0, 0].int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(("window", "causal", "message"), [
    (2.5, None, "window must be a whole number of keys.*got 2.5"),
    (True, None, "got True"),
    (0, None, "at least 1 token.*got 0"),
    ((1, -2), None, r"got \(1, -2\)"),
    ((1, 2, 3), None, r"got \(1, 2, 3\)"),
    ((3, 1), True, r"causal=True contradicts window=\(3, 1\)"),
    ((3, 0), False, r"causal=False contradicts window=\(3, 0\)"),
])  # fmt: skip
def test_what_is_no_window_is_explained(window: Any, causal: bool | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sides(window, causal)
    q = torch.zeros(1, 1, 4, 2)
    with pytest.raises(ValueError, match=message):
        attention(q, q, q, window=window, causal=causal)


def test_saved_windows_mean_what_they_meant() -> None:
    old = BlockIndex.from_mask(torch.ones(2, 2, dtype=torch.bool), 8, 8, q_block=4, k_block=4)
    tensors = {**old.to_tensors(), "window": torch.tensor(2), "causal": torch.tensor(0)}
    index = BlockIndex.from_tensors(tensors)
    assert torch.equal(index.dense()[0, 0], _mask(8, 8, 1, -1))


def test_windowed_leaves_other_fields_alone() -> None:
    assert windowed(4, 4, {"sinks": 2, "window": (3, 0)}, torch.device("cpu")) == {
        "sinks": 2, "causal": True, "window": 4,
    }  # fmt: skip


class _Operations(TorchDispatchMode):
    """Counts operations, and elements of the largest tensor that one returns."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        for x in result if isinstance(result, tuple | list) else (result,):
            self.largest = max(self.largest, x.numel() if isinstance(x, Tensor) else 0)
        return result


@pytest.mark.parametrize("window", [16, (15, 0), (15, -1), (15, 3)])
def test_a_decoded_token_looks_at_its_window_and_builds_nothing(window: Any) -> None:
    q, k, v = torch.randn(1, 2, 1, 8), *torch.randn(2, 1, 2, 5_000, 8)
    with _Operations() as seen:
        out = attention(q, k, v, window=window)
    assert len(seen.names) <= 4, seen.names
    torch.testing.assert_close(out, attention(q, k[:, :, -16:], v[:, :, -16:]))


def test_a_few_tokens_look_at_their_windows() -> None:
    q, k, v = torch.randn(1, 2, 5, 8), *torch.randn(2, 1, 2, 5_000, 8)
    attention(q, k, v, window=16)  # the index of the band is built once
    with _Operations() as seen:
        out = attention(q, k, v, window=16)
    assert seen.largest <= 2 * 5_000
    torch.testing.assert_close(out, attention(q, k, v, window=16, backend="reference"))


def test_the_window_of_a_long_text_is_built_along_its_band() -> None:
    tokens, block = 200_000, 64
    with _Operations() as seen:
        index = BlockIndex.sliding_window(1024, tokens, sinks=4, q_block=block, k_block=block)
    # One piece of pairs of blocks at a time, and nothing of all pairs of blocks (9.8 million) or more.
    assert seen.largest <= 1 << 21
    assert index.index.shape == (1, 1, 3125, 18)
    assert int(index.count.max()) == 18


def test_what_is_kept_with_an_index_is_bounded() -> None:
    index = BlockIndex.from_mask(torch.ones(1, 2, 2, 2, dtype=torch.bool), 8, 8, q_block=4, k_block=4)
    for batch in range(1, 30):
        attention(*torch.randn(3, batch, 2, 8, 4), index)
    assert len(index._derived) <= 8
