"""A sparse attention of your own in a few lines, checked against the dense one: python examples/kernels.py [FOLDER]."""

import sys
from pathlib import Path

import torch

from mmattn.kernels import BlockIndex, attention, pool, select
from mmattn.media.image import write_png
from mmattn.viz.block_mask import draw_block_indices

output = Path(sys.argv[1] if len(sys.argv) > 1 else "example_output")
output.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

# Keys in topics of 256 tokens; a query is about one of them.
T, D, size = 2048, 64, 64
topics = torch.randn(T // 256, D).repeat_interleave(256, dim=0)
k = topics + torch.randn(1, 1, T, D)
asked = (torch.rand(T // size) * torch.arange(1, T // size + 1)).long()  # the block, an earlier one
q = topics[asked.repeat_interleave(size) * size] + torch.randn(1, 1, T, D)
v = torch.randn(1, 1, T, D)

# 1. Score blocks by their means. 2. Keep the best eight of a row, the first block and the window always. 3. Attend.
scores = pool(q, size) @ pool(k, size).transpose(-1, -2)
window = BlockIndex.sliding_window(size, T, sinks=1, q_block=size, k_block=size)
chosen = select(scores, topk=8, keep=window, q_block=size, k_block=size)

dense = attention(q, k, v, causal=True)
for name, blocks in {"window": window, "chosen": chosen}.items():
    error = (attention(q, k, v, blocks) - dense).norm() / dense.norm()
    print(f"{name}: {blocks.density():.0%} of the blocks, {error:.1%} away from dense attention")
write_png(output / "masks.png", draw_block_indices({"window and sink": window, "chosen by content": chosen}))
