"""Files of tensors that other programs wrote, read without running code from them."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from mmattn.core.weights.checkpoint import read_safetensors
from mmattn.errors import CheckpointError
from mmattn.media.pickle_bounds import BoundsError, check_bounds
from mmattn.media.regular import check_regular, expanded

__all__ = ["load_torch_file", "read_entries", "read_state"]

NO_TORCH_FILE = (AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError,
                 RuntimeError, TypeError, ValueError, struct.error, zipfile.BadZipFile)  # fmt: skip
"""What ``torch.load`` and ``zipfile`` raise on files that they did not write, found by giving them rubbish."""

_MAX_PICKLE_BYTES = 1 << 27
_MAX_LEVELS = 8
# Before its tensors, the format from before 2020 has these: magic number, version, system, content, names of storages.
_OLD_PICKLES = 5


def load_torch_file(path: str | Path) -> Any:
    """Reads a ``.pt``/``.pth``/``.ckpt`` file (or ``.safetensors``) on the CPU without running code from it.

    Returns:
        What the file holds: usually a dict of tensors, or a dict with one under ``"state_dict"``.

    Raises:
        CheckpointError: If the file is missing, damaged, a TorchScript archive, or holds pickled objects other than
            tensors and plain containers, or more of them than :mod:`mmattn.media.pickle_bounds` allows.
    """
    file = expanded(path)
    try:
        check_regular(file, error=CheckpointError)
    except CheckpointError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise CheckpointError(f"Weights file '{file}' does not exist.", "Check the path.") from error
        raise
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    try:
        zipped = zipfile.is_zipfile(file)
        if zipped and is_torchscript(file):
            raise CheckpointError(
                f"'{file}' is a TorchScript archive, expected a file of tensors.",
                "Save its tensors: torch.save(torch.jit.load(FILE, 'cpu').state_dict(), 'weights.pt').",
            )
        check_pickles(file, zipped=zipped)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except BoundsError as error:
        raise CheckpointError(f"'{file}' was refused: {error}.", "It may have been made to do harm.") from error
    except UnpicklingError as error:
        if "global" not in str(error).lower():
            raise unreadable(file) from error
        raise CheckpointError(
            f"'{file}' holds pickled objects, not only tensors; reading them could run code, so it was refused.",
            "In the project it came from, save the tensors alone: torch.save(model.state_dict(), 'weights.pt').",
        ) from error
    except NO_TORCH_FILE as error:
        raise unreadable(file) from error


def read_entries(path: str | Path) -> dict[str, Any]:
    """Returns what a file holds by name, also where it stands a level down, under "state_dict" or "model".

    Raises:
        CheckpointError: As :func:`load_torch_file`. A file without a table gives an empty one.
    """
    content: Any = load_torch_file(path)
    for _ in range(_MAX_LEVELS):  # a table may stand in itself
        if not isinstance(content, Mapping):
            break
        inner = [content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)]
        if not inner:
            return {str(name): value for name, value in content.items()}
        content = inner[0]
    return {}


def read_state(path: str | Path, *, what: str = "weights") -> dict[str, Tensor]:
    """Returns the tensors of :func:`read_entries`, their names without a leading ``module.``.

    Args:
        path: The file.
        what: What it should hold, for the message.

    Raises:
        CheckpointError: If the file is missing, damaged or holds something else.
    """
    state = read_entries(path)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"'{path}' holds no {what}: expected a table of named tensors.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def check_pickles(file: Path, *, zipped: bool) -> None:
    """Checks the pickles of a file before torch reads them.

    Raises:
        BoundsError: If they are out of bounds, or parts of the file are compressed, which torch never does.
        ValueError: If there is no pickle where one is expected.
        UnpicklingError: If a pickle is damaged.
    """
    if not zipped:
        with file.open("rb") as old:
            for _ in range(_OLD_PICKLES):
                check_bounds(old)
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise BoundsError("it is compressed, so its size in memory is not known")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                if entry.file_size > _MAX_PICKLE_BYTES:
                    raise BoundsError(f"its pickle has {entry.file_size:,} bytes")
                check_bounds(archive.read(entry))


def is_torchscript(file: Path) -> bool:
    """Tells a TorchScript archive, which carries code, from a zip of tensors."""
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def unreadable(file: Path) -> CheckpointError:
    """Returns the error for a file that torch cannot load.

    Its own reason is left out: on rubbish it names the byte it stumbled over, or advises to run code from the file.
    """
    return CheckpointError(
        f"'{file}' is damaged or no weights file: torch.save did not write it, or not to its end.",
        "Download or copy it again.",
    )
