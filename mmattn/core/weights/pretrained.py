"""Weights of other people's networks: a local file, the cache of their library, or their server, in that order.

Whatever is not there is said once, with the address it comes from and the option that takes a local copy. With
``HF_HUB_OFFLINE`` set no server is asked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torch import Tensor, nn

from mmattn.core.weights.checkpoint import check_keys, load_torch_file
from mmattn.errors import CheckpointError, MissingExtraError, WeightsUnavailableError

__all__ = ["import_torchvision", "load_state", "load_torchvision", "missing_weights", "read_state"]


def import_torchvision() -> Any:
    """Returns the module ``torchvision``.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import torchvision
    except ImportError as error:
        raise MissingExtraError("torchvision", "video", "The released perception") from error
    return torchvision


def load_torchvision(
    network: nn.Module, name: str, weights: str, *, option: str, ignored: tuple[str, ...] = ()
) -> None:
    """Loads the weights of a torchvision model.

    Args:
        network: Built under ``name``, or a part of it.
        name: Torchvision's name of the model.
        weights: The path of a file, or torchvision's name for the weights.
        option: Name of the setting that takes a path, for messages.
        ignored: Beginnings of names in the file that are left out.

    Raises:
        WeightsUnavailableError: If the weights are neither a file, nor cached, nor reachable.
        CheckpointError: If the file does not fit.
    """
    file = Path(weights).expanduser()
    if not file.is_file():
        file = _torchvision_file(name, weights, option)
    load_state(network, read_state(file), what=f"'{file}'", ignored=ignored)


def read_state(file: Path) -> dict[str, Tensor]:
    """Returns the named tensors of a file, also where they are one level down or prefixed by ``module.``.

    Raises:
        CheckpointError: If the file is missing, damaged or holds something else.
    """
    state: Any = load_torch_file(file)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"'{file}' holds no weights: expected a table of named tensors.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_state(network: nn.Module, state: dict[str, Tensor], *, what: str, ignored: tuple[str, ...] = ()) -> None:
    """Loads named tensors that must fit exactly.

    Args:
        network: What is loaded.
        state: The tensors.
        what: Where they come from, for messages.
        ignored: Beginnings of names that are left out, those of a classifier that was not built.

    Raises:
        CheckpointError: If names or shapes differ.
    """
    state = {name: value for name, value in state.items() if not name.startswith(ignored)}
    own = network.state_dict()
    misfits = [name for name, value in state.items() if name in own and own[name].shape != value.shape]
    if misfits:
        name = misfits[0]
        raise CheckpointError(
            f"{what} belongs to another network: {name} is {tuple(state[name].shape)} there, expected "
            f"{tuple(own[name].shape)} ({len(misfits)} tensors differ in shape)."
        )
    # Old files have no counters of batches; nothing at inference reads them.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    check_keys(missing, [name for name in state if name not in own], what=what)
    network.load_state_dict(state, strict=False)


def missing_weights(name: str, origin: str, *, option: str) -> WeightsUnavailableError:
    """Returns the error for weights that are not here and cannot be fetched.

    Args:
        name: What they are of.
        origin: Address they come from.
        option: Name of the setting that takes a path.
    """
    return WeightsUnavailableError(
        f"The weights {name} are not on this machine and could not be fetched from {origin}.",
        f"With a network they are downloaded once; otherwise copy the file from there and pass its path ({option} in "
        "perception_options).",
    )


def _torchvision_file(name: str, weights: str, option: str) -> Path:
    """Returns the cached file of named weights, fetching it if that is possible."""
    known = {entry.name: entry.url for entry in import_torchvision().models.get_model_weights(name)}
    if weights not in known:
        raise WeightsUnavailableError(
            f"Weights {weights!r} are neither a file nor weights torchvision has for {name} (it has: "
            f"{', '.join(known)}).",
            f"Pass the path of a .pth or .safetensors file ({option} in perception_options).",
        )
    url = known[weights]
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.is_file():
        return file
    if constants.HF_HUB_OFFLINE:
        raise missing_weights(f"{name} ({weights})", url, option=option)
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = re.search(r"-([0-9a-f]{8,})\.", file.name)
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digest[1] if digest else None)
    except (OSError, RuntimeError) as error:
        raise missing_weights(f"{name} ({weights})", url, option=option) from error
    return file
