"""Masks for the kernel tests: the definition of a ``BlockIndex`` pair by pair, and random indices."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from mmattn.kernels import BlockIndex


def allowed_pair(index: BlockIndex, batch: int, head: int, i: int, j: int) -> bool:
    """Whether query i may attend key j, read off the fields of the index one by one."""
    b, h = min(batch, index.index.shape[0] - 1), min(head, index.index.shape[1] - 1)
    row = i // index.q_block
    selected = index.index[b, h, row, : int(index.count[b, h, row])].tolist()
    position, key, offset = i, j, index.k_len - index.q_len
    same_document = True
    if index.cu_q is not None and index.cu_k is not None:
        cu_q, cu_k = index.cu_q.tolist(), index.cu_k.tolist()
        document = max(d for d in range(len(cu_q) - 1) if cu_q[d] <= i)
        same_document = cu_k[document] <= j < cu_k[document + 1]
        position, key = i - cu_q[document], j - cu_k[document]
        offset = (cu_k[document + 1] - cu_k[document]) - (cu_q[document + 1] - cu_q[document])
    distance = position + offset - key
    return all(
        (
            j // index.k_block in selected,
            same_document,
            not index.causal or distance >= 0,
            index.window is None or distance < index.window or key < index.sinks,
            index.k_valid is None or bool(index.k_valid[min(batch, len(index.k_valid) - 1), j]),
            index.spans is None or any(start <= j < stop for start, stop in index.spans[:, i].tolist()),
        )
    )


def pairwise(index: BlockIndex) -> Tensor:
    """The token mask ``(B|1, H|1, q_len, k_len)`` pair by pair."""
    shape = (index.batch_size, index.index.shape[1], index.q_len, index.k_len)
    mask = torch.zeros(shape, dtype=torch.bool)
    for b, h, i, j in torch.cartesian_prod(*(torch.arange(n) for n in shape)).tolist():
        mask[b, h, i, j] = allowed_pair(index, b, h, i, j)
    return mask


@st.composite
def block_indices(
    draw: st.DrawFn,
    lengths: tuple[int, int] | None = None,
    shared: bool = False,
    padded: bool = True,
    grid: tuple[int, int] | None = None,
) -> BlockIndex:
    """Random small indices: ragged lengths, random blocks, any combination of predicates."""
    q_len, k_len = lengths or (draw(st.integers(1, 13)), draw(st.integers(1, 13)))
    q_block, k_block = grid or (draw(st.sampled_from([1, 2, 4, 6])), draw(st.sampled_from([1, 3, 4, 6])))
    batch, heads = (1, 1) if shared else draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    mask = torch.rand(batch, heads, -(-q_len // q_block), -(-k_len // k_block), generator=generator) < 0.6
    fields: dict[str, Any] = {"causal": draw(st.booleans())}
    if draw(st.booleans()):
        fields |= {"window": draw(st.integers(1, 8)), "sinks": draw(st.integers(0, 3))}
    if draw(st.booleans()):
        middle = [draw(st.integers(0, length)) for length in (q_len, k_len)]
        fields |= {
            "cu_q": torch.tensor([0, middle[0], q_len]),
            "cu_k": torch.tensor([0, middle[1], k_len]),
        }
    if draw(st.booleans()):
        fields["spans"] = torch.randint(0, k_len + 1, (2, q_len, 2), generator=generator)
    if padded and draw(st.booleans()):
        fields["k_valid"] = torch.rand(batch, k_len, generator=generator) < 0.8
    return BlockIndex.from_mask(mask, q_len, k_len, q_block=q_block, k_block=k_block, **fields)
