"""Linear attention on the CPU: chunks against the recurrence as it is defined, and against softmax attention.

All at ``B=1, H=4, K=64, V=128``, float32, gates ``logsigmoid(x) / 16`` as the published layers have them. The
recurrence is the straightforward form of the same function. Causal softmax attention computes something else and is the
yardstick of what a linear cost buys; it is also shown at ``V=64``, the shape that PyTorch's fast kernel takes.
Scaling and peak memory show that time and memory grow with T and that no state is kept per token.
"""

import functools
import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.bench.peers.linear import gla_recurrence, gla_recurrence_step
from mmattn.bench.plots import loglog_slope, plot_scaling
from mmattn.bench.report import Measure, Report, without_targets
from mmattn.bench.timer import Options, Peer, Run, compare, interleave, num_threads, peak_extra_bytes
from mmattn.kernels.linear.delta_rule import delta_rule
from mmattn.kernels.linear.gla import gated_linear_attention, gated_linear_attention_step
from mmattn.kernels.linear.simple_gla import simple_gla

__all__ = ["run"]

logger = logging.getLogger(__name__)

HEADS, KEY_DIM, VALUE_DIM = 4, 64, 128
GATE_NORMALIZER = 16.0
STRONG = 1e3  # gates that overflow every factorisation in float32
STEPS = 100  # tokens of one timed run of decoding

Kernel = Callable[..., tuple[Tensor, Tensor]]


def run(options: Options) -> Report:
    """Measures a forward pass, forward and backward, decoding, softmax attention, scaling with T, and memory."""
    length, short = (256, 64) if options.quick else (2048, 512)
    report = Report("linear")
    for threads in options.threads:
        settings = {"repeats": options.repeats, "threads": threads}
        logger.info("T=%d, %d thread(s)", length, threads)
        tensors = inputs(length)
        for what, make, target in (("forward", forward, 7.0), ("forward + backward", forward_backward, 15.0)):
            peers = {"recurrence": Peer(make(gla_recurrence, tensors), target=target)}
            report.add(f"GLA T={length}, {what}", compare(make(gated_linear_attention, tensors), peers, **settings))
        peers = {
            "recurrence called per token": Peer(decode(recurrence_of_one_token), target=1 / 0.6),
            "body of the recurrence": Peer(decode(gla_recurrence_step)),
        }
        report.add(f"GLA, {STEPS} tokens one by one", compare(decode(gated_linear_attention_step), peers, **settings))
        _compare_with_softmax(report, short, threads, options.repeats)
        _compare_relatives(report, length, threads, options.repeats)
    report.measures += [_length_scaling(options), *_memory(length)]
    return without_targets(report) if options.quick else report


def inputs(length: int, *, value_dim: int = VALUE_DIM, decay: float = 1 / GATE_NORMALIZER) -> list[Tensor]:
    """Returns q, k, v ``(1, 4, T, .)``, normal, and g ``(1, 4, T, 64)``, ``decay * logsigmoid(normal)``; seed 0."""
    generator = torch.Generator().manual_seed(0)
    q, k, x = (torch.randn(1, HEADS, length, KEY_DIM, generator=generator) for _ in range(3))
    v = torch.randn(1, HEADS, length, value_dim, generator=generator)
    # In place: memory that is used here and freed would hide as much of a kernel's own.
    return [q, k, v, x.neg_().exp_().log1p_().mul_(-decay)]


def forward(kernel: Kernel, tensors: Sequence[Tensor]) -> Run:
    """Returns a closure of one forward pass over the tensors of :func:`inputs`, ``(B, H, T, .)``."""

    def once() -> Sequence[Tensor]:
        with torch.no_grad():
            return kernel(*tensors)

    return once


def forward_backward(kernel: Kernel, tensors: Sequence[Tensor]) -> Run:
    """Returns a closure of a pass over ``(B, H, T, .)`` tensors and the gradients of its sum with a random weight."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    weight = torch.randn(tensors[2].shape, generator=torch.Generator().manual_seed(1))

    def once() -> tuple[Tensor, ...]:
        out, _ = kernel(*leaves)
        return (out, *torch.autograd.grad(out, leaves, weight))

    return once


def decode(step: Kernel) -> Run:
    """Returns a closure that decodes STEPS tokens from a state of zeros."""
    tokens = list(zip(*(x.unbind(dim=2) for x in inputs(STEPS)), strict=True))
    zeros = torch.zeros(1, HEADS, KEY_DIM, VALUE_DIM)

    def once() -> Tensor:
        state, outs = zeros, []
        with torch.inference_mode():
            for token in tokens:
                out, state = step(*token, state)
                outs.append(out)
            return torch.stack(outs, dim=2)

    return once


def recurrence_of_one_token(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Returns output ``(B, H, V)`` and state of the recurrence called for a single token, as models decode with it."""
    out, state = gla_recurrence(q[:, :, None], k[:, :, None], v[:, :, None], g[:, :, None], state)
    return out[:, :, 0], state


def _compare_with_softmax(report: Report, length: int, threads: int, repeats: int) -> None:
    softmax = functools.partial(F.scaled_dot_product_attention, is_causal=True)
    for value_dim in (VALUE_DIM, KEY_DIM):
        tensors = inputs(length, value_dim=value_dim)
        peer = Peer(lambda tensors=tensors: softmax(*tensors[:3]), same_result=False, target=1.0)  # type: ignore[misc]
        ours = forward(gated_linear_attention, tensors)
        rows = compare(ours, {"SDPA causal": peer}, repeats=repeats, threads=threads)
        report.add(f"GLA T={length} V={value_dim}, forward", rows)


def _compare_relatives(report: Report, length: int, threads: int, repeats: int) -> None:
    """Adds the relatives, and GLA at extreme decay, beside their own definitions."""
    q, k, v, g = inputs(length)
    gate, beta = g[..., 0].contiguous(), g[..., 0].exp()
    cases: dict[str, tuple[Kernel, list[Tensor]]] = {
        "GLA, extreme decay": (gated_linear_attention, inputs(length, decay=STRONG)),
        "simple GLA": (simple_gla, [q, k, v, gate]),
        "delta rule": (delta_rule, [q, F.normalize(k, dim=-1), v, beta]),
    }
    for name, (kernel, tensors) in cases.items():
        for what, make in (("forward", forward), ("forward + backward", forward_backward)):
            naive = Peer(make(functools.partial(kernel, mode="naive"), tensors))
            rows = compare(make(kernel, tensors), {"mode naive": naive}, repeats=repeats, threads=threads)
            report.add(f"{name} T={length}, {what}", rows)


def _length_scaling(options: Options) -> Measure:
    """Returns the exponent of time over T; draws it beside softmax attention if there is a folder."""
    lengths = [256, 512, 1024] if options.quick else [2048, 4096, 8192, 16384, 32768, 65536]
    runs = {str(n): forward(gated_linear_attention, inputs(n)) for n in lengths}
    with num_threads(1):
        timings = interleave(runs, repeats=options.repeats)
        points = [(float(n), timings[str(n)].median) for n in lengths]
        if options.output is not None:
            dense = {str(n): _softmax(n) for n in lengths if n <= 8192}
            seconds = interleave(dense, repeats=min(options.repeats, 3))
            series = {"GLA in chunks": points, "SDPA causal": [(float(n), t.median) for n, t in seconds.items()]}
            title = f"Forward, B=1 H={HEADS} K={KEY_DIM} V={VALUE_DIM}, 1 thread"
            plot_scaling(options.output / "linear_scaling.png", series, title=title)
    note = ", ".join(f"{n:g}: {t * 1e3:.3g} ms" for n, t in points)
    return Measure("exponent of time over T, GLA, forward", loglog_slope(points), target=1.1, note=note)


def _softmax(length: int) -> Run:
    q, k, v, _ = inputs(length)
    return functools.partial(F.scaled_dot_product_attention, q, k, v, is_causal=True)


def _memory(length: int) -> list[Measure]:
    """Returns the peak memory of forward and forward + backward over that of q, k, v and g."""
    measures = []
    given = sum(x.nbytes for x in inputs(length))
    states = HEADS * length * KEY_DIM * VALUE_DIM * 4
    for name, build in (("forward", build_forward), ("forward + backward", build_forward_backward)):
        extra = peak_extra_bytes(functools.partial(build, length))
        note = (
            f"{extra / 2**20:.0f} MiB beside inputs of {given / 2**20:.0f} MiB; all states are {states / 2**20:.0f} MiB"
        )
        measures.append(
            Measure(f"GLA T={length}, {name}: extra memory over inputs", extra / given, "x", 3.0, note=note)
        )
    return measures


def build_forward(length: int) -> Run:
    """Returns our forward pass, for measuring its memory in a fresh process."""
    _warm_up(forward)
    return forward(gated_linear_attention, inputs(length))


def build_forward_backward(length: int) -> Run:
    """Returns our forward and backward pass, for measuring its memory in a fresh process."""
    _warm_up(forward_backward)
    return forward_backward(gated_linear_attention, inputs(length))


def _warm_up(make: Callable[[Kernel, Sequence[Tensor]], Run]) -> None:
    """Lets libraries load their code before memory is counted."""
    make(gated_linear_attention, inputs(64))()
