"""The base of every training task: what a LightningModule of this project does the same way everywhere.

A task saves its constructor arguments as plain values, builds its parts in a fixed order, and keeps frozen weights out
of its checkpoints: they are re-created by name (a pretrained CLIP) or from ``initial_checkpoint``, so a checkpoint of
43,008 trained numbers stays a small file. The command line of :mod:`mmattn.core.training.lightning_cli` accepts any
subclass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

from mmattn.core.weights.loading import check_fit

__all__ = ["BaseTask", "frozen_keys", "to_plain"]


class BaseTask(LightningModule):
    """LightningModule whose subclasses fill in three hooks, called in this order when it is built.

    ``configure_models`` makes the networks, ``configure_losses`` the objectives, ``configure_metrics`` the measures.
    A subclass stores its arguments as plain attributes first and calls ``super().__init__()`` last, so that the hooks
    can read them:

    >>> class Mean(BaseTask):
    ...     def __init__(self, width: int = 2) -> None:
    ...         self.width = width
    ...         super().__init__()
    ...     def configure_models(self) -> None:
    ...         self.layer = nn.Linear(self.width, 1)
    >>> task = Mean(width=3)
    >>> task.hparams["width"], task.layer.in_features
    (3, 3)
    """

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._save_plain_hyperparameters()
        self.configure_models()
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self) -> None:
        """Builds the networks."""

    def configure_losses(self) -> None:
        """Builds the objectives."""

    def configure_metrics(self) -> None:
        """Builds the measures; one instance per stage."""

    def _save_plain_hyperparameters(self) -> None:
        """Replaces the saved arguments by their plain form, and says how to build the task from them again.

        torch loads checkpoints with ``weights_only=True``, which refuses paths, enums and dataclasses. With the
        instantiator that LightningCLI itself writes, ``load_from_checkpoint`` parses them back to their types, no
        matter whether the task was built by the command line or in Python.
        """
        values = {name: to_plain(value) for name, value in self.hparams.items()}
        values.setdefault("_class_path", f"{type(self).__module__}.{type(self).__qualname__}")
        values.setdefault("_instantiator", "lightning.pytorch.cli.instantiate_module")
        self.hparams.clear()
        self.save_hyperparameters(values)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drops frozen weights from the checkpoint."""
        frozen = frozen_keys(self)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks the tensors of a checkpoint and completes them with the frozen weights this task already holds.

        Raises:
            CheckpointError: If a trained tensor is missing, unknown, or of another shape.
        """
        own = self.state_dict()
        frozen = frozen_keys(self)
        hint = "Use the configuration it was trained with (config.yaml in its run folder)."
        check_fit(checkpoint["state_dict"], own, optional=frozen, hint=hint)
        checkpoint["state_dict"] = {k: own[k] for k in frozen} | checkpoint["state_dict"]


def frozen_keys(module: nn.Module) -> set[str]:
    """Returns the state-dict keys that training never changes.

    These are the parameters without gradients, and the buffers of every part all of whose parameters are frozen (the
    running statistics of a frozen batch norm). A buffer outside such a part counts as trained.

    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.requires_grad_(False)
    >>> frozen_keys(layer)
    {'weight'}
    """
    keys = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    for prefix, part in module.named_modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            keys.update(f"{prefix}.{name}".lstrip(".") for name in part.state_dict())
    return keys & set(module.state_dict())


def to_plain(value: Any) -> Any:
    """Returns ``value`` as str, int, float, bool, None, list and dict, as YAML would hold it.

    >>> to_plain({"root": Path("data"), "size": (2, 3)})
    {'root': 'data', 'size': [2, 3]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [to_plain(v) for v in value]
    return value
