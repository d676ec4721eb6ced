"""The Lightning data module of CRASH: one dataset, its official test split, and validation carved from training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sized
from typing import Any, ClassVar, cast

from torch.utils.data import DataLoader

from mmattn.core.datasets.scan import named
from mmattn.core.training.datamodule import BaseDataModule, EpochShuffle
from mmattn.errors import InputError
from mmattn.video.crash.datasets.augmentation import MissingData, MissingMode, split_clips, take_fraction
from mmattn.video.crash.datasets.clip_reading import FolderReader
from mmattn.video.crash.datasets.clips import CrashDataset, collate_clips
from mmattn.video.crash.datasets.layouts import clip_reader, read_clips
from mmattn.video.crash.datasets.records import ListedClip

__all__ = ["CrashDataModule", "CrashDataset", "WholeBatches"]

logger = logging.getLogger(__name__)

_SPLIT_HINT = "The dataset lists no such clips; set data.init_args.test_split to hold some back."


class CrashDataModule(BaseDataModule):
    """Clips of one dataset for training, validation and test.

    The public datasets have a training and a test split. The literature selects its checkpoints on the test split;
    ``select_on_test`` does the same, for comparison with its numbers. By default validation clips are taken from the
    training split (``val_split``, seeded, the same share of each label), and the test split is looked at once.

    Args:
        layout: dad, ccd, a3d, nexar, videos or features; see :data:`mmattn.video.crash.datasets.layouts.LAYOUTS`.
        root: The dataset's folder; null when nothing is configured.
        feature: Kind of features, such as vgg16 or res101; null takes the only one there is.
        features_root: Folder of features of a dataset of videos (nexar, videos).
        skip_missing: Leave out videos without features, with a warning; otherwise they are an error.
        num_frames: Frames of every clip; null takes clips as they are, which then must be of one length.
        val_split: Share of the training clips that validates, in [0, 1); without effect when the dataset lists
            validation clips of its own, or with ``select_on_test``.
        select_on_test: Validate on the test split, as the literature does.
        test_split: Share of the training clips held back as test, in [0, 1), for a dataset that lists none.
        train_fraction: Share of the remaining training clips that is used, in (0, 1], the same of each label.
        missing_rate: Share of the data that is missing, in [0, 1].
        missing_mode: What goes missing: box, frame or segment.
        missing_train: Whether data is missing in training.
        missing_eval: Whether data is missing in validation and test.
        with_boxes: Whether items have their boxes.
        batch_size: Clips per training batch; 10 is the published setting.
        eval_batch_size: Clips per batch in validation and test; null takes ``batch_size``.
        drop_last: Leave out an incomplete last training batch, as published.
        num_workers: Loading processes.
        seed: Seed of the training order, the splits and the missing data; 123 is the published setting.

    Raises:
        InputError: If an option is out of range.
    """

    configure_hints: ClassVar[Mapping[str, str]] = {
        "train": "Set data.init_args.layout and root, for example ccd and data/ccd.",
        "val": "Set data.init_args.root, and val_split above 0 or select_on_test.",
        "test": f"Set data.init_args.layout and root, for example ccd and data/ccd. {_SPLIT_HINT}",
        "predict": f"Set data.init_args.layout and root, or use mmattn infer crash for videos. {_SPLIT_HINT}",
    }

    # A function of a light module: a method would take the trainer and its imports along to every loading process.
    collate = staticmethod(collate_clips)

    def __init__(
        self,
        layout: str = "dad",
        root: str | None = None,
        feature: str | None = None,
        features_root: str | None = None,
        skip_missing: bool = False,
        num_frames: int | None = None,
        val_split: float = 0.1,
        select_on_test: bool = False,
        test_split: float = 0.0,
        train_fraction: float = 1.0,
        missing_rate: float = 0.0,
        missing_mode: MissingMode = "box",
        missing_train: bool = True,
        missing_eval: bool = True,
        with_boxes: bool = False,
        batch_size: int = 10,
        eval_batch_size: int | None = None,
        drop_last: bool = True,
        num_workers: int = 2,
        seed: int = 123,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        if not (0 <= val_split < 1 and 0 <= test_split < 1 and 0 < train_fraction <= 1):
            raise InputError(
                f"val_split {val_split}, test_split {test_split}, train_fraction {train_fraction}: expected shares in "
                "[0, 1), [0, 1) and (0, 1]."
            )
        self.layout = layout
        self.root = root
        self.feature = feature
        self.features_root = features_root
        self.skip_missing = skip_missing
        self.num_frames = num_frames
        self.val_split = val_split
        self.select_on_test = select_on_test
        self.test_split = test_split
        self.train_fraction = train_fraction
        self.missing = MissingData(missing_mode, missing_rate, seed)
        self.missing_train = missing_train
        self.missing_eval = missing_eval
        self.with_boxes = with_boxes
        self.drop_last = drop_last
        self._splits: dict[str, list[ListedClip]] | None = None

    def splits(self) -> dict[str, list[ListedClip]]:
        """Returns the clips by "train", "val" and "test"; all empty when no dataset is configured.

        Raises:
            InputError: If the dataset cannot be read.
        """
        if self._splits is None:
            clips = self._clips()
            train, val, test = ([clip for clip in clips if clip.split == name] for name in ("train", "val", "test"))
            if not test:
                train, test = split_clips(train, self.test_split, self.seed)
            if self.select_on_test:
                val = test
            elif not val:
                train, val = split_clips(train, self.val_split, self.seed)
            if self.train_fraction < 1:
                train = take_fraction(train, self.train_fraction, self.seed)
            self._splits = {"train": train, "val": val, "test": test}
        return self._splits

    def _clips(self) -> list[ListedClip]:
        if self.root is None:
            return []
        clips = read_clips(self.layout, self.root, self.feature)
        reader = clip_reader(self.layout, self.root, self.features_root)
        missing = [clip.id for clip in clips if isinstance(reader, FolderReader) and not reader.folder.has(clip.id)]
        if missing and not self.skip_missing:
            raise InputError(
                f"{len(missing)} of {len(clips)} clips have no features in '{self.features_root}': {named(missing)}.",
                "Make them, or set data.init_args.skip_missing to leave these clips out.",
            )
        if missing:
            logger.warning("%d of %d clips have no features and are left out.", len(missing), len(clips))
        return [clip for clip in clips if clip.id not in set(missing)]

    def train_dataset(self) -> CrashDataset | None:
        """Returns the training clips, less those held back."""
        return self._dataset("train", self.missing_train)

    def val_dataset(self) -> CrashDataset | None:
        """Returns the validation clips, None when there are none."""
        return self._dataset("val", self.missing_eval)

    def test_dataset(self) -> CrashDataset | None:
        """Returns the test clips, None when there are none."""
        return self._dataset("test", self.missing_eval)

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns the shuffled training loader.

        Raises:
            InputError: If there are no training clips, or fewer than a batch while incomplete batches are left out.
        """
        dataset = self._configured("train", self.train_dataset())
        if self.wrap_train is not None:
            dataset = self.wrap_train(dataset)
        items = cast(Sized, dataset)
        whole = self.drop_last
        order = WholeBatches(items, self.seed, self.batch_size) if whole else EpochShuffle(items, self.seed)
        return self.loader(dataset, self.batch_size, sampler=order)

    def _dataset(self, split: str, missing: bool) -> CrashDataset | None:
        clips = self.splits()[split]
        if self.root is None or not clips:
            return None
        return CrashDataset(
            clips,
            clip_reader(self.layout, self.root, self.features_root),
            num_frames=self.num_frames,
            missing=self.missing if missing else None,
            with_boxes=self.with_boxes,
            seed=self.seed,
        )


class WholeBatches(EpochShuffle):
    """The training order without the items that would make an incomplete last batch.

    Args:
        items: What is sampled; only its length counts.
        seed: Seed of the order.
        batch_size: Items per batch.

    Raises:
        InputError: If there are fewer items than a batch.

    >>> len(WholeBatches([0] * 23, seed=0, batch_size=10)), len(list(WholeBatches([0] * 23, 0, 10)))
    (20, 20)
    """

    def __init__(self, items: Sized, seed: int, batch_size: int) -> None:
        super().__init__(items, seed)
        if len(items) < batch_size:
            raise InputError(
                f"There are {len(items)} training clips, fewer than a batch of {batch_size}.",
                "Set a smaller data.init_args.batch_size, or drop_last to false.",
            )
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[int]:
        return iter(list(super().__iter__())[: len(self)])

    def __len__(self) -> int:
        return len(self.items) // self.batch_size * self.batch_size
