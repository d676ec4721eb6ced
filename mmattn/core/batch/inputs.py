"""What a run is asked to do: from INPUT arguments to its files and the names their results get.

An argument is a file, a folder (searched with its sub-folders), a glob, or ``@list.txt`` with one argument per line.
A result's name is the file's path below what was given: ``photos`` with ``photos/a/x.png`` gives ``a/x.png``, so files
of the same name in two sub-folders stay apart. When two arguments lead to the same name, all results of both get their
argument's own prefix, ``<folder name>-<checksum of its path>/``, whatever else is on the command line.
"""

from __future__ import annotations

import glob
import os
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from mmattn.errors import InputError
from mmattn.media.regular import check_regular, expanded, read_lines

__all__ = ["InferRequest", "InputItem", "expand_inputs"]


_MAX_LIST_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """One batch run.

    Attributes:
        system: Name of the system.
        inputs: INPUT arguments as typed: files, folders, globs, ``@list.txt``.
        output: Folder for the results; the current one for a run that has none.
        checkpoint: "embedded", a path, or ``hf:owner/name[/file][@revision]``.
        device: "auto", "cpu", "cuda", ...
        batch_size: Items per forward pass.
        workers: Threads that read ahead; 0 reads in the main thread.
        seed: Start of the random state.
        limit: Number of items after which the run stops; None is all.
        dry_run: List what would be done, load and write nothing.
        overwrite: Start the output folder over.
        fsync: Flush every result to the disk before it counts as done.
        options: The system's ``<Name>InferOptions``.
        overrides: Fields of ``<Name>Config`` that were set on the command line; all others stay as the checkpoint
            has them.
        live: Camera or stream to watch in the place of inputs, for systems that can; None otherwise.
        live_seconds: Seconds of it after which to stop; None goes on until it ends.
    """

    system: str
    inputs: Sequence[str]
    output: Path
    checkpoint: str = "embedded"
    device: str = "auto"
    batch_size: int = 1
    workers: int = 2
    seed: int = 0
    limit: int | None = None
    dry_run: bool = False
    overwrite: bool = False
    fsync: bool = True
    options: Any = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    live: str | None = None
    live_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} is {value}, expected a whole number of at least {least}.")

    def result_options(self) -> dict[str, Any]:
        """Returns the choices that results depend on, as plain JSON types: two runs into one folder must agree.

        Batch size, device and threads are left out, so that a run can be resumed elsewhere.
        """
        local = not self.checkpoint.startswith("hf:") and self.checkpoint != "embedded"
        checkpoint = str(Path(self.checkpoint).expanduser().absolute()) if local else self.checkpoint
        options = asdict(self.options) if is_dataclass(self.options) and not isinstance(self.options, type) else {}
        return {"checkpoint": checkpoint, "seed": self.seed, **options, **self.overrides}


@dataclass(frozen=True)
class InputItem:
    """One file of a run, or one part of a file for systems that take files apart.

    Attributes:
        path: Where it is, absolute.
        root: The folder its name is relative to, absolute.
        name: Name of its results, relative, with ``/``; unique in a run.
        part: Which part of the file it is, such as the number of a line; empty for the whole file.
        content: The part itself, already read; None leaves reading to the run.
    """

    path: Path
    root: Path
    name: str
    part: str = ""
    content: str | None = None

    @property
    def key(self) -> str:
        """What tells the item apart in a run's records: the path, and the part as in ``script.txt:12``."""
        return f"{self.path}:{self.part}" if self.part else str(self.path)

    def with_prefix(self) -> InputItem:
        """Returns the item under the name that also tells its root."""
        prefix = f"{root_prefix(self.root)}/"
        return self if self.name.startswith(prefix) else replace(self, name=prefix + self.name)


def root_prefix(root: Path) -> str:
    """Returns a short name of a folder that depends on nothing but its path.

    >>> root_prefix(Path("/data/photos"))
    'photos-fe1732e1'
    """
    return f"{root.name or 'root'}-{zlib.crc32(os.fsencode(root)):08x}"


def expand_inputs(
    arguments: Sequence[str | Path], *, suffixes: Collection[str], output: Path | None = None
) -> list[InputItem]:
    """Returns the files behind the INPUT arguments, each once, in a fixed order, with unique names.

    Hidden files and folders (``.x``) and the output folder are skipped when a folder or glob is searched; a file that
    is named itself is always taken.

    Args:
        arguments: Files, folders, globs and ``@list.txt``.
        suffixes: Accepted file name endings, lower case, with the dot.
        output: Output folder of the run.

    Raises:
        InputError: If there is no argument, or one is missing, empty, or leads to no accepted file.
    """
    if not arguments:
        raise InputError("No input was given.", "Pass files, folders, quoted globs or @list.txt.")
    accepted = frozenset(suffix.lower() for suffix in suffixes)
    skip = None if output is None else expanded(output).resolve()
    items: dict[Path, InputItem] = {}
    for argument in arguments:
        for item in expand_argument(str(argument), accepted, skip):
            items.setdefault(item.path, item)
    return separate_names(list(items.values()))


def expand_argument(argument: str, accepted: frozenset[str], skip: Path | None) -> Iterator[InputItem]:
    """Yields the files of one argument.

    Raises:
        InputError: If it does not exist, matches nothing, or is of no accepted type.
    """
    if "\0" in argument:
        raise InputError(f"Input {argument!r} holds a NUL character, which no file has in its name.")
    path = expanded(argument)
    try:
        is_there = path.exists()
    except OSError as error:  # a name that is too long
        raise InputError(f"Input '{argument[:200]}' cannot be read: {error.strerror}.") from error
    if argument.startswith("@") and not is_there:
        yield from expand_list(expanded(argument[1:]), accepted, skip)
    elif path.is_dir():
        yield from expand_folder(path, accepted, skip)
    elif is_there:
        check_type(path, accepted)
        check_regular(path, error=InputError)
        yield as_item(path, path.parent)
    elif glob.has_magic(argument):
        yield from expand_glob(argument, accepted, skip)
    else:
        raise InputError(f"Input '{argument}' does not exist.", f"The current folder is '{Path.cwd()}'.")


def expand_folder(folder: Path, accepted: frozenset[str], skip: Path | None) -> list[InputItem]:
    """Returns the accepted files below ``folder``.

    Raises:
        InputError: If there is none; the message tells an empty folder from one with other files.
    """
    if folder.resolve() == skip:
        raise InputError(f"'{folder}' is both input and output.", "Choose another folder for --output.")
    files = list(walk(folder, skip))
    if not files:
        raise InputError(f"Folder '{folder}' has no files in it.", "Hidden files are not looked at.")
    found = [as_item(file, folder) for file in files if file.suffix.lower() in accepted]
    if not found:
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        raise InputError(f"Folder '{folder}' has {count} in it, none of an accepted type.", accepted_hint(accepted))
    return found


def expand_glob(pattern: str, accepted: frozenset[str], skip: Path | None) -> list[InputItem]:
    """Returns the accepted files that a pattern matches, folders it matches included.

    Names are relative to the part of the pattern before its first wildcard.

    Raises:
        InputError: If it matches no file, or none of an accepted type.
    """
    matches = sorted(Path(match) for match in glob.glob(os.path.expanduser(pattern), recursive=True))  # noqa: PTH207, PTH111 - patterns may be absolute
    if not matches:
        raise InputError(f"Pattern '{pattern}' matches no file.", f"The current folder is '{Path.cwd()}'.")
    parts = expanded(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    found = []
    for match in matches:
        files = walk(match, skip) if match.is_dir() else [match]
        found += [as_item(file, root) for file in files if file.suffix.lower() in accepted and not inside(file, skip)]
    if not found:
        raise InputError(f"Pattern '{pattern}' matches no file of an accepted type.", accepted_hint(accepted))
    return found


def expand_list(file: Path, accepted: frozenset[str], skip: Path | None) -> Iterator[InputItem]:
    """Yields the files of a list: one argument per line, relative to the current folder; ``#`` starts a comment line.

    A relative path keeps its folders in the name.

    Raises:
        InputError: If it cannot be read, names nothing or another list, or a line leads nowhere; the message has its
            number.
    """
    try:
        lines = read_lines(file, _MAX_LIST_BYTES, error=InputError)
    except InputError as error:
        raise InputError(f"List file '{file}' cannot be read: {error.message}", "Pass @PATH of a text file.") from error
    entries = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()[:1] not in ("", "#")]
    if not entries:
        raise InputError(f"List file '{file}' names no input.", "Pass one path per line.")
    for number, entry in entries:
        if entry.startswith("@") and not Path(entry).exists():
            raise InputError(f"List file '{file}', line {number}: a list cannot name another list ({entry}).")
        try:
            for item in expand_argument(entry, accepted, skip):
                yield keep_folders(item, entry)
        except InputError as error:
            raise InputError(f"List file '{file}', line {number}: {error.message}", error.hint) from error


def keep_folders(item: InputItem, entry: str) -> InputItem:
    """Makes the name of a listed file relative to the current folder when it was written that way."""
    here = Path.cwd()
    if Path(entry).is_absolute() or ".." in Path(entry).parts or not item.path.is_relative_to(here):
        return item
    return as_item(item.path, here)


def walk(folder: Path, skip: Path | None) -> Iterator[Path]:
    """Yields all visible files below ``folder``, sorted folder by folder, leaving out the folder ``skip``."""

    def stop(error: OSError) -> None:
        raise InputError(f"Folder '{error.filename}' cannot be read: {error.strerror}.") from error

    for directory, folders, files in os.walk(folder, onerror=stop):
        here = Path(directory)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and (here / f).resolve() != skip)
        yield from (here / file for file in sorted(files) if not file.startswith("."))


def separate_names(items: list[InputItem]) -> list[InputItem]:
    """Gives all items of roots that share a name their root's prefix."""
    roots_of = defaultdict(set)
    for item in items:
        roots_of[item.name].add(item.root)
    clashing = {root for roots in roots_of.values() if len(roots) > 1 for root in roots}
    return [item.with_prefix() if item.root in clashing else item for item in items]


def as_item(path: Path, root: Path) -> InputItem:
    """Makes both paths absolute and the name relative to the root."""
    path, root = Path(os.path.abspath(path)), Path(os.path.abspath(root))  # noqa: PTH100 - must not follow links
    return InputItem(path, root, path.relative_to(root).as_posix())


def check_type(path: Path, accepted: frozenset[str]) -> None:
    """Checks that the ending of ``path`` is accepted.

    Raises:
        InputError: If it is not.
    """
    if path.suffix.lower() not in accepted:
        raise InputError(
            f"Input '{path}' is not of an accepted type.",
            f"{accepted_hint(accepted)} A folder or quoted glob skips other files.",
        )


def accepted_hint(accepted: frozenset[str]) -> str:
    """Returns the sentence that lists the accepted endings."""
    return f"Accepted: {' '.join(sorted(accepted))}."


def inside(path: Path, folder: Path | None) -> bool:
    """Tells whether ``path`` lies in ``folder``."""
    return folder is not None and path.resolve().is_relative_to(folder)
