"""What is computed once and read often: tensors in files, made where they are missing.

A file appears whole or not at all and is named by what it is of, in a folder named by what made it. So an interrupted
run goes on where it stopped, nothing old is met by something new, and deleting a folder is always safe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from mmattn.errors import InputError
from mmattn.media.files import atomic_path
from mmattn.media.paths import contained

__all__ = ["FeatureStore", "Rows", "fill", "fingerprint"]

Source = TypeVar("Source")
Rows = Mapping[str, Tensor]
"""What is kept of one source: tensors by name."""


def fingerprint(settings: Any, tensors: Mapping[str, Tensor] | None = None) -> str:
    """Returns a name of 32 hex digits for everything that shapes features.

    Args:
        settings: Plain JSON, whatever the order of its keys, or a text.
        tensors: Weights, in an order that is always the same.

    >>> fingerprint({"fps": 10, "detector": "none"}) == fingerprint({"detector": "none", "fps": 10})
    True
    """
    text = settings if isinstance(settings, str) else json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    for name, tensor in (tensors or {}).items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


class FeatureStore:
    """Tensors of many sources, a safetensors file for each.

    Args:
        folder: Made when something is written.
        fingerprint: Names a folder in it, see :func:`fingerprint`; "" takes the folder itself.
    """

    def __init__(self, folder: str | Path, fingerprint: str = "") -> None:
        self.folder = Path(folder).expanduser() / fingerprint

    def file(self, key: str) -> Path:
        """Returns the file of a source, whether it exists or not; slashes in a key make sub-folders.

        Raises:
            InputError: If the key would leave the folder.
        """
        return contained(f"{key}.safetensors", self.folder, links_may_leave=True)

    def has(self, key: str) -> bool:
        """Whether the source's tensors are there."""
        return self.file(key).is_file()

    def put(self, key: str, rows: Rows) -> None:
        """Keeps the tensors of one source.

        Raises:
            InputError: If the key or a link in the folder leads out of it.
            MediaError: If the folder cannot be written or the disk is full.
        """
        with atomic_path(contained(self.file(key).relative_to(self.folder), self.folder)) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in rows.items()}, temporary)

    def get(self, key: str, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Reads the tensors of one source, only those of some names if they are given.

        Raises:
            InputError: If its file is missing or damaged, or has no tensor of a name.
        """
        file = self.file(key)
        try:
            with safe_open(file, framework="pt") as stored:
                return {name: stored.get_tensor(name) for name in names or stored.keys()}
        except FileNotFoundError as error:
            raise InputError(f"The features of '{key}' are missing ('{file}').", "Run again; they are made.") from error
        except SafetensorError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(
                f"'{file}' is damaged or incomplete: {reason}.", "Delete that file and run again; it is made anew."
            ) from error

    def flush(self) -> None:
        """Writes what is not yet in a file, in stores that put many sources into one."""


def fill(
    store: FeatureStore,
    wanted: Mapping[str, Source],
    make: Callable[[dict[str, Source]], Iterable[tuple[str, Rows | None]]],
    *,
    what: str,
    unit: str,
) -> int:
    """Has made what a store lacks, with a progress bar in a terminal; an interruption loses nothing that is done.

    Args:
        store: Where it goes.
        wanted: Sources by their keys.
        make: Takes those that are missing, in their order, and yields the key and tensors of each, None if it failed.
        what: Shown beside the bar.
        unit: What a source is.

    Returns:
        How many were missing.

    Raises:
        MediaError: If the store cannot be written.
    """
    missing = {key: source for key, source in wanted.items() if not store.has(key)}
    if not missing:
        return 0
    try:
        for key, rows in tqdm(make(missing), what, len(missing), unit=unit, disable=None):
            if rows is not None:
                store.put(key, rows)
    finally:
        store.flush()
    return len(missing)
