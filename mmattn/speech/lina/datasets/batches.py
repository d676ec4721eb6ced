"""Batches of Lina's training: utterances in memory, drawn by length, put together.

Everything is kept as 16-bit tokens, an hour of speech in about half a megabyte per codebook.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mmattn.speech.lina.datasets.records import SpeechFile
from mmattn.speech.lina.network.batch import SpeechBatch, TextAndCodes, collate

__all__ = ["Batched", "BucketBatches", "LinaBatch", "LinaDataset", "SpeechFiles", "SpokenUtterance", "collate_spoken"]


class SpokenUtterance(NamedTuple):
    """An utterance and the number of its speaker, -1 for one that is not in training."""

    utterance: TextAndCodes
    speaker: int


class LinaBatch(NamedTuple):
    """A batch of B utterances.

    Attributes:
        speech: Texts and delayed audio, padded.
        speakers: (B,) ``int64``, index in :attr:`LinaDataModule.speakers`, -1 for one that is not in training.
        names: B names.
    """

    speech: SpeechBatch
    speakers: Tensor
    names: list[str]

    def to(self, device: torch.device | str) -> LinaBatch:
        """Returns the batch on a device."""
        return LinaBatch(self.speech.to(device), self.speakers.to(device), self.names)


class LinaDataset(Dataset[SpokenUtterance]):
    """Utterances in memory: a few large tensors, which loading processes share, with the place of each in them.

    Args:
        items: Of each the file, text ids (M,) and codes (Q, n).
        speakers: Those that have a number.
    """

    def __init__(self, items: Sequence[tuple[SpeechFile, Tensor, Tensor]], speakers: Sequence[str]) -> None:
        numbers = {speaker: number for number, speaker in enumerate(speakers)}
        self.names = [file.name for file, _, _ in items]
        self.speakers = [numbers.get(file.speaker, -1) for file, _, _ in items]
        self.frames = [codes.shape[1] for _, _, codes in items]
        self.text = torch.cat([text for _, text, _ in items])  # (all M,)
        self.codes = torch.cat([codes for _, _, codes in items], dim=1)  # (Q, all n)
        self._text_ends = [0, *itertools.accumulate(len(text) for _, text, _ in items)]
        self._ends = [0, *itertools.accumulate(self.frames)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> SpokenUtterance:
        text = self.text[self._text_ends[index] : self._text_ends[index + 1]]
        codes = self.codes[:, self._ends[index] : self._ends[index + 1]]
        return SpokenUtterance(TextAndCodes(text.long(), codes.long(), self.names[index]), self.speakers[index])


class SpeechFiles(Dataset[SpeechFile]):
    """Recordings as they lie on disk.

    Args:
        files: The recordings.
    """

    def __init__(self, files: Sequence[SpeechFile]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> SpeechFile:
        return self.files[index]


class Batched(Dataset[list[SpokenUtterance]]):
    """A dataset that is asked for whole batches.

    Args:
        items: What they are made of.
    """

    def __init__(self, items: LinaDataset) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, indices: list[int]) -> list[SpokenUtterance]:
        return [self.items[index] for index in indices]


class BucketBatches(Sampler[list[int]]):
    """Batches of utterances of like lengths; which ones and in which order is a function of seed and epoch alone.

    Lengths are divided into equal ranges between the shortest and the longest; batches are drawn within a range and
    come in random order. An epoch has every utterance once and always as many batches.

    Source: the data module of theodorblackbird/lina-speech.

    Args:
        frames: Length of each utterance.
        batch_size: Utterances of a batch.
        frames_per_batch: If given, a batch has as many utterances as fit into it when all are as long as their range
            allows, at least one.
        buckets: Number of ranges.
        seed: Seed of the order.

    >>> batches = BucketBatches([10, 99, 11, 98, 12], batch_size=2, buckets=2)
    >>> sorted(sorted(batch) for batch in batches), len(batches)
    ([[0, 4], [1, 3], [2]], 3)
    """

    def __init__(
        self,
        frames: Sequence[int],
        *,
        batch_size: int,
        frames_per_batch: int | None = None,
        buckets: int = 10,
        seed: int = 0,
    ) -> None:
        self.seed, self.epoch = seed, 0
        shortest, longest = min(frames), max(frames)
        step = (longest - shortest) / buckets or 1.0
        self.members: list[list[int]] = [[] for _ in range(buckets)]
        for index, length in enumerate(frames):
            self.members[min(int((length - shortest) / step), buckets - 1)].append(index)
        self.sizes = [batch_size] * buckets
        if frames_per_batch is not None:
            tops = [max((frames[index] for index in members), default=1) for members in self.members]
            self.sizes = [max(1, frames_per_batch // max(top, 1)) for top in tops]

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch's order; Lightning calls it at the start of each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        batches: list[list[int]] = []
        for members, size in zip(self.members, self.sizes, strict=True):
            order = [members[place] for place in torch.randperm(len(members), generator=generator).tolist()]
            batches += [order[start : start + size] for start in range(0, len(order), size)]
        return iter([batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()])

    def __len__(self) -> int:
        return sum(-(-len(members) // size) for members, size in zip(self.members, self.sizes, strict=True))


def collate_spoken(items: Sequence[SpokenUtterance]) -> LinaBatch:
    """Returns the batch of some utterances.

    Raises:
        InputError: As :func:`~mmattn.speech.lina.network.batch.collate`.
    """
    speakers = torch.tensor([item.speaker for item in items])
    return LinaBatch(collate([item.utterance for item in items]), speakers, [item.utterance.name for item in items])
