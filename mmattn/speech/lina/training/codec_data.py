"""Recordings for a codec's training: random crops of a folder's files, and whole files to validate on.

A folder has a sub-folder per split, ``train``, ``val`` and ``test``, with recordings in it at any depth; text beside
them is left alone.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmattn.core.training.datamodule import BaseDataModule
from mmattn.errors import InputError
from mmattn.media.audio import audio_seconds, is_audio, read_audio

__all__ = ["CodecDataModule", "FreshDraws", "RandomCrops", "WholeRecordings"]

# Crops are made a little louder or softer, and never quite silent, as real rooms are.
_SOFTEST_DB = -6.0
_NOISE = 1e-5


class CodecDataModule(BaseDataModule):
    """Crops to train on, whole recordings to validate and test on, one per batch.

    Args:
        root: Folder with ``train``, ``val`` and ``test``.
        sample_rate: Rate that everything is resampled to, Hz.
        crop_seconds: Length of a crop.
        crops_per_epoch: Crops of one epoch.
        max_seconds: Longer recordings are cut to this in validation and test.
        batch_size: Crops per batch.
        num_workers: Loading processes.
        seed: Of the crops, which depend on it and their number alone.
    """

    def __init__(
        self,
        root: str,
        *,
        sample_rate: int = 16_000,
        crop_seconds: float = 0.8,
        crops_per_epoch: int = 6000,
        max_seconds: float = 10.0,
        batch_size: int = 12,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=1, num_workers=num_workers, seed=seed)
        if min(sample_rate, crop_seconds, crops_per_epoch, max_seconds) <= 0:
            raise InputError("sample_rate, crop_seconds, crops_per_epoch and max_seconds must be above 0.")
        self.root = Path(root)
        self.sample_rate, self.crop_seconds, self.crops_per_epoch = sample_rate, crop_seconds, crops_per_epoch
        self.max_seconds = max_seconds

    def train_dataset(self) -> RandomCrops:
        """Returns the crops."""
        files = self._files("train")
        return RandomCrops(files, self.sample_rate, self.crop_seconds, seed=self.seed)

    def val_dataset(self) -> Dataset[Tensor]:
        """Returns the recordings to validate on, each (n,) samples."""
        return WholeRecordings(self._files("val"), self.sample_rate, self.max_seconds)

    def test_dataset(self) -> Dataset[Tensor]:
        """Returns the recordings to test on, each (n,) samples."""
        return WholeRecordings(self._files("test"), self.sample_rate, self.max_seconds)

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns the loader of crops, new ones in every epoch."""
        return self.loader(self.train_dataset(), self.batch_size, sampler=FreshDraws(self.crops_per_epoch))

    def _files(self, split: str) -> list[Path]:
        folder = self.root / split
        files = sorted(path for path in folder.rglob("*") if is_audio(path)) if folder.is_dir() else []
        if not files:
            raise InputError(
                f"There are no recordings in {folder}.", "Expected WAV, FLAC or Ogg files in it, at any depth."
            )
        return files


class RandomCrops(Dataset[Tensor]):
    """An endless supply of crops (samples,): number i is drawn with a seed made of i, each second as likely as another.

    A recording shorter than a crop is continued by silence.

    Args:
        files: The recordings.
        sample_rate: Hz.
        seconds: Length of a crop.
        seed: Of the draws.
    """

    def __init__(self, files: list[Path], sample_rate: int, seconds: float, *, seed: int = 0) -> None:
        self.files, self.sample_rate, self.seconds, self.seed = files, sample_rate, seconds, seed

    @cached_property
    def ends(self) -> list[float]:
        """When each recording ends if all are played one after the other, seconds."""
        return list(itertools.accumulate(audio_seconds(file) for file in self.files))

    def __getitem__(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        position, place, loudness = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        chosen = min(bisect.bisect_right(self.ends, position * self.ends[-1]), len(self.files) - 1)
        duration = self.ends[chosen] - (self.ends[chosen - 1] if chosen else 0.0)
        start = place * max(0.0, duration - self.seconds)
        wave = _read(self.files[chosen], self.sample_rate, start, self.seconds)
        size = round(self.seconds * self.sample_rate)
        crop = torch.nn.functional.pad(wave[:size], (0, max(0, size - len(wave))))
        gain = 10 ** (loudness * _SOFTEST_DB / 20)
        return crop * gain + _NOISE * torch.randn(size, generator=generator)


class WholeRecordings(Dataset[Tensor]):
    """Recordings from their beginnings, (samples,).

    Args:
        files: The recordings.
        sample_rate: Hz.
        max_seconds: What is longer is cut.
    """

    def __init__(self, files: list[Path], sample_rate: int, max_seconds: float) -> None:
        self.files, self.sample_rate, self.max_seconds = files, sample_rate, max_seconds

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return _read(self.files[index], self.sample_rate, 0.0, self.max_seconds)


class FreshDraws(Sampler[int]):
    """Numbers that no other epoch has: epoch e yields ``e * count ... (e + 1) * count - 1``.

    >>> draws = FreshDraws(2)
    >>> draws.set_epoch(3)
    >>> list(draws)
    [6, 7]
    """

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it at the start of each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.epoch * self.count, (self.epoch + 1) * self.count))

    def __len__(self) -> int:
        return self.count


def _read(file: Path, sample_rate: int, start: float, seconds: float) -> Tensor:
    recording = read_audio(file, sample_rate=sample_rate, start=start, seconds=seconds, allow_silence=True)
    return torch.from_numpy(recording.samples)
