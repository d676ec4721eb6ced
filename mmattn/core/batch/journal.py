"""The output folder of a batch run as a journal: what is done stays done, whatever ends the run.

``results.jsonl`` gets one line per finished item, written by a single system call after the item's files are in place;
a line that was cut short by a crash does not parse and is dropped, so its item counts as not done. ``run.json`` holds
what the run was asked to do and each input's size and time, written before the first item and again at the end.
``errors.jsonl`` holds the items that failed last time they were tried.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mmattn.core.batch.inputs import InputItem
from mmattn.errors import InputError, OutputError

__all__ = ["Journal", "Plan", "Stamp", "read_records", "storage_failure"]

RUN, RESULTS, ERRORS, PARTIAL = "run.json", "results.jsonl", "errors.jsonl", ".partial"
# Failures of the place we write to, not of one item: going on would fail for every other item too.
STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}
)


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


class Journal:
    """Reads and writes the records in one output folder.

    Args:
        folder: The output folder; it need not exist.
        run: What ``run.json`` says about the run besides its items; ``system`` and ``options`` must agree with an
            earlier run in the same folder.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.folder = folder.expanduser().absolute()
        self.run = json.loads(json.dumps(run, default=str))
        self.partial = self.folder / PARTIAL

    def plan(self, items: Sequence[InputItem], *, overwrite: bool = False) -> Plan:
        """Compares the items with what the folder holds; reads only.

        Raises:
            InputError: If the folder holds results of another system or of other options.
        """
        earlier = {} if overwrite else self.read_run()
        known = {entry["input"]: entry for entry in earlier.get("items", [])}
        plan = Plan(items=keep_names(items, {path: entry["name"] for path, entry in known.items()}))
        ours = {item.key for item in plan.items}
        done = {} if overwrite else {record["input"]: record for record in read_records(self.folder / RESULTS)}
        for path, entry in known.items():
            stamp = Stamp(entry["size"], entry["mtime"], entry["digest"])
            plan.stamps[path], plan.names[path] = stamp, entry["name"]
            if path in done and path not in ours:
                plan.kept[path] = done[path]
        for item in plan.items:
            path, stamp = item.key, Stamp.of(item)
            if path in done and plan.stamps.get(path) == stamp and self.has_outputs(done[path]):
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
            if (self.folder / RESULTS).exists():
                raise InputError(f"'{self.folder}' has a {RESULTS} that no run of mmattn explains.", start_over)
            return {}
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
            options = {"system": earlier["system"], **earlier["options"]}
            kept = ("input", "name", "size", "mtime")
            entries = [
                {**{key: item[key] for key in kept}, "digest": item.get("digest", "")} for item in earlier["items"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"'{file}' is damaged or not of a run of mmattn.", start_over) from error
        differences = compare(options, {"system": self.run["system"], **self.run["options"]})
        if differences:
            raise InputError(f"'{self.folder}' holds results of other options: {'; '.join(differences)}.", start_over)
        return {"items": entries}

    def has_outputs(self, record: Mapping[str, Any]) -> bool:
        """Tells whether all files of a result are still there."""
        return all((self.folder / output).is_file() for output in record.get("outputs", []))

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder and holds it for this process alone while the block runs.

        Raises:
            OutputError: If the folder cannot be written or another run holds it.
        """
        is_new = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise self.unwritable(error) from error
        try:
            lock(handle, self.folder)
            with self.writing():
                shutil.rmtree(self.partial, ignore_errors=True)
                self.partial.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.partial, ignore_errors=True)
        finally:
            if is_new and not any(self.folder.iterdir()):
                self.folder.rmdir()
            os.close(handle)

    def begin(self, plan: Plan, *, overwrite: bool = False) -> None:
        """Writes the plan: kept results, cleaned of torn lines, before ``run.json`` with the new stamps.

        In this order a crash in between loses no finished item and passes no changed input off as done.
        """
        with self.writing():
            if overwrite:
                self.remove_outputs()
            self.replace_file(RESULTS, "".join(as_line(record) for record in plan.kept.values()))
            self.replace_file(ERRORS, "".join(as_line(record) for record in plan.errors))
            self.write_run(plan, state="running")

    def remove_outputs(self) -> None:
        """Deletes the files that earlier results in this folder list, and nothing else."""
        for record in read_records(self.folder / RESULTS):
            for output in record.get("outputs", []):
                path = self.folder / output
                if ".." not in PurePosixPath(output).parts and path.is_relative_to(self.folder):
                    path.unlink(missing_ok=True)

    def add_result(self, item: InputItem, save: Callable[[Path, str], list[Path]], numbers: Callable[[], Any]) -> None:
        """Saves one item's files and records it.

        Args:
            item: The finished item.
            save: Writes the files into a folder under a name and returns their paths.
            numbers: Called after ``save``; returns what else the record holds, ``seconds`` for one.

        Raises:
            OutputError: If the folder cannot be written any more. Whatever else ``save`` raises is passed on.
        """
        target = (self.folder / item.name).parent
        with self.writing():
            try:
                paths = [Path(path) for path in save(self.partial, PurePosixPath(item.name).name)]
                moves = [(path, target / path.relative_to(self.partial)) for path in paths]
                outputs = [final.relative_to(self.folder).as_posix() for _, final in moves]
                line = as_line({"input": item.key, "outputs": outputs, **numbers()})
                for path, final in moves:
                    final.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(final)
                append_line(self.folder / RESULTS, line)
            finally:
                clear(self.partial)

    def add_error(self, item: InputItem, message: str, hint: str) -> None:
        """Records that an item failed."""
        with self.writing():
            append_line(self.folder / ERRORS, as_line({"input": item.key, "error": message, "hint": hint}))

    def results(self) -> list[dict[str, Any]]:
        """Returns all records of finished items, earlier runs included."""
        return read_records(self.folder / RESULTS)

    def end(self, plan: Plan, state: str) -> None:
        """Writes ``run.json`` with what is done now.

        Args:
            plan: The run's plan.
            state: "finished", "interrupted" or "failed".
        """
        with self.writing():
            self.write_run(plan, state=state)

    def write_run(self, plan: Plan, *, state: str) -> None:
        """Writes ``run.json``."""
        done = {record["input"] for record in self.results()}
        entries = [
            {"input": path, "name": plan.names[path], **as_entry(stamp), "done": path in done}
            for path, stamp in plan.stamps.items()
        ]
        self.replace_file(RUN, json.dumps({**self.run, "state": state, "items": entries}, indent=1) + "\n")

    def replace_file(self, name: str, text: str) -> None:
        """Puts a new version of one of the journal's files in place, whole."""
        temporary = self.partial / name
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a failure of the storage inside the block into one clear :class:`OutputError`."""
        try:
            yield
        except (OSError, ValueError) as error:
            failure = storage_failure(error)
            if failure is None or isinstance(error, OutputError):
                raise
            raise self.unwritable(failure) from error

    def unwritable(self, error: OSError) -> OutputError:
        """Returns the error for an output folder that cannot be written (any more)."""
        return OutputError(
            f"Cannot write to '{self.folder}': {error.strerror or error}.",
            "Finished results are kept. Free some space or choose a folder you may write to, then run again.",
        )


def as_entry(stamp: Stamp) -> dict[str, Any]:
    """Returns what ``run.json`` holds of a stamp."""
    known = {"size": stamp.size, "mtime": stamp.mtime}
    return {**known, "digest": stamp.digest} if stamp.digest else known


def storage_failure(error: BaseException | None) -> OSError | None:
    """Returns the :class:`OSError` behind ``error`` that says the storage itself fails, if there is one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in STORAGE_ERRNOS:
            return error
        error = error.__cause__
    return None


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


def read_records(file: Path) -> list[dict[str, Any]]:
    """Returns the records of a JSON-lines file, the last one per input; lines that do not parse are left out."""
    records: dict[str, dict[str, Any]] = {}
    if not file.exists():
        return []
    for line in file.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("input"), str):
            records[record["input"]] = record
    return list(records.values())


def as_line(record: Mapping[str, Any]) -> str:
    """Returns a record as one line of JSON.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON cannot say.
    """
    try:
        return json.dumps(record, allow_nan=False) + "\n"
    except ValueError as error:
        raise ValueError("the result has a number that is NaN or infinite") from error


def append_line(file: Path, line: str) -> None:
    """Adds a line in a single write, so that an interruption leaves the whole line or none.

    Raises:
        OSError: If not all of it could be written, which is a full disk.
    """
    data = line.encode()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(handle)


def clear(folder: Path) -> None:
    """Removes what is left in the folder for unfinished files."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def lock(handle: int, folder: Path) -> None:
    """Takes the folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        OutputError: If another process has it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"Another run is writing to '{folder}'.", "Wait for it to end, or choose another --output."
        ) from error
