"""The Lightning data module of Crane: which datasets to train prompts on and which to test them on.

As in arXiv 2504.11055 and AlirezaSalehy/Crane (commit 39181f9), prompts are trained on the *test* split of an auxiliary
dataset, normal and anomalous pictures of all classes mixed, and tested on the test splits of other datasets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch.utils.data import ConcatDataset, Dataset

from mmattn.core.training.datamodule import BaseDataModule
from mmattn.errors import InputError
from mmattn.vision.crane.datasets.layouts import LAYOUTS, read_layout
from mmattn.vision.crane.datasets.pictures import CraneDataset, Mosaic, subsample
from mmattn.vision.crane.network.preprocess import Preprocess

__all__ = ["CraneDataModule", "CraneDataset", "Source"]

_GENERAL_LAYOUTS = ("custom", "mvtec_style", "meta")


class Source(NamedTuple):
    """A dataset on disk: layout, folder, and the name it has in results."""

    layout: str
    root: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Source:
        """Reads ``layout:root``; general layouts are named after the folder.

        Raises:
            InputError: If the text has no colon or names no layout.

        >>> Source.parse("mvtec:data/mvtec_ad")
        Source(layout='mvtec', root='data/mvtec_ad', name='mvtec')
        """
        layout, colon, root = text.partition(":")
        if not colon or not root or layout not in LAYOUTS:
            raise InputError(
                f"The dataset {text!r} is not of the form layout:root.",
                f"Write for example mvtec:data/mvtec; layouts are {', '.join(LAYOUTS)}.",
            )
        return cls(layout, root, Path(root).resolve().name if layout in _GENERAL_LAYOUTS else layout)


class CraneDataModule(BaseDataModule):
    """Auxiliary data to train prompts on and other datasets to test them on, all from their test splits.

    Args:
        train_dataset: Layout of the auxiliary dataset: mvtec, visa, ..., custom, mvtec_style or meta.
        train_root: Its folder; null when nothing is trained.
        val_datasets: Datasets to validate on, each as layout:root.
        test_datasets: Datasets to test on, each as layout:root.
        image_size: Side of the square pictures, in pixels; must be the model's.
        portion: Share of the training pictures that is used, per class and label, in (0, 1].
        k_shot: If positive, this many training pictures per class, half normal and half anomalous.
        aug_rate: Share of the training pictures of some MVTec classes that become 2 x 2 mosaics; 0 is the published
            setting.
        mosaic_same_state: Draw normal or anomalous once for all four tiles, as the published code does.
        batch_size: Pictures per training batch; 8 is the published setting.
        eval_batch_size: Pictures per batch in validation and test; null takes ``batch_size``.
        num_workers: Loading processes.
        seed: Seed of the training order and of the sub-sampling.

    Raises:
        InputError: If an option is out of range or a dataset is not of the form layout:root.
    """

    configure_hints: ClassVar[Mapping[str, str]] = {
        "train": "Set data.init_args.train_dataset and train_root, for example mvtec and data/mvtec.",
        "val": "Set data.init_args.val_datasets, for example [visa:data/visa].",
        "test": "Set data.init_args.test_datasets, for example [visa:data/visa].",
        "predict": "Set data.init_args.test_datasets, or use mmattn infer crane for pictures without labels.",
    }

    def __init__(
        self,
        train_dataset: str = "mvtec",
        train_root: str | None = None,
        val_datasets: list[str] | None = None,
        test_datasets: list[str] | None = None,
        image_size: int = 518,
        portion: float = 1.0,
        k_shot: int = 0,
        aug_rate: float = 0.0,
        mosaic_same_state: bool = False,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 2,
        seed: int = 111,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        if not 0 < portion <= 1 or k_shot < 0 or k_shot % 2 or not 0 <= aug_rate <= 1:
            raise InputError(
                f"portion {portion}, k_shot {k_shot}, aug_rate {aug_rate}: expected a portion in (0, 1], an even "
                "k_shot of at least 0 and an aug_rate in [0, 1]."
            )
        self.preprocess = Preprocess(image_size)
        self.train_source = None if train_root is None else Source.parse(f"{train_dataset}:{train_root}")
        self.val_sources = [Source.parse(text) for text in val_datasets or []]
        self.test_sources = [Source.parse(text) for text in test_datasets or []]
        self.portion = portion
        self.k_shot = k_shot
        self.mosaic = Mosaic(rate=aug_rate, same_state=mosaic_same_state)

    def train_dataset(self) -> CraneDataset | None:
        """Returns the auxiliary pictures, sub-sampled and augmented as configured."""
        if self.train_source is None:
            return None
        dataset = self._dataset(self.train_source)
        chosen = subsample(dataset.records, portion=self.portion, k_shot=self.k_shot, seed=self.seed)
        return CraneDataset(
            chosen, dataset.root, self.preprocess, dataset.classes, name=dataset.name, mosaic=self.mosaic
        )

    def val_dataset(self) -> Dataset[Any] | None:
        """Returns the validation pictures, or None."""
        return self._concatenated(self.val_sources)

    def test_dataset(self) -> Dataset[Any] | None:
        """Returns the test pictures, class after class, or None."""
        return self._concatenated(self.test_sources)

    def test_sizes(self) -> dict[tuple[str, str], int]:
        """Returns the number of test pictures of each (dataset, class), so that a finished class can be scored."""
        parts = [self._dataset(source) for source in self.test_sources]
        return dict(Counter((part.name, record.cls_name) for part in parts for record in part.records))

    def _concatenated(self, sources: Sequence[Source]) -> Dataset[Any] | None:
        return ConcatDataset([self._dataset(source) for source in sources]) if sources else None

    def _dataset(self, source: Source) -> CraneDataset:
        records = read_layout(source.layout, source.root)
        return CraneDataset(records, source.root, self.preprocess, LAYOUTS[source.layout].classes, name=source.name)
