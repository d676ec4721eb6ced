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

__all__ = ["load_torch_file", "read_entries", "read_state"]

NO_TORCH_FILE = (AssertionError, AttributeError, EOFError, LookupError, MemoryError, OverflowError, RuntimeError,
                 TypeError, ValueError, struct.error, zipfile.BadZipFile)  # fmt: skip
"""What ``torch.load`` and ``zipfile`` raise on files that they did not write, found by giving them rubbish."""


def load_torch_file(path: str | Path) -> Any:
    """Reads a ``.pt``/``.pth``/``.ckpt`` file (or ``.safetensors``) on the CPU without running code from it.

    Returns:
        What the file holds: usually a dict of tensors, or a dict with one under ``"state_dict"``.

    Raises:
        CheckpointError: If the file is missing, damaged, a TorchScript archive, or holds pickled objects other than
            tensors and plain containers.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(f"Weights file '{file}' does not exist.", "Check the path; a folder is not a file.")
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    try:
        zipped = zipfile.is_zipfile(file)
        if zipped and is_torchscript(file):
            raise CheckpointError(
                f"'{file}' is a TorchScript archive, expected a file of tensors.",
                "Save its tensors: torch.save(torch.jit.load(FILE, 'cpu').state_dict(), 'weights.pt').",
            )
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
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
    while isinstance(content, Mapping):
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
