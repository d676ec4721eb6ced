"""Block-sparse attention on the CPU against PyTorch's own: dense, with a boolean mask, and compiled FlexAttention.

All at ``B=1, H=8, D=64``, float32. *Window*: causal, the last 512 keys. *Random*: non-causal, every query block reads
its own random tenth of the key blocks, head by head. Dense attention computes something else and is the yardstick of
what sparsity buys; the boolean mask and FlexAttention compute the same and must agree. FlexAttention has no backward
on the CPU. Scaling and peak memory show that time and memory grow with the selected blocks, not with the square of T.
"""

import functools
import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.bench.plots import loglog_slope, plot_scaling
from mmattn.bench.report import Measure, Report, without_targets
from mmattn.bench.timer import Options, Peer, Run, compare, interleave, num_threads, peak_extra_bytes
from mmattn.kernels import BlockIndex, attention

__all__ = ["run"]

logger = logging.getLogger(__name__)

HEADS, HEAD_DIM, BLOCK = 8, 64, 128
DENSITY = 0.1
FLEX_TARGET = 1.05
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def run(options: Options) -> Report:
    """Measures window and random block sparsity, scaling with T, scaling with threads, and memory."""
    length, window = (512, 128) if options.quick else (8192, 512)
    report = Report("attention")
    windowed, random = window_index(length, window), random_index(length)
    dense_causal = functools.partial(F.scaled_dot_product_attention, is_causal=True)
    for threads in options.threads:
        _compare(report, options, threads, f"causal window {window}", windowed, dense_causal, targets=(4.5, 3.0))
        _compare(report, options, threads, "random 10 %", random, F.scaled_dot_product_attention, targets=(4.0, 4.0))
    if len(options.threads) > 1:
        report.measures += _thread_scaling(report)
    report.measures += [_length_scaling(options, window), *_memory(length, window)]
    return without_targets(report) if options.quick else report


def window_index(length: int, window: int) -> BlockIndex:
    """Returns the mask of the last `window` keys."""
    return BlockIndex.sliding_window(window, length, q_block=BLOCK, k_block=BLOCK)


def random_index(length: int) -> BlockIndex:
    """Returns a mask in which every query block of every head attends a random tenth of the key blocks, seed 0."""
    blocks = length // BLOCK
    chosen = max(1, round(DENSITY * blocks))
    order = torch.rand(HEADS, blocks, blocks, generator=torch.Generator().manual_seed(0)).argsort(dim=-1)
    mask = torch.zeros(HEADS, blocks, blocks, dtype=torch.bool).scatter_(-1, order[..., :chosen], True)
    return BlockIndex.from_mask(mask, q_block=BLOCK, k_block=BLOCK)


def inputs(length: int) -> list[Tensor]:
    """Returns q, k, v ``(1, 8, T, 64)``, normal, seed 0."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, HEADS, length, HEAD_DIM, generator=generator) for _ in range(3)]


def forward(attend: Attend, tensors: Sequence[Tensor]) -> Run:
    """Returns a closure of one forward pass over q, k, v ``(B, H, T, D)``."""

    def once() -> Tensor:
        with torch.no_grad():
            return attend(*tensors)

    return once


def forward_backward(attend: Attend, tensors: Sequence[Tensor]) -> Run:
    """Returns a closure of a pass over q, k, v ``(B, H, T, D)`` and the gradients of its sum with a random weight."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    weight = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))

    def once() -> tuple[Tensor, ...]:
        out = attend(*leaves)
        return (out, *torch.autograd.grad(out, leaves, weight))

    return once


def _compare(
    report: Report,
    options: Options,
    threads: int,
    case: str,
    index: BlockIndex,
    dense: Attend,
    *,
    targets: tuple[float, float],
) -> None:
    logger.info("%s, T=%d, %d thread(s)", case, index.q_len, threads)
    tensors = inputs(index.q_len)
    ours = functools.partial(attention, blocks=index)
    masked = functools.partial(F.scaled_dot_product_attention, attn_mask=index.tokens())
    settings = {"repeats": options.repeats, "threads": threads}
    peers = {
        "SDPA dense": Peer(forward(dense, tensors), same_result=False, target=targets[0]),
        "SDPA boolean mask": Peer(forward(masked, tensors)),
        "FlexAttention compiled": Peer(forward(flex_attention(index), tensors), target=FLEX_TARGET),
    }
    report.add(f"{case}, forward", compare(forward(ours, tensors), peers, **settings))
    peers = {
        "SDPA dense": Peer(forward_backward(dense, tensors), same_result=False, target=targets[1]),
        "SDPA boolean mask": Peer(forward_backward(masked, tensors)),
    }
    report.add(f"{case}, forward + backward", compare(forward_backward(ours, tensors), peers, **settings))


def flex_attention(index: BlockIndex) -> Attend:
    """Returns FlexAttention under the same mask, built as its manual has it."""
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as flex

    window = index.window
    if window is None:
        nothing = torch.zeros(1, HEADS, index.num_q_blocks, dtype=torch.int32)
        ids = F.pad(index.index, (0, index.num_k_blocks - index.index.shape[-1]))
        mask = BlockMask.from_kv_blocks(nothing, torch.zeros_like(ids), index.count, ids, BLOCK_SIZE=BLOCK)
    else:

        def in_window(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return (j <= i) & (i - j < window)

        mask = create_block_mask(in_window, None, None, index.q_len, index.k_len, device="cpu", BLOCK_SIZE=BLOCK)
    # Fixed shapes are what it is fastest with; two masks stay far from the limit of recompilations.
    return functools.partial(torch.compile(flex, dynamic=False), block_mask=mask)


def _thread_scaling(report: Report) -> list[Measure]:
    """Returns how much faster the most threads are than the fewest, for us and for dense SDPA."""
    rows = [(case, c) for case, c in report.comparisons if c.peer == "SDPA dense"]
    few, most = min(c.threads for _, c in rows), max(c.threads for _, c in rows)
    measures = []
    for case in dict.fromkeys(case for case, _ in rows):
        by_threads = {c.threads: c for name, c in rows if name == case}
        ours = by_threads[few].ours.median / by_threads[most].ours.median
        dense = by_threads[few].theirs.median / by_threads[most].theirs.median
        # Where even dense attention does not scale, cores are shared and the number says nothing about us.
        target = 1.7 if dense >= 1.8 and (few, most) == (1, 2) else None
        name = f"{case}: {most} threads over {few}"
        measures.append(Measure(name, ours, "x", target, better="higher", note=f"SDPA dense {dense:.2f}x"))
    return measures


def _length_scaling(options: Options, window: int) -> Measure:
    """Returns the exponent of time over T for a fixed window; draws it beside dense attention if there is a folder."""
    lengths = [256, 512, 1024] if options.quick else [2048, 4096, 8192, 16384, 32768]
    runs = {}
    for length in lengths:
        index, tensors = window_index(length, window), inputs(length)
        runs[str(length)] = forward(functools.partial(attention, blocks=index), tensors)
    with num_threads(1):
        timings = interleave(runs, repeats=options.repeats)
        points = [(float(length), timings[str(length)].median) for length in lengths]
        if options.output is not None:
            dense = {str(n): forward(_dense_causal, inputs(n)) for n in lengths if n <= 8192}
            seconds = interleave(dense, repeats=min(options.repeats, 3))
            series = {f"window {window}": points, "SDPA dense": [(float(n), t.median) for n, t in seconds.items()]}
            path = options.output / "attention_scaling.png"
            plot_scaling(path, series, title=f"Causal attention, forward, B=1 H={HEADS} D={HEAD_DIM}, 1 thread")
    note = ", ".join(f"{n:g}: {t * 1e3:.3g} ms" for n, t in points)
    return Measure(f"exponent of time over T, window {window}, forward", loglog_slope(points), target=1.1, note=note)


def _dense_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _memory(length: int, window: int) -> list[Measure]:
    """Returns the peak memory of forward and forward + backward, beside that of one ``(H, T, T)`` float32 matrix."""
    square = HEADS * length * length * 4 / 2**20
    measures = []
    for name, build in (("forward", build_forward), ("forward + backward", build_forward_backward)):
        extra = peak_extra_bytes(functools.partial(build, length, window)) / 2**20
        # Even a single head's T x T matrix would show.
        bound = square / HEADS if length >= 8192 else None
        note = f"one (H, T, T) matrix is {square:.0f} MiB"
        measures.append(Measure(f"window {window}, T={length}, {name}: extra memory", extra, "MiB", bound, note=note))
    return measures


def build_forward(length: int, window: int) -> Run:
    """Returns our forward pass, for measuring its memory in a fresh process."""
    return forward(functools.partial(attention, blocks=window_index(length, window)), inputs(length))


def build_forward_backward(length: int, window: int) -> Run:
    """Returns our forward and backward pass, for measuring its memory in a fresh process."""
    return forward_backward(functools.partial(attention, blocks=window_index(length, window)), inputs(length))
