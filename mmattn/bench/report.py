"""A benchmark's result: an aligned table for people, JSON for the record."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mmattn.bench.machine import describe_machine
from mmattn.bench.timer import Comparison, Options, Peer, Run, Timing, compare
from mmattn.media.files import write_text
from mmattn.metrics.tables import aligned

__all__ = ["Measure", "Report", "without_targets"]

_HEADER = ("case", "against", "threads", "ours", "theirs", "ratio", "pairwise", "target", "met", "difference")


@dataclass(frozen=True)
class Measure:
    """One number that is not a ratio of times: a slope, a memory size, a speed-up by threads.

    Attributes:
        name: What was measured.
        value: The number.
        unit: Its unit, or "".
        target: The claimed bound, or None when the number is only reported.
        better: Whether the claim is ``value >= target`` ("higher") or ``value <= target`` ("lower").
        note: A condition or a remark, one line.
    """

    name: str
    value: float
    unit: str = ""
    target: float | None = None
    better: Literal["higher", "lower"] = "lower"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


@dataclass
class Report:
    """Everything one benchmark found, in the order it was measured.

    Example:
        >>> report = Report("demo", machine={"cpu": "an example"})
        >>> report.measures.append(Measure("slope", 1.02, target=1.1))
        >>> print(report.table())
        slope: 1.02 (target <= 1.1: met)
    """

    name: str
    comparisons: list[tuple[str, Comparison]] = field(default_factory=list)  # (case, our time beside one peer's)
    measures: list[Measure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, str | int | float] = field(default_factory=describe_machine)

    def add(self, case: str, comparisons: Sequence[Comparison]) -> None:
        """Adds what `compare` returned for one case."""
        self.comparisons.extend((case, c) for c in comparisons)

    def compare(
        self, case: str, ours: Run, peers: Mapping[str, Peer], options: Options, *, tolerance: float = 1e-4
    ) -> None:
        """Compares a case with its peers at every number of threads and adds what came out."""
        for threads in options.threads:
            self.add(case, compare(ours, peers, repeats=options.repeats, threads=threads, tolerance=tolerance))

    @property
    def agrees(self) -> bool:
        """Whether every pair of outputs that should be the same is."""
        return all(c.agreement is None or c.agreement.ok for _, c in self.comparisons)

    @property
    def missed(self) -> list[str]:
        """Names of the targets that were not reached."""
        missed = [f"{case} against {c.peer}, {c.threads} thread(s)" for case, c in self.comparisons if c.met is False]
        return missed + [m.name for m in self.measures if m.met is False]

    def table(self) -> str:
        """Returns the result as aligned text: comparisons, then single numbers, then notes."""
        lines: list[str] = []
        if self.comparisons:
            lines.append(aligned([_HEADER, *(_cells(case, c) for case, c in self.comparisons)], left=len(_HEADER)))
        lines += [_sentence(m) for m in self.measures]
        return "\n".join([*lines, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Returns the whole result as plain data."""
        return {
            "benchmark": self.name,
            "machine": self.machine,
            "comparisons": [_comparison_json(case, c) for case, c in self.comparisons],
            "measures": [{**vars(m), "met": m.met} for m in self.measures],
            "notes": self.notes,
        }

    def write(self, path: Path) -> None:
        """Writes the JSON form to a file, making its folder if needed."""
        write_text(path, json.dumps(self.to_json(), indent=2) + "\n")


def without_targets(report: Report) -> Report:
    """Returns the result of a ``--quick`` run: same numbers, no verdicts, and a note that says why."""
    return replace(
        report,
        comparisons=[(case, replace(c, target=None)) for case, c in report.comparisons],
        measures=[replace(m, target=None) for m in report.measures],
        notes=[*report.notes, "quick run: sizes are too small for these numbers to be a measurement"],
    )


def _cells(case: str, c: Comparison) -> tuple[str, ...]:
    difference = "other result" if c.agreement is None else f"{c.agreement.max_rel:.1e}"
    if c.agreement is not None and not c.agreement.ok:
        difference += " DISAGREES"
    target = "" if c.target is None else f"{c.target:g}x"
    met = "" if c.met is None else ("yes" if c.met else "NO")
    ratios = f"{c.ratio:.2f}x", f"{c.pairwise_ratio:.2f}x"
    return (case, c.peer, str(c.threads), _time(c.ours), _time(c.theirs), *ratios, target, met, difference)


def _time(timing: Timing) -> str:
    scale, unit = (1.0, "s") if timing.median >= 1 else (1e3, "ms")
    return f"{timing.median * scale:.3g} {unit} (IQR {timing.iqr * scale:.2g})"


def _sentence(m: Measure) -> str:
    text = f"{m.name}: {m.value:.4g}{' ' + m.unit if m.unit else ''}"
    if m.target is not None:
        sign = ">=" if m.better == "higher" else "<="
        text += f" (target {sign} {m.target:g}: {'met' if m.met else 'NOT MET'})"
    return f"{text} - {m.note}" if m.note else text


def _comparison_json(case: str, c: Comparison) -> dict[str, Any]:
    agreement = None if c.agreement is None else {**vars(c.agreement), "ok": c.agreement.ok}
    return {
        "case": case,
        "peer": c.peer,
        "threads": c.threads,
        "ours": _timing_json(c.ours),
        "theirs": _timing_json(c.theirs),
        "ratio": c.ratio,
        "pairwise_ratio": c.pairwise_ratio,
        "target": c.target,
        "met": c.met,
        "agreement": agreement,
    }


def _timing_json(timing: Timing) -> dict[str, Any]:
    return {"median": timing.median, "iqr": timing.iqr, "seconds": list(timing.seconds)}
