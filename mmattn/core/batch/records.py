"""The lines of ``results.jsonl`` and ``errors.jsonl``: one JSON record per item, and what a record says of its files.

A record is written by a single system call, so a crash leaves the whole line or a torn one, which does not parse and is
dropped. It holds size and SHA-256 of every output, so a file that was cut short, emptied by a power loss or changed by
hand is told from the one that was written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmattn.errors import InputError
from mmattn.media.files import flush_file, flush_folder
from mmattn.media.paths import contained

__all__ = ["append_line", "as_line", "content_of", "has_outputs", "output_paths", "read_records"]


def read_records(file: Path) -> list[dict[str, Any]]:
    """Returns the records of a JSON-lines file, the last one per input; lines that do not parse are left out."""
    records: dict[str, dict[str, Any]] = {}
    if not file.exists():
        return []
    for line in file.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
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
    """Adds a line in a single write, so that an interruption leaves the whole line or none, and flushes it to disk.

    Raises:
        OSError: If not all of it could be written, which is a full disk, or the file is a link.
    """
    data = line.encode()
    is_new = not file.exists()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(handle)
    flush_file(file)
    if is_new:
        flush_folder(file.parent)


def content_of(file: Path) -> dict[str, Any]:
    """Returns what a record says of a file: its size in bytes and its SHA-256.

    Raises:
        OSError: If it cannot be read.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return {"bytes": stream.tell(), "sha256": digest.hexdigest()}


def output_paths(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Returns where the outputs of a record lie.

    Raises:
        InputError: If the record lists no outputs, or one that would lie outside of the folder.
    """
    outputs = record.get("outputs")
    if not isinstance(outputs, list) or not all(isinstance(output, str) for output in outputs):
        raise InputError(f"The record of '{record.get('input')}' lists no outputs.")
    return [contained(output, folder) for output in outputs]


def has_outputs(record: Mapping[str, Any], folder: Path) -> bool:
    """Tells whether all files of a result are there as they were written.

    Records of versions that noted no contents are believed where their files exist.
    """
    try:
        paths = output_paths(record, folder)
    except InputError:
        return False
    contents = record.get("contents", {})
    if not isinstance(contents, dict):
        return False
    return all(
        is_as_written(path, contents.get(output) if contents else None)
        for path, output in zip(paths, record["outputs"], strict=True)
    ) and set(contents) <= set(record["outputs"])


def is_as_written(file: Path, content: Any) -> bool:
    """Tells whether a file is there and holds what its record says; None knows of no content."""
    try:
        if not file.is_file():
            return False
        return content is None or (file.stat().st_size == content["bytes"] and content_of(file) == content)
    except (OSError, KeyError, TypeError):
        return False
