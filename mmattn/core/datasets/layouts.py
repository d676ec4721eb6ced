"""The layouts of datasets on disk: a table of them, which one a folder is in, and what is wrong with it.

A layout is one function that lists what is in a folder and one row of its system's table; reading, guessing and
``mmattn data check`` need nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from mmattn.core.datasets.scan import DatasetScan
from mmattn.errors import InputError

__all__ = ["Layout", "LayoutTable", "Report", "each_problem"]

Item = TypeVar("Item")
AnyLayout = TypeVar("AnyLayout", bound="Layout")

_THREADS = 4


@dataclass(frozen=True)
class Layout:
    """How one dataset lies on disk; a system adds what its datasets have besides.

    Attributes:
        find: Lists what a folder holds; its first argument is a scan, which collects what is wrong.
        markers: Places below the root, with ``*``, of which one tells the layout.
    """

    find: Callable[..., Iterable[Any]]
    markers: tuple[str, ...] = ()

    def fits(self, root: Path) -> bool:
        """Says whether a folder looks like this layout."""
        return any(next(root.glob(place), None) is not None for place in self.markers)


@dataclass
class Report:
    """What a look at a dataset folder found.

    Attributes:
        layout: Layout it was read as.
        root: The folder.
        problems: What is wrong, one sentence each.
        facts: What is there, a line each.
        notes: What is worth knowing and not wrong.
        shown: So many problems are shown; None shows all.
    """

    layout: str
    root: Path
    problems: list[str]
    facts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shown: int | None = 40

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    def lines(self) -> list[str]:
        """Returns the report as text: facts, notes, a line per problem, the verdict."""
        lines = [f"{self.root} as {self.layout}", *(f"  {line}" for line in (*self.facts, *self.notes))]
        lines += [f"  problem: {problem}" for problem in self.problems[: self.shown]]
        if self.shown is not None and len(self.problems) > self.shown:
            lines.append(f"  and {len(self.problems) - self.shown} more")
        lines.append("ok" if self.ok else f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}")
        return lines


class LayoutTable(dict[str, AnyLayout]):
    """The layouts of a system by name, the most specific first.

    Args:
        system: Name of the system, for hints.
        rows: The layouts.
    """

    def __init__(self, system: str, rows: dict[str, AnyLayout]) -> None:
        super().__init__(rows)
        self.system = system

    def named(self, name: str) -> AnyLayout:
        """Returns a layout.

        Raises:
            InputError: If there is none of this name.
        """
        if name not in self:
            raise InputError(f"There is no dataset layout {name!r}.", f"Known are: {', '.join(self)}.")
        return self[name]

    def guess(self, root: str | Path) -> list[str]:
        """Returns the names of the layouts a folder looks like, the most specific first."""
        folder = Path(root).expanduser()
        return [name for name, layout in self.items() if layout.fits(folder)]

    def refuse(self, name: str, scan: DatasetScan, *, nothing: bool) -> None:
        """Raises what a scan found wrong.

        Args:
            name: Layout it was read as.
            scan: The scan.
            nothing: Whether nothing was found that can be used, so that it may be another layout.

        Raises:
            InputError: If there are problems.
        """
        if not scan.problems:
            return
        others = self._others(name, scan.root) if nothing else []
        more = f" There are {len(scan.problems) - 3} more." if len(scan.problems) > 3 else ""
        raise InputError(
            f"{scan.root} cannot be read as {name}: {' '.join(scan.problems[:3])}{more}",
            f"It looks like {' or '.join(others)}."
            if others
            else f"All problems: mmattn data check {self.system} {scan.root} --layout {name}",
        )

    def nothing_found(self, name: str, root: Path, what: str) -> str:
        """Returns the problem of a folder in which no ``what`` was found."""
        others = self._others(name, root)
        looks = f"this looks like {' or '.join(others)}" if others else f"expected {self[name].markers[0]} in it"
        return f"No {what} was found as {name}; {looks}."

    def check(self, root: Path, name: str | None, look: Callable[[str], Report]) -> tuple[bool, list[str]]:
        """Has a folder looked over for ``mmattn data check``.

        Args:
            root: The dataset's folder.
            name: Its layout; None guesses it.
            look: Looks the folder over as the layout of a name.

        Returns:
            Whether nothing is wrong, and the lines to print.

        Raises:
            InputError: If no layout fits, or as ``look``.
        """
        if name is not None:
            report = look(name)
            return report.ok, report.lines()
        guesses = self.guess(root)
        if not guesses:
            raise InputError(
                f"{root} looks like none of the known layouts: {', '.join(self)}.",
                "Name one with --layout, and see what it says is missing.",
            )
        report = look(guesses[0])
        alike = f"Layout guessed; {', '.join(guesses[1:])} would fit as well." if guesses[1:] else "Layout guessed."
        return report.ok, [alike, *report.lines()]

    def _others(self, name: str, root: Path) -> list[str]:
        return [other for other in self.guess(root) if other != name]


def each_problem(items: Sequence[Item], problem: Callable[[Item], str], what: str, unit: str) -> Iterator[str]:
    """Yields what ``problem`` says about each item, if anything, in their order, with a progress bar in a terminal.

    Args:
        items: What is looked at, several at once.
        problem: Returns what is wrong with an item, "" if nothing.
        what: Shown beside the bar.
        unit: What an item is.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from filter(None, tqdm(pool.map(problem, items), what, len(items), unit=unit, disable=None))
