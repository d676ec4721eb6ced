"""The Lightning data module of Lina: a dataset's codec tokens and text ids, in batches of like lengths."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from mmattn.core.training.datamodule import BaseDataModule
from mmattn.errors import InputError
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.config import TokenizerName
from mmattn.speech.lina.datasets.batches import (
    Batched,
    BucketBatches,
    LinaBatch,
    LinaDataset,
    SpeechFiles,
    collate_spoken,
)
from mmattn.speech.lina.datasets.layouts import find_utterances
from mmattn.speech.lina.datasets.records import SpeechFile, Split
from mmattn.speech.lina.datasets.token_cache import text_fingerprint
from mmattn.speech.lina.datasets.tokens import TokenReader, Tokens
from mmattn.speech.lina.text.bpe import train_bpe
from mmattn.speech.lina.text.tokenizers import Tokenizer, build_tokenizer
from mmattn.speech.lina.weights.store import build_codec, load_codec

__all__ = ["LinaBatch", "LinaDataModule"]

_NAMED_CODECS = ("wavtokenizer", "encodec")


class LinaDataModule(BaseDataModule):
    """Utterances of one dataset for training, validation and test.

    Codes and text ids of training and validation are computed by the first run and kept in ``cache``. A test gets the
    recordings as they lie on disk, because it speaks their texts and compares what is heard.

    Args:
        root: The dataset's folder or manifest; null when nothing is configured.
        layout: One of :data:`mmattn.speech.lina.datasets.layouts.LAYOUTS`, or auto.
        codec: A folder that a codec's training wrote, "embedded", ``hf:repo``, or the name wavtokenizer or encodec.
        codec_options: Of a codec that is named, as in ``LinaConfig``.
        codebooks: The first ones that are used; null takes all.
        tokenizer: How text becomes ids: characters, gruut, espeak or bpe.
        tokenizer_options: Of the tokenizer, as in ``LinaConfig``.
        learn_tokenizer: Learn the pieces of "bpe" from the training texts when its file is not there yet.
        cache: Folder of the tokens; null takes ``.tokens`` in ``root``.
        batch_size: Utterances per training batch, unless ``frames_per_batch`` says otherwise.
        frames_per_batch: Frames per batch, padding included; null counts utterances.
        eval_batch_size: Utterances per batch in validation and test; null takes ``batch_size``.
        buckets: Ranges of length that are batched apart.
        min_frames: Utterances with fewer are left out.
        max_frames: Utterances with more are left out; null takes all.
        joined: Pairs of a speaker's utterances that are trained on as one long utterance, per utterance: 0.5 adds half
            as many again.
        held_out: Folder of voices that are in no split, ``NAME/clone`` to clone from and ``NAME/test`` to compare with;
            a test clones them.
        num_workers: Loading processes; all is in memory, and none are needed.
        seed: Seed of the training order.

    Raises:
        InputError: If an option is out of range.
    """

    configure_hints: ClassVar[Mapping[str, str]] = {
        "train": "Set data.init_args.root to a folder of recordings and texts.",
        "val": "Set data.init_args.root; a folder val, or a manifest's field split, says what validates.",
        "test": "Set data.init_args.root; a folder test, or a manifest's field split, says what tests.",
        "predict": "Use mmattn infer lina.",
    }

    def __init__(
        self,
        root: str | None = None,
        layout: str = "auto",
        codec: str = "embedded",
        codec_options: dict[str, Any] | None = None,
        codebooks: int | None = None,
        tokenizer: TokenizerName = "gruut",
        tokenizer_options: dict[str, Any] | None = None,
        learn_tokenizer: bool = False,
        cache: str | None = None,
        batch_size: int = 16,
        frames_per_batch: int | None = None,
        eval_batch_size: int | None = None,
        buckets: int = 10,
        min_frames: int = 1,
        max_frames: int | None = None,
        joined: float = 0.0,
        held_out: str | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        if (
            min(buckets, min_frames) < 1
            or (frames_per_batch is not None and frames_per_batch < 1)
            or (max_frames is not None and max_frames < min_frames)
            or (codebooks is not None and codebooks < 1)
            or joined < 0
        ):
            raise InputError(
                f"buckets is {buckets}, min_frames {min_frames}, max_frames {max_frames}, frames_per_batch "
                f"{frames_per_batch}, codebooks {codebooks}, joined {joined}; expected at least 1, max_frames not "
                "below min_frames, and joined not below 0."
            )
        self.root, self.layout = root, layout
        self.codec, self.codec_options, self.first_codebooks = codec, dict(codec_options or {}), codebooks
        self.tokenizer, self.tokenizer_options = tokenizer, dict(tokenizer_options or {})
        self.learn_tokenizer = learn_tokenizer
        self.cache = cache
        self.frames_per_batch, self.buckets = frames_per_batch, buckets
        self.min_frames, self.max_frames = min_frames, max_frames
        self.joined, self.held_out = joined, held_out
        self._datasets: dict[Split, LinaDataset | None] | None = None

    # A function of a light module: a method would take the trainer and its imports along to every loading process.
    collate = staticmethod(collate_spoken)

    @cached_property
    def utterances(self) -> list[SpeechFile]:
        """All utterances of the dataset, in the order of their names.

        Raises:
            InputError: If it cannot be read.
        """
        return [] if self.root is None else find_utterances(self.root, self.layout)

    @cached_property
    def speakers(self) -> list[str]:
        """The training speakers in the order of their numbers, which is alphabetical."""
        return sorted({item.speaker for item in self.utterances if item.split == "train"})

    @cached_property
    def built_codec(self) -> Codec:
        """The codec, with all its codebooks.

        Raises:
            InputError: If it has fewer than ``codebooks``.
            CheckpointError: If it cannot be read.
            WeightsUnavailableError: If its weights are not there.
        """
        if self.codec in _NAMED_CODECS:
            codec = build_codec(self.codec, self.codec_options, {})
        else:
            codec = load_codec(self.codec)
        if self.first_codebooks is not None and self.first_codebooks > codec.codebooks:
            raise InputError(
                f"codebooks is {self.first_codebooks}, and the codec '{self.codec}' has {codec.codebooks}."
            )
        return codec

    @property
    def codebooks(self) -> int:
        """Codebooks in use Q."""
        return self.first_codebooks or self.built_codec.codebooks

    @cached_property
    def built_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            InputError: As :func:`~mmattn.speech.lina.text.tokenizers.build_tokenizer`, or there are no texts to learn
                it from.
            MissingExtraError: If a package is missing.
        """
        file = self.tokenizer_file
        if self.learn_tokenizer and file is not None and not file.exists():
            train_bpe((item.text for item in self.utterances if item.split == "train"), file)
        return build_tokenizer(self.tokenizer, self.tokenizer_options)

    @property
    def tokenizer_file(self) -> Path | None:
        """The tokenizer's file, None where it has none; it belongs beside the model."""
        return Path(self.tokenizer_options["file"]) if "file" in self.tokenizer_options else None

    def prepare_data(self) -> None:
        """Fills the cache, which a test does not need; Lightning calls it in one process of a machine."""
        if self.trainer is None or self.trainer.state.fn != TrainerFn.TESTING:
            self._split("train")

    def train_dataset(self) -> LinaDataset | None:
        """Returns the utterances to train on."""
        return self._split("train")

    def val_dataset(self) -> LinaDataset | None:
        """Returns the utterances to validate on, None if there are none."""
        return self._split("val")

    def test_dataset(self) -> SpeechFiles | None:
        """Returns the recordings to test on, None if there are none."""
        files = [item for item in self.utterances if item.split == "test"]
        return SpeechFiles(files) if files else None

    def test_dataloader(self) -> DataLoader[Any]:
        """Returns the loader of lists of recordings.

        Raises:
            InputError: If there are none.
        """
        return DataLoader(
            self._configured("test", self.test_dataset()), batch_size=self.eval_batch_size, collate_fn=list
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves tensors; the recordings of a test have none, and Lightning would look for some in them."""
        return batch if isinstance(batch, list) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def predict_dataset(self) -> None:
        """Returns None: texts to speak are given to ``mmattn infer lina``."""

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns the loader of training batches, in another order in every epoch.

        Raises:
            InputError: If there are no training utterances.
            TypeError: If the dataset is another one than this module makes.
        """
        dataset = self._configured("train", self.train_dataset())
        if not isinstance(dataset, LinaDataset):
            raise TypeError(f"Got a {type(dataset).__name__}, expected a LinaDataset.")
        batches = BucketBatches(
            dataset.frames,
            batch_size=self.batch_size,
            frames_per_batch=self.frames_per_batch,
            buckets=self.buckets,
            seed=self.seed,
        )
        return self.loader(Batched(dataset), None, sampler=batches)

    def _split(self, split: Split) -> LinaDataset | None:
        if self._datasets is None:
            self._datasets = self._read()
        return self._datasets[split]

    def _read(self) -> dict[Split, LinaDataset | None]:
        splits: tuple[Split, ...] = ("train", "val")
        if self.root is None:
            return dict.fromkeys(splits)
        # First of all: without data it does not matter whether there is a codec.
        files = [file for file in self.utterances if file.split in splits]
        folder = Path(self.root)
        inside = folder if folder.is_dir() else folder.parent
        reader = TokenReader(
            codec=self.built_codec,
            codebooks=self.codebooks,
            tokenizer=self.built_tokenizer,
            text_key=text_fingerprint(self.tokenizer, self.tokenizer_options, self.built_tokenizer),
            cache=inside / ".tokens" if self.cache is None else Path(self.cache),
            min_frames=self.min_frames,
            max_frames=self.max_frames,
        )
        kept: dict[Split, list[Tokens]] = {split: [] for split in splits}
        for item in reader.read(files):
            kept[item[0].split].append(item)
        if self.joined:
            kept["train"] += reader.pairs(kept["train"], round(self.joined * len(kept["train"])), self.seed)
        return {split: LinaDataset(items, self.speakers) if items else None for split, items in kept.items()}
