"""Fair timing: interleaved runs in one process, medians, and outputs compared before anything is timed.

A ratio of two medians taken at different moments measures the machine's mood as much as the code, so `compare` runs our
form and its peers in turn, round after round, and also reports the median of the ratios of neighbouring runs. Peak
memory is measured in a fresh process, where the allocator holds nothing from earlier work.
"""

import contextlib
import logging
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor

__all__ = [
    "Agreement",
    "Comparison",
    "Options",
    "Peer",
    "Timing",
    "agreement",
    "compare",
    "interleave",
    "num_threads",
    "peak_extra_bytes",
]

logger = logging.getLogger(__name__)

Outputs = Tensor | Sequence[Tensor] | float
Run = Callable[[], Outputs]


@dataclass(frozen=True)
class Options:
    """What the command line passes to every benchmark."""

    threads: tuple[int, ...] = (1,)
    repeats: int = 7
    output: Path | None = None  # folder for pictures; none are written without it
    quick: bool = False  # small sizes that finish in seconds: a check that the benchmark runs, not a measurement


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    @property
    def iqr(self) -> float:
        """Distance between the quartiles in seconds; 0 for a single run."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return high - low


@dataclass(frozen=True)
class Agreement:
    """How far our outputs are from a peer's: largest difference, and the same relative to the peer's largest value."""

    max_abs: float
    max_rel: float
    tolerance: float  # on max_rel

    @property
    def ok(self) -> bool:
        """Whether the outputs are the same up to the tolerance; False when a NaN stands on one side only."""
        return self.max_rel <= self.tolerance


@dataclass(frozen=True)
class Peer:
    """One form we are measured against.

    Attributes:
        run: Does the work once and returns its outputs.
        same_result: False when the peer computes something else, such as dense attention beside a sparse one: its time
            is a fair yardstick, its outputs are not comparable.
        target: The ratio ``peer / ours`` that is claimed, or None.
    """

    run: Run
    same_result: bool = True
    target: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Our time beside one peer's, from interleaved runs."""

    peer: str
    threads: int
    ours: Timing
    theirs: Timing
    agreement: Agreement | None  # None when the peer computes something else
    target: float | None

    @property
    def ratio(self) -> float:
        """How many times faster we are: peer's median over ours."""
        return self.theirs.median / self.ours.median

    @property
    def pairwise_ratio(self) -> float:
        """Median of the ratios of neighbouring runs; drifts of the machine cancel."""
        return statistics.median(t / o for t, o in zip(self.theirs.seconds, self.ours.seconds, strict=True))

    @property
    def met(self) -> bool | None:
        """Whether the target ratio was reached by results that agree; None without a target."""
        if self.target is None:
            return None
        return self.ratio >= self.target and (self.agreement is None or self.agreement.ok)


def compare(
    ours: Run,
    peers: Mapping[str, Peer],
    *,
    repeats: int = 7,
    warmup: int = 1,
    threads: int = 1,
    tolerance: float = 1e-4,
) -> list[Comparison]:
    """Returns our form beside each peer, outputs compared first, then timed in interleaved rounds.

    Args:
        ours: Our form: does the work once and returns its outputs (a tensor, several, or a number).
        peers: The forms to compare with, by name; outputs in the same order as ours.
        repeats: Timed rounds; the protocol asks for at least 7.
        warmup: Rounds before the clock starts. The comparison of outputs is one more.
        threads: Torch threads during the comparison; the previous number is restored.
        tolerance: Largest accepted difference relative to the peer's largest value.
    """
    with num_threads(threads):
        result = ours()
        agreements = {
            name: agreement(result, peer.run(), tolerance) if peer.same_result else None for name, peer in peers.items()
        }
        runs = {"": ours, **{name: peer.run for name, peer in peers.items()}}
        timings = interleave(runs, repeats=repeats, warmup=warmup)
    comparisons = [
        Comparison(name, threads, timings[""], timings[name], agreements[name], peer.target)
        for name, peer in peers.items()
    ]
    for c in comparisons:
        logger.info("%d thread(s), %s: %.4gs / ours %.4gs", c.threads, c.peer, c.theirs.median, c.ours.median)
    return comparisons


def interleave(runs: Mapping[str, Run], *, repeats: int = 7, warmup: int = 1) -> dict[str, Timing]:
    """Returns the timings of several runs taken in turn: a, b, c, a, b, c, ...

    Raises:
        ValueError: If `repeats` is below 1 or `warmup` below 0.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"got repeats={repeats}, warmup={warmup}; expected repeats >= 1 and warmup >= 0")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(-warmup, repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
            if round_ >= 0:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def agreement(ours: Outputs, theirs: Outputs, tolerance: float = 1e-4) -> Agreement:
    """Returns the largest difference between two sets of outputs; equal infinities and equal NaNs count as equal.

    Raises:
        ValueError: If the numbers of outputs or their shapes differ.

    >>> agreement(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0])).max_rel
    0.25
    """
    a, b = _tensors(ours), _tensors(theirs)
    if [x.shape for x in a] != [y.shape for y in b]:
        raise ValueError(f"outputs differ in shape: ours {[*map(_shape, a)]}, the peer's {[*map(_shape, b)]}")
    max_abs = max_rel = 0.0
    for x, y in zip(a, b, strict=True):
        same = (x == y) | (x.isnan() & y.isnan())
        difference = torch.where(same, 0.0, (x - y).abs()).nan_to_num(nan=float("inf"))
        largest = float(difference.max()) if difference.numel() else 0.0
        reference = y[y.isfinite()].abs()
        size = float(reference.max()) if reference.numel() else 0.0
        max_abs = max(max_abs, largest)
        max_rel = max(max_rel, largest / size if size > 0 else largest)
    return Agreement(max_abs, max_rel, tolerance)


def _tensors(outputs: Outputs) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        outputs = [outputs]
    elif isinstance(outputs, int | float):
        outputs = [torch.tensor(float(outputs))]
    return [x.detach().to(torch.float64) for x in outputs]


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Runs a block with `n` torch threads and restores the number from before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_extra_bytes(build: Callable[[], Run], *, threads: int = 1) -> int:
    """Returns how many bytes a run adds to the resident memory of a fresh process at its highest point.

    Args:
        build: Makes the inputs and returns the closure to measure. It is sent to the new process, so it must be a
            function of a module, or a `functools.partial` of one. Memory it touches itself is not counted.
        threads: Torch threads in that process.

    Raises:
        RuntimeError: If the process ends without an answer, for instance because memory ran out.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_peak, args=(build, threads, sender))
    process.start()
    sender.close()
    try:
        answer: int = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the measuring process ended with code {process.exitcode} and no answer") from None
    process.join()
    return answer


def _measure_peak(build: Callable[[], Run], threads: int, sender: Connection) -> None:
    torch.set_num_threads(threads)
    run = build()
    before = _high_water_mark()
    outputs = run()  # kept alive: outputs are part of the extra memory
    sender.send(_high_water_mark() - before)
    del outputs


def _high_water_mark() -> int:
    """Returns the highest resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would do, but on Linux a new process inherits the mark of the one that started it.
        line = next(x for x in status.read_text(encoding="ascii").splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return mark if sys.platform == "darwin" else mark * 1024
