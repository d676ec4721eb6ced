"""``mmattn test`` for a model that speaks: every test text is spoken and judged, every held-out voice cloned.

Lightning hands out the recordings in batches; judging begins when all of them are there, since the recogniser listens
for the words of all texts (:mod:`.judges.recogniser`).
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mmattn.core.training.task import BaseTask
from mmattn.errors import InputError
from mmattn.speech.lina.data import LinaDataModule
from mmattn.speech.lina.datasets.records import SpeechFile
from mmattn.speech.lina.evaluation.scores import spoken_words
from mmattn.speech.lina.evaluation.spoken_test import find_held_out, run_spoken_test
from mmattn.speech.lina.predictor import LinaPredictor

__all__ = ["SpokenTask"]


class SpokenTask(BaseTask):
    """A task whose test speaks.

    Attributes:
        test_options: Of :class:`~mmattn.speech.lina.config.LinaInferOptions`, over those the checkpoint recommends.
    """

    test_options: dict[str, Any]

    @abstractmethod
    def tested_checkpoint(self, scratch: Path) -> str | Path:
        """Returns the checkpoint to test.

        Args:
            scratch: A folder to write it to that lives as long as the test.
        """

    def on_test_start(self) -> None:
        """Starts the collection of recordings.

        Raises:
            InputError: On more than one device, because the judges need all texts at once, or without held-out voices
                where they are configured.
        """
        if self.trainer.world_size > 1:
            raise InputError("The judges need all texts in one place.", "Test with --trainer.devices 1.")
        held_out = getattr(getattr(self.trainer, "datamodule", None), "held_out", None)
        self.strangers = find_held_out(held_out) if held_out is not None else []
        self.tested: list[SpeechFile] = []

    def test_step(self, batch: list[SpeechFile], batch_index: int) -> None:
        """Collects recordings."""
        self.tested += batch

    def on_test_epoch_end(self) -> None:
        """Speaks their texts, clones the held-out voices, prints the judges' table, logs its numbers, writes all."""
        folder = Path(self.trainer.log_dir or ".") / "test" if self.trainer.loggers else None
        # Lightning tests in inference mode, in which no voice can be trained.
        with TemporaryDirectory() as scratch, torch.inference_mode(False), torch.enable_grad():
            source = self.tested_checkpoint(Path(scratch) / "checkpoint")
            done = run_spoken_test(
                LinaPredictor.from_pretrained(source, device=self.device.type, **self.test_options),
                self.tested,
                seen_words=self._training_words(),
                held_out=self.strangers,
                examples=folder,
            )
        self.print(done.table())
        self.log_dict({f"test/{name}": value for name, value in done.numbers().items()})
        if folder is not None:
            done.save(folder)

    def _training_words(self) -> frozenset[str]:
        data = getattr(self.trainer, "datamodule", None)
        files = data.utterances if isinstance(data, LinaDataModule) else []
        return frozenset(word for item in files if item.split == "train" for word in spoken_words(item.text))
