"""Checkpoints of the published code turned into ours, and our tensors under the published names.

Petrichor625/CRASH writes ``{"epoch", "model", "optimizer"}``; bare state dicts, names that begin with ``module.`` and
Lightning checkpoints are read too. Sizes are read off the shapes. What the weights do not say - which dataset and so
which frame rate, the number of boxes, the heads - comes from the caller or from the path. DSTA's checkpoints have the
same outer layout and are accepted as well. Which tensor becomes which is written in :mod:`.names`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.core.weights.loading import check_names
from mmattn.core.weights.torch_file import read_entries
from mmattn.errors import CheckpointError, InputError
from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.model import build_model
from mmattn.video.crash.network.heads import positional_encoding
from mmattn.video.crash.weights.names import DSTA_ATTENTION, joins, regroup

__all__ = ["DATASETS", "convert", "from_published", "read_published", "to_published"]

Dataset = Literal["dad", "ccd", "a3d"]

DATASETS: dict[str, dict[str, Any]] = {
    # DAD's own features cannot be made from a video, see the README.
    "dad": {"fps": 20.0, "num_frames": 100, "temporal_window": 10, "perception": "none"},
    "ccd": {"fps": 10.0, "num_frames": 50, "temporal_window": 5, "perception": "released"},
    "a3d": {"fps": 20.0, "num_frames": 100, "temporal_window": 10, "perception": "released"},
}
"""What a checkpoint trained on a dataset implies."""

_IN_PATH = {"dad": "dad", "ccd": "ccd", "crash1500": "ccd", "crash-1500": "ccd", "a3d": "a3d"}
_PREFIX = re.compile(r"^(?:module\.|model\.)+")
_UNUSED = re.compile(r"RSD\.layer\d+\.\d+\.fc\.(weight|bias)|sp_attention\.wk\.bias")
_POSITIONS = "self_aggregation.pos_encoder.pos_encoding"
_AUXILIARY = ("self_aggregation.", "predictor_aux.")


def convert(
    path: str | Path,
    output: str | Path,
    *,
    dataset: Dataset | None = None,
    base: CrashConfig | None = None,
) -> Path:
    """Writes the checkpoint folder of a published file and returns its path.

    Args:
        path: A ``.pth`` or ``.ckpt`` file.
        output: Folder to write.
        dataset: What the weights were trained on, which sets the frame rate; None reads it off the file's path.
        base: Config whose fields that no tensor shows (frame rate, boxes, heads, perception) are taken, in the place
            of ``dataset``.

    Raises:
        CheckpointError: If the file is damaged, holds pickled objects or numbers that are not finite, belongs to
            another system, or its tensors contradict each other.
        InputError: If the dataset is unknown or cannot be told.
    """
    file = Path(path).expanduser()
    published = read_published(file)
    if base is None:
        base = replace(CrashConfig(), **DATASETS[_dataset_of(file, dataset)])
    config, tensors = from_published(published, base, what=f"'{file}'")
    untrained = config.architecture == "dsta" and not any(name.startswith(DSTA_ATTENTION) for name in published)
    card = _card(config, file, untrained=untrained)
    return save_checkpoint(output, tensors, system="crash", config=config.to_dict(), card=card)


def read_published(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a published file by their names, prefixes and empty tensors removed.

    Raises:
        CheckpointError: As :func:`convert`.
    """
    named = read_entries(file)
    tensors = {_PREFIX.sub("", name): value for name, value in named.items() if isinstance(value, Tensor)}
    if "phi_x.0.weight" not in tensors or not ({"RSD.weights1", "frame_aggregation.weight"} & set(tensors)):
        found = ", ".join(sorted(named)[:4]) or "no table of tensors"
        raise CheckpointError(
            f"'{file}' is no CRASH checkpoint: expected phi_x.0.weight and RSD.weights1, found {found}.",
            "UString's checkpoints are not supported." if any("graph_layers" in name for name in tensors) else "",
        )
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(
                f"'{file}' has numbers in {name} that are not finite; its training diverged.", "Use an earlier epoch."
            )
    return {name: value for name, value in tensors.items() if value.numel() > 0}


def from_published(
    published: Mapping[str, Tensor], base: CrashConfig, *, what: str = "The checkpoint"
) -> tuple[CrashConfig, dict[str, Tensor]]:
    """Returns the config and our tensors of published ones.

    Args:
        published: Tensors by their published names.
        base: Fields that no tensor shows.
        what: Subject of error messages.

    Raises:
        CheckpointError: If names are missing or unknown, or sizes contradict each other.
    """
    state = {name: value for name, value in published.items() if value.numel() and not _UNUSED.fullmatch(name)}
    config = _with_sizes(base, state, what)
    _check_positions(state.pop(_POSITIONS, None), what)
    if not config.use_aux:
        # One of the branch's two parts is of no use without the other.
        state = {name: value for name, value in state.items() if not name.startswith(_AUXILIARY)}
    expected = {name: value.shape for name, value in build_model(config).state_dict().items()}
    if config.architecture == "dsta" and not any(name.startswith(DSTA_ATTENTION) for name in state):
        state |= _unregistered(config)
    table = joins(config)
    names = {name for join in table for name in join.published}
    check_names(state, names, what=what)
    tensors: dict[str, Tensor] = {}
    if config.architecture == "dsta":
        tensors |= {"rho_1": torch.ones(()), "rho_2": torch.ones(())}  # its loss has no such weights
    for join in table:
        own = [expected[name] for name in join.ours]
        try:
            parts = regroup([state[name].float() for name in join.published], len(own), join.axis)
            fits = [part.shape for part in parts] == own
        except RuntimeError:
            fits = False
        if not fits:
            found = ", ".join(f"{name} {tuple(state[name].shape)}" for name in join.published)
            raise CheckpointError(
                f"{what} has {found}, which does not fit hidden width {config.hidden_dim} and feature width "
                f"{config.feature_dim}."
            )
        tensors |= zip(join.ours, parts, strict=True)
    return config, tensors


def to_published(tensors: Mapping[str, Tensor], config: CrashConfig) -> dict[str, Tensor]:
    """Returns our tensors under the published names, for ``load_state_dict(..., strict=False)`` there.

    Raises:
        InputError: If the published code has no such architecture.
    """
    published: dict[str, Tensor] = {}
    for join in joins(config):
        parts = regroup([tensors[name] for name in join.ours], len(join.published), join.axis)
        published |= zip(join.published, parts, strict=True)
    return published


def _with_sizes(base: CrashConfig, state: Mapping[str, Tensor], what: str) -> CrashConfig:
    """Returns the config with the sizes the tensors show."""
    found: dict[str, Any] = {
        "num_layers": sum(bool(re.fullmatch(r"gru_net\.gru\.weight_hh_l\d+", name)) for name in state),
        "use_aux": all(any(name.startswith(part) and name != _POSITIONS for name in state) for part in _AUXILIARY),
    }
    try:
        found["hidden_dim"], found["feature_dim"] = state["phi_x.0.weight"].shape
        if "gru_net.dense1.weight" in state:
            found["classifier_dim"] = len(state["gru_net.dense1.weight"])
        found |= _crash_sizes(state) if "RSD.weights1" in state else _dsta_sizes(state)
        return replace(base, **found)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{what} has sizes that contradict each other: {error}") from error


def _crash_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "architecture": "crash",
        "tfa_layers": len(state["RSD.weights1"]) - 1,
        "tfa_output": "softmax",
        "channel_attention": "upstream",
    }
    if "fftblock.complex_weight" in state:
        rows, columns, *_ = state["fftblock.complex_weight"].shape
        # Half of a spectrum does not say whether the plane's side was even; the published planes are.
        found["grid"] = (rows, 2 * (columns - 1))
    squeeze = state.get("fftblock.channel_attention.fc1.weight")
    if squeeze is not None:
        found |= {"channel_attention": "bottleneck", "channel_reduction": 6 // len(squeeze)}
    return found


def _dsta_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    weights = state.get("self_aggregation.weight")
    return {"architecture": "dsta"} | ({} if weights is None else {"num_frames": len(weights)})


def _unregistered(config: CrashConfig) -> dict[str, Tensor]:
    """Draws the tensors a DSTA checkpoint lacks, as the published code does at every start, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    dim = config.hidden_dim
    return {
        f"{DSTA_ATTENTION}wa": 0.01 * torch.randn(dim, dim, generator=generator),
        f"{DSTA_ATTENTION}ua": 0.01 * torch.randn(dim, dim, generator=generator),
        f"{DSTA_ATTENTION}ba": torch.zeros(dim),
        f"{DSTA_ATTENTION}w": 0.5 * torch.randn(dim, 1, generator=generator),
    }


def _check_positions(table: Tensor | None, what: str) -> None:
    """Compares a stored table of positions with the formula that replaces it."""
    if table is None:
        return
    own = positional_encoding(table.shape[-2], table.shape[-1])
    if table.shape[0] != 1 or not torch.allclose(table[0].float(), own, atol=1e-3):
        raise CheckpointError(f"{what} has a table of positions other than the usual sines and cosines.")


def _dataset_of(file: Path, dataset: str | None) -> str:
    if dataset in DATASETS:
        return dataset
    if dataset is not None:
        raise InputError(f"dataset is {dataset!r}, expected one of {', '.join(DATASETS)}.")
    for part in (file.name, *(parent.name for parent in list(file.absolute().parents)[:3])):
        words = re.split(r"[^a-z0-9-]+", part.lower())
        found = next((_IN_PATH[word] for word in words if word in _IN_PATH), None)
        if found is not None:
            return found
    raise InputError(
        f"The path '{file}' does not say what the weights were trained on.",
        "Pass --dataset dad, --dataset ccd or --dataset a3d; it sets the frame rate.",
    )


def _card(config: CrashConfig, file: Path, *, untrained: bool) -> str:
    name = "CRASH" if config.architecture == "crash" else "DSTA"
    paper, code = (
        ("2407.17757", "Petrichor625/CRASH") if config.architecture == "crash" else ("2106.10197", "monjurulkarim/DSTA")
    )
    note = ""
    if untrained:
        note = (
            "\nThe published code neither trains nor saves DSTA's attention over boxes. Here it is filled with random"
            "\nnumbers of seed 0, so scores differ from those published.\n"
        )
    return f"""---
library_name: mmattn
tags: [accident-anticipation, video]
---
# {name}, converted from `{file.name}`

Weights of {name} (arXiv {paper}) in the layout of {code}, converted by mmattn without change of values. They expect
features of width {config.feature_dim} at {config.fps:g} frames per second.
{note}
Advisory only: a risk score is no basis for driving a vehicle. Check it on footage of your own.
"""
