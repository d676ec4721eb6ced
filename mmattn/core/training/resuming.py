"""What makes resumed training equal training that nothing stopped: the next batch, its random numbers, whole files.

Lightning restores weights, optimisers, schedulers and counters. It leaves to the loader to go on in the middle of an
epoch, keeps no random state, and writes checkpoints without flushing them. Here order and random numbers are functions
of seed, epoch and number of the batch, so nothing has to be stored and nothing depends on where the run was stopped.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sized
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Sampler

from mmattn.core.seeding import seed_everything
from mmattn.media.files import write_bytes

__all__ = ["AtomicCheckpoints", "RepeatableLoader", "Rest"]

GLOBAL_SEED = "PL_GLOBAL_SEED"
"""Environment variable in which Lightning keeps the run's seed; without it nobody asked for one."""


class Rest(Sampler[Any]):
    """What another sampler gives, without its beginning.

    Args:
        order: The sampler; if it has epochs, it is told them.

    >>> rest = Rest([5, 6, 7])
    >>> rest.first = 2
    >>> list(rest), len(rest)
    ([7], 3)
    """

    def __init__(self, order: Any) -> None:
        self.order = order
        self.first = 0

    def set_epoch(self, epoch: int) -> None:
        """Tells the sampler the epoch; Lightning calls it at the start of each."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.order), self.first, None)

    def __len__(self) -> int:
        return len(cast(Sized, self.order))


class RepeatableLoader(DataLoader[Any]):
    """Loader whose batch ``n`` of an epoch is the same whether or not the batches before it were loaded.

    Each batch is loaded and trained on with random numbers of its own, if the run has a seed. What loading processes
    draw from their global generators is not among them; datasets that draw take the number of the item as a seed.

    Attributes:
        trainer: Knows the epoch, and after a resumption the batch to begin with; None begins with the first.
    """

    trainer: Trainer | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: with loading processes torch's own would ask for the order before Lightning tells the epoch.
        epoch, first = (0, 0) if self.trainer is None else position(self.trainer)
        if isinstance(self.sampler, Rest):
            self.sampler.first = first * (self.batch_size or 1)
        batches = super().__iter__()  # before the first seed, since it draws one for loading processes
        for number in count(first):
            if GLOBAL_SEED in os.environ:
                seed_everything(int(os.environ[GLOBAL_SEED]), [str(epoch), str(number)])
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: the trainer knows all that is needed. Having it, Lightning lets the loader go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints on this machine whole, flushed to the disk; others as Lightning does."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes one checkpoint.

        Raises:
            MediaError: If it cannot be written; an older one of that name is kept.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        stream = io.BytesIO()
        torch.save(checkpoint, stream)
        write_bytes(Path(path), stream.getbuffer())


def position(trainer: Trainer) -> tuple[int, int]:
    """Returns the epoch at work and the number of its batches that a resumed run has trained on before."""
    loop = trainer.fit_loop
    return trainer.current_epoch, loop.epoch_loop.batch_progress.current.ready if loop.restarted_mid_epoch else 0
