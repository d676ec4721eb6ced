"""The output folder of a batch run as a journal: what is done stays done, whatever ends the run.

``results.jsonl`` gets one line per finished item (:mod:`mmattn.core.batch.records`) after the item's files are in
place and on the disk; an item without its line, or whose files are not as the line says, counts as not done.
``run.json`` holds what the run was asked to do and each input's size and time, written before the first item and again
at the end. ``errors.jsonl`` holds the items that failed last time they were tried. What these files say is checked
before it is used as a path: nothing outside the folder is written or deleted. docs/reliability.md states what a crash
and a power loss can take.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mmattn.core.batch.inputs import InputItem
from mmattn.core.batch.output_folder import OutputFolder
from mmattn.core.batch.records import append_line, as_line, content_of, has_outputs, output_paths, read_records
from mmattn.errors import InputError
from mmattn.media.files import flush_file, flushing
from mmattn.media.paths import contained

__all__ = ["ERRORS", "Journal", "Plan", "Stamp"]

RUN, RESULTS, ERRORS = "run.json", "results.jsonl", "errors.jsonl"


@dataclass(frozen=True)
class Stamp:
    """What tells that an input has changed.

    Attributes:
        size: Bytes.
        mtime: Time of the last change, seconds since 1970; 0 for a part of a file.
        digest: Of the content of a part, so that a change elsewhere in the file does not touch it; empty for a file.
    """

    size: int
    mtime: float
    digest: str = ""

    @classmethod
    def of(cls, item: InputItem) -> Stamp:
        """Returns the stamp of an item; (-1, 0) when its file cannot be looked at, so that reading it reports why."""
        if item.content is not None:
            data = item.content.encode(errors="surrogatepass")
            return cls(len(data), 0.0, hashlib.sha256(data).hexdigest()[:16])
        try:
            stat = item.path.stat()
        except OSError:
            return cls(-1, 0.0)
        return cls(stat.st_size, stat.st_mtime)


@dataclass
class Plan:
    """What a run has to do.

    Attributes:
        items: All items of the run, under their final names.
        todo: Those not finished yet.
        kept: Results of earlier runs that stay, by input path.
        stamps: Stamp of every known input by input path, earlier runs included.
        names: Result name of every known input by input path, earlier runs included.
        errors: Earlier failures of inputs that this run does not touch.
    """

    items: list[InputItem]
    todo: list[InputItem] = field(default_factory=list)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def batches(self, size: int) -> list[list[InputItem]]:
        """Cuts all items of the run into batches and returns those in which something is left to do.

        The items of a batch depend on the inputs alone and not on what is done: numbers can differ in their last
        digits with the size of a batch, and random draws with the items in it, so a batch that was cut short is formed
        again as it was.
        """
        left = {item.key for item in self.todo}
        cut = (self.items[start : start + size] for start in range(0, len(self.items), size))
        return [batch for batch in cut if any(item.key in left for item in batch)]


class Journal:
    """Reads and writes the records in one output folder.

    Args:
        folder: The output folder; it need not exist.
        run: What ``run.json`` says about the run besides its items; ``system`` and ``options`` must agree with an
            earlier run in the same folder.
        fsync: Flush every result and record to the disk before the next one is begun.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], *, fsync: bool = True) -> None:
        self.output = OutputFolder(folder, fsync=fsync)
        self.run = json.loads(json.dumps(run, default=str))

    @property
    def folder(self) -> Path:
        """The output folder, absolute."""
        return self.output.path

    def plan(self, items: Sequence[InputItem], *, overwrite: bool = False) -> Plan:
        """Compares the items with what the folder holds; reads only.

        Raises:
            InputError: If the folder holds results of another system or of other options.
        """
        earlier = {} if overwrite else self.read_run()
        known = {entry["input"]: entry for entry in earlier.get("items", [])}
        plan = Plan(items=keep_names(items, {path: entry["name"] for path, entry in known.items()}))
        ours = {item.key for item in plan.items}
        done = {} if overwrite else {record["input"]: record for record in self.results()}
        for path, entry in known.items():
            stamp = Stamp(entry["size"], entry["mtime"], entry["digest"])
            plan.stamps[path], plan.names[path] = stamp, entry["name"]
            if path in done and path not in ours:
                plan.kept[path] = done[path]
        for item in plan.items:
            path, stamp = item.key, Stamp.of(item)
            if path in done and plan.stamps.get(path) == stamp and has_outputs(done[path], self.folder):
                plan.kept[path] = done[path]
            else:
                plan.todo.append(item)
            plan.stamps[path], plan.names[path] = stamp, item.name
        if not overwrite:
            plan.errors = [record for record in read_records(self.folder / ERRORS) if record["input"] not in ours]
        return plan

    def read_run(self) -> dict[str, Any]:
        """Returns the ``run.json`` of an earlier run that this one may continue; empty when there is none.

        Raises:
            InputError: If the folder holds results of other options, of no run, or a damaged ``run.json``.
        """
        start_over = "Choose another --output, or start this one over with --overwrite."
        file = self.folder / RUN
        if not file.exists():
            # An empty one is of a run that was stopped before it wrote run.json.
            if (self.folder / RESULTS).exists() and (self.folder / RESULTS).stat().st_size:
                raise InputError(f"'{self.folder}' has a {RESULTS} that no run of mmattn explains.", start_over)
            return {}
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
            options = {"system": earlier["system"], **earlier["options"]}
            kept = ("input", "name", "size", "mtime")
            entries = [
                {**{key: item[key] for key in kept}, "digest": item.get("digest", "")} for item in earlier["items"]
            ]
            for entry in entries:
                contained(entry["name"], self.folder)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"'{file}' is damaged or not of a run of mmattn.", start_over) from error
        differences = compare(options, {"system": self.run["system"], **self.run["options"]})
        if differences:
            raise InputError(f"'{self.folder}' holds results of other options: {'; '.join(differences)}.", start_over)
        return {"items": entries}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder and holds it for this process alone while the block runs.

        Raises:
            OutputError: If the folder cannot be written or another run holds it.
        """
        with self.output.held():
            yield

    def begin(self, plan: Plan, *, overwrite: bool = False) -> None:
        """Writes the plan: kept results, cleaned of torn lines, before ``run.json`` with the new stamps.

        In this order a crash in between loses no finished item and passes no changed input off as done.
        """
        with self.output.writing():
            if overwrite:
                self.remove_outputs()
            self.output.replace_file(RESULTS, "".join(as_line(record) for record in plan.kept.values()))
            self.output.replace_file(ERRORS, "".join(as_line(record) for record in plan.errors))
            self.write_run(plan, state="running")

    def remove_outputs(self) -> None:
        """Deletes the files that earlier results in this folder list, and nothing else; of a link, the link alone."""
        for record in self.results():
            for path in output_paths(record, self.folder):
                if path.is_symlink() or not path.is_dir():
                    path.unlink(missing_ok=True)

    def add_result(self, item: InputItem, save: Callable[[Path, str], list[Path]], numbers: Callable[[], Any]) -> None:
        """Saves one item's files and records it.

        Args:
            item: The finished item.
            save: Writes the files into a folder under a name and returns their paths.
            numbers: Called after ``save``; returns what else the record holds, ``seconds`` for one.

        Raises:
            InputError: If a link in the output folder would lead the files out of it.
            OutputError: If the folder cannot be written any more, or is another one now. Whatever else ``save`` raises
                is passed on.
        """
        base, partial = PurePosixPath(item.name), self.output.partial
        with self.output.writing():
            try:
                self.output.empty_partial()
                with flushing(False):  # done below, once for each file that stays
                    paths = [Path(path).relative_to(partial) for path in save(partial, base.name)]
                outputs = [(base.parent / path.as_posix()).as_posix() for path in paths]
                moves = [
                    (partial / path, contained(name, self.folder)) for path, name in zip(paths, outputs, strict=True)
                ]
                for path, _ in moves:
                    flush_file(path)
                contents = {name: content_of(path) for name, (path, _) in zip(outputs, moves, strict=True)}
                line = as_line({"input": item.key, "outputs": outputs, **numbers(), "contents": contents})
                self.output.place(moves)
                append_line(self.folder / RESULTS, line)
            finally:
                self.output.empty_partial()

    def add_error(self, item: InputItem, message: str, hint: str) -> None:
        """Records that an item failed."""
        with self.output.writing():
            append_line(self.folder / ERRORS, as_line({"input": item.key, "error": message, "hint": hint}))

    def results(self) -> list[dict[str, Any]]:
        """Returns all records of finished items, earlier runs included; none whose files lie outside of the folder."""

        def is_inside(record: dict[str, Any]) -> bool:
            try:
                output_paths(record, self.folder)
            except InputError:
                return False
            return True

        return [record for record in read_records(self.folder / RESULTS) if is_inside(record)]

    def end(self, plan: Plan, state: str) -> None:
        """Writes ``run.json`` with what is done now.

        Args:
            plan: The run's plan.
            state: "finished", "interrupted" or "failed".
        """
        with self.output.writing():
            self.write_run(plan, state=state)

    def write_run(self, plan: Plan, *, state: str) -> None:
        """Writes ``run.json``."""
        done = {record["input"] for record in self.results()}
        entries = [
            {"input": path, "name": plan.names[path], **as_entry(stamp), "done": path in done}
            for path, stamp in plan.stamps.items()
        ]
        self.output.replace_file(RUN, json.dumps({**self.run, "state": state, "items": entries}, indent=1) + "\n")


def as_entry(stamp: Stamp) -> dict[str, Any]:
    """Returns what ``run.json`` holds of a stamp."""
    known = {"size": stamp.size, "mtime": stamp.mtime}
    return {**known, "digest": stamp.digest} if stamp.digest else known


def keep_names(items: Sequence[InputItem], earlier: Mapping[str, str]) -> list[InputItem]:
    """Gives each item the name an earlier run gave it, and no item the name of another input."""
    owners = {name: path for path, name in earlier.items()}
    named = []
    for item in items:
        if item.key in earlier:
            named.append(replace(item, name=earlier[item.key]))
        else:
            named.append(item.with_prefix() if item.name in owners else item)
    return named


def compare(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns one phrase per option that differs; texts are quoted, so that spaces at their ends show.

    >>> compare({"sigma": 4.0, "seed": 0}, {"sigma": 2.0, "seed": 0})
    ['sigma was 4.0, is 2.0']
    """
    names = dict.fromkeys([*earlier, *now])
    return [
        f"{name} was {shown(earlier, name)}, is {shown(now, name)}"
        for name in names
        if (name in earlier) != (name in now) or earlier.get(name) != now.get(name)
    ]


def shown(options: Mapping[str, Any], name: str) -> str:
    """Returns an option's value as it is told, ``unset`` where there is none."""
    return repr(options[name]) if name in options else "unset"
