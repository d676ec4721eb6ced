"""The base of every data module: one way to make loaders, and errors that say what to configure.

A subclass names its splits by returning datasets; everything about loading (batch size, workers, seed) is here. The
loaders start their workers by *spawn*: a forked worker inherits locks and thread pools of torch and OpenCV in whatever
state they are, which deadlocks at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Dataset, Sampler

from mmattn.core.training.resuming import RepeatableLoader, Rest
from mmattn.errors import InputError

__all__ = ["BaseDataModule", "EpochShuffle"]

Items = Dataset[Any]


class BaseDataModule(LightningDataModule):
    """Data module whose subclasses return a dataset per split, or None for a split that is not configured.

    Args:
        batch_size: Items per training batch.
        eval_batch_size: Items per batch in validation, test and prediction; None takes ``batch_size``.
        num_workers: Loading processes per loader; 0 loads in the main process.
        seed: Seed of the training order, which depends on it and on the epoch alone, so that a resumed run sees the
            order an uninterrupted one would have seen.

    Attributes:
        configure_hints: What to set for "train", "val", "test" and "predict", shown when such a run finds no data.
        wrap_train: Applied to the training dataset before its loader is made; a task sets it to put a cache between.

    Raises:
        InputError: If ``batch_size`` is below 1 or ``num_workers`` below 0.
    """

    configure_hints: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, *, batch_size: int = 8, eval_batch_size: int | None = None, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        if min(batch_size, eval_batch_size or batch_size) < 1 or num_workers < 0:
            raise InputError(
                f"batch_size {batch_size}, eval_batch_size {eval_batch_size}, num_workers {num_workers}: "
                "batches need at least 1 item and workers cannot be negative."
            )
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.wrap_train: Callable[[Items], Items] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What a loading process gets with a bound `collate`: the settings, not the trainer and with it the network.
        return {**self.__dict__, "trainer": None, "wrap_train": None}

    def train_dataset(self) -> Items | None:
        """Returns the training items, or None when none are configured."""
        return None

    def val_dataset(self) -> Items | None:
        """Returns the validation items, or None when none are configured."""
        return None

    def test_dataset(self) -> Items | None:
        """Returns the test items, or None when none are configured."""
        return None

    def predict_dataset(self) -> Items | None:
        """Returns the items to predict, the test items unless overridden."""
        return self.test_dataset()

    def collate(self, items: list[Any]) -> Any:
        """Makes one batch of a list of items; torch's default rule unless overridden."""
        return torch.utils.data.default_collate(items)

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns the shuffled training loader.

        Raises:
            InputError: If no training data is configured.
        """
        dataset = self._configured("train", self.train_dataset())
        if self.wrap_train is not None:
            dataset = self.wrap_train(dataset)
        return self.loader(dataset, self.batch_size, sampler=EpochShuffle(dataset, self.seed))  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Returns the validation loader; an empty list when ``fit`` runs without validation data.

        Raises:
            InputError: If ``validate`` itself was asked for and no validation data is configured.
        """
        dataset = self.val_dataset()
        if dataset is None and self.trainer is not None and self.trainer.state.fn != TrainerFn.VALIDATING:
            return []
        return self.loader(self._configured("val", dataset), self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        """Returns the test loader.

        Raises:
            InputError: If no test data is configured.
        """
        return self.loader(self._configured("test", self.test_dataset()), self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Returns the prediction loader.

        Raises:
            InputError: If nothing to predict is configured.
        """
        return self.loader(self._configured("predict", self.predict_dataset()), self.eval_batch_size)

    def loader(self, dataset: Items, batch_size: int | None, sampler: Sampler[Any] | None = None) -> DataLoader[Any]:
        """Returns a loader over ``dataset`` with this module's worker settings.

        Args:
            dataset: What to load.
            batch_size: Items per batch; None where ``sampler`` and ``dataset`` deal in batches.
            sampler: Training order: a resumed run goes on in it where the first one stopped. None is in order.
        """
        kind = DataLoader if sampler is None else RepeatableLoader
        loader: DataLoader[Any] = kind(
            dataset,
            batch_size=batch_size,
            sampler=None if sampler is None else Rest(sampler),
            num_workers=self.num_workers,
            collate_fn=self.collate,
            multiprocessing_context="spawn" if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
        if isinstance(loader, RepeatableLoader):
            loader.trainer = self.trainer
        return loader

    def _configured(self, split: str, dataset: Items | None) -> Items:
        if dataset is None:
            name = {"train": "training", "val": "validation", "test": "test", "predict": "prediction"}[split]
            raise InputError(
                f"This run needs {name} data, and {type(self).__name__} has none configured.",
                self.configure_hints.get(split, ""),
            )
        if isinstance(dataset, Sized) and len(dataset) == 0:
            raise InputError(
                f"The {split} split of {type(self).__name__} is empty.", self.configure_hints.get(split, "")
            )
        return dataset


class EpochShuffle(Sampler[int]):
    """Random order that is a function of the seed and the epoch alone.

    Args:
        items: What is sampled; only its length counts.
        seed: Seed of the order.

    >>> order = EpochShuffle([0] * 4, seed=1)
    >>> first = list(order)
    >>> order.set_epoch(1)
    >>> second = list(order)
    >>> order.set_epoch(0)
    >>> sorted(second), list(order) == first
    ([0, 1, 2, 3], True)
    """

    def __init__(self, items: Sized, seed: int) -> None:
        self.items = items
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch's order; Lightning calls it at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(len(self.items), generator=generator).tolist())

    def __len__(self) -> int:
        return len(self.items)
