"""The one door to a Lina model: from a text to a :class:`LinaResult`, from recordings to a voice.

``LinaPredictor.from_pretrained("embedded").predict("Hello there.")`` gives samples and how the text was read;
``open_session`` speaks a text while it arrives. Scripts, apps and tests use it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmattn.core.device import resolve_device
from mmattn.errors import CheckpointError, InputError
from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.datasets.recordings import Recording
from mmattn.speech.lina.generation.beginnings import Beginnings
from mmattn.speech.lina.generation.narration import Narrator, narrate
from mmattn.speech.lina.generation.session import LinaSession
from mmattn.speech.lina.generation.speaker import Speaker
from mmattn.speech.lina.items import LinaItem, VoiceChoice, as_items, checked_seed
from mmattn.speech.lina.judges.watchdog import Watchdog
from mmattn.speech.lina.results import LinaResult
from mmattn.speech.lina.text.planning import TextPlanner
from mmattn.speech.lina.text.tokenizers import build_tokenizer
from mmattn.speech.lina.text.tokens import Tokenizer
from mmattn.speech.lina.voices.cloning import Report, check_consent, clone_voice, read_utterances
from mmattn.speech.lina.voices.files import Voice, find_voices, fingerprint
from mmattn.speech.lina.voices.tuning import TuningOptions
from mmattn.speech.lina.weights.codecs import check_finite, fitting_codec
from mmattn.speech.lina.weights.store import StoredLina, load_lina

__all__ = ["LinaItem", "LinaPredictor", "Recording", "VoiceChoice"]


class LinaPredictor:
    """A loaded model with its codec and tokenizer.

    Args:
        stored: The checkpoint.
        codec: That fits it, in evaluation mode.
        tokenizer: Of the model.
        device: Where everything runs.
        options: Choices of this run.
        name: What the apps call this model.

    Attributes:
        voices: Files of the voices that ship with the model, by name, sorted.
        fingerprint: Of the weights; voices name it.

    Raises:
        CheckpointError: If tensors do not fit, or weights are not finite.
    """

    def __init__(
        self,
        stored: StoredLina,
        codec: Codec,
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        options: LinaInferOptions | None = None,
        name: str = "lina",
    ) -> None:
        self.options = options or LinaInferOptions()
        self.config, self.tokenizer, self.device, self.name = stored.config, tokenizer, device, name
        # A file of pieces may have fewer than the model has room for; the tables belong to the code.
        is_table = self.config.tokenizer != "bpe"
        if tokenizer.vocab_size > self.config.text_vocab or (
            is_table and tokenizer.vocab_size < self.config.text_vocab
        ):
            raise CheckpointError(
                f"The tokenizer '{self.config.tokenizer}' has {tokenizer.vocab_size} tokens, the model knows "
                f"{self.config.text_vocab}; it was trained with another one."
            )
        self.fingerprint = fingerprint(stored.tensors)
        self.voices = find_voices(stored.folder)
        self.model = stored.build().to(device)
        check_finite(self.model, "The checkpoint")
        self.model.pack(self.options.precision)
        if isinstance(codec, nn.Module):
            codec.to(device)
        self.codec = codec
        self.watchdog = Watchdog.of(self.options, self.config, self.frame_rate)
        self._speaker = Speaker(self.model, self.watchdog, self.options)
        self._beginnings = self._begin_by(self.options)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "embedded",
        *,
        device: str = "auto",
        options: LinaInferOptions | None = None,
        **overrides: Any,
    ) -> LinaPredictor:
        """Loads a checkpoint.

        Args:
            source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.
            device: "auto", "cpu", "cuda", ...
            options: Choices of this run.
            **overrides: Fields of :class:`LinaInferOptions` to change in them.

        Raises:
            CheckpointError: If the checkpoint is of another system, damaged, or codec and model do not fit.
            WeightsUnavailableError: If weights are neither on disk nor reachable.
            InputError: If an option is unknown or out of range, or the text front end misses a file or program.
        """
        # Before anything heavy is read.
        options = _overridden(options or LinaInferOptions(), overrides)
        where = resolve_device(device)
        stored = load_lina(source)
        codec = fitting_codec(stored, options.codec)
        tokenizer = build_tokenizer(stored.config.tokenizer, stored.config.tokenizer_options, stored.folder)
        name = "embedded" if str(source) == "embedded" else Path(str(source)).name
        predictor = cls(stored, codec, tokenizer, device=where, options=options, name=name)
        if options.voice is not None:
            predictor.load_voice(options.voice)  # a wrong one is told before anything is spoken
        return predictor

    @property
    def default_voice(self) -> str | None:
        """Name of the voice that speaks if none is chosen; None if no voices ship with the model."""
        named = self.config.default_voice
        return named if named in self.voices else next(iter(self.voices), None)

    @property
    def sampling(self) -> SamplingOptions:
        """How tokens are drawn: by the options, else as the checkpoint says."""
        return self._speaker.sampling

    @property
    def frame_rate(self) -> float:
        """Codec frames per second."""
        return self.codec.sample_rate / self.codec.hop

    def load_voice(self, voice: str | Path) -> Voice:
        """Returns a voice of this model.

        Args:
            voice: Name of a shipped voice, or path of a voice file.

        Raises:
            InputError: If it is neither.
            CheckpointError: If the file is damaged or was made for another model.
        """
        return self._beginnings.load_voice(voice)

    def with_options(self, **changes: Any) -> LinaPredictor:
        """Returns a predictor that shares model and codec and makes other choices.

        Args:
            **changes: Fields of :class:`LinaInferOptions`; None leaves one as it is. Another codec needs another
                predictor.

        Raises:
            InputError: If one is unknown or out of range.
        """
        options = _overridden(self.options, changes)
        for name in ("codec", "precision"):
            if getattr(options, name) != getattr(self.options, name):
                raise InputError(f"{name} belongs to a loaded model and cannot be changed.", "Load another predictor.")
        other = copy.copy(self)
        other.options = options
        other.watchdog = Watchdog.of(other.options, self.config, self.frame_rate)
        other._speaker = Speaker(self.model, other.watchdog, other.options)
        other._beginnings = self._begin_by(options)
        return other

    def predict(self, item: str | LinaItem) -> LinaResult:
        """Returns a text, spoken.

        Args:
            item: Text of any length, or an item with voice and seed.

        Raises:
            InputError: If an argument is of another type, nothing in the text can be spoken, or the voice is unknown.
            CheckpointError: If the voice is of another model, or the model's output is not finite.
        """
        return self.predict_batch([item])[0]

    @torch.inference_mode()
    def predict_batch(self, items: Sequence[str | LinaItem]) -> list[LinaResult]:
        """Returns one result per text, in order; sentences of all of them are generated together.

        Each is as if it had been alone, but for rounding.

        Args:
            items: As for :meth:`predict`; a list, also of one.

        Raises:
            InputError: As :meth:`predict`, for the first item that cannot be spoken.
            CheckpointError: The same.
        """
        started = time.perf_counter()
        given = as_items(items)
        planners = [self._planner() for _ in given]
        plans = [
            planner.whole(item.text, f"The text of '{item.name}'" if item.name else "The text")
            for planner, item in zip(planners, given, strict=True)
        ]
        begun = [self._beginnings.begin(item.voice) for item in given]
        spoken = self._speaker.speak(plans, [beginning for beginning, _ in begun], [item.seed for item in given])
        narrated = [narrate(Narrator.of(self.codec, self.options), sentences) for sentences in spoken]
        work = time.perf_counter() - started
        total = sum(len(samples) for samples, _ in narrated)
        return [
            LinaResult(
                samples=samples,
                sample_rate=self.codec.sample_rate,
                text=item.text,
                sentences=sentences,
                seed=item.seed,
                work_seconds=work * len(samples) / total,
                frame_rate=self.frame_rate,
                skipped=tuple(planner.skipped),
                **self._facts(voice),
            )
            for item, planner, (_, voice), (samples, sentences) in zip(given, planners, begun, narrated, strict=True)
        ]

    @torch.inference_mode()
    def open_session(self, voice: VoiceChoice | None = None, *, seed: int = 0) -> LinaSession:
        """Returns a session that speaks while text arrives, see :class:`.generation.session.LinaSession`.

        Args:
            voice: Who speaks; None as the run's options say.
            seed: Of the random numbers, at least 0.

        Raises:
            InputError: If the voice is unknown, or the options ask for several candidates, among which a stream cannot
                choose.
            CheckpointError: If the voice is of another model.
        """
        if self.options.candidates > 1:
            raise InputError(
                f"candidates is {self.options.candidates}: what was sent of one cannot be exchanged for another.",
                "Leave candidates at 1 to stream.",
            )
        seed = checked_seed(seed)
        beginning, name = self._beginnings.begin(voice)
        return LinaSession(
            self._speaker,
            Narrator.of(self.codec, self.options),
            self._planner(),
            beginning,
            seed=seed,
            frame_rate=self.frame_rate,
            facts=self._facts(name),
        )

    def clone(
        self,
        recordings: Sequence[Recording],
        *,
        consent: str,
        name: str,
        options: TuningOptions | None = None,
        report: Report | None = None,
    ) -> Voice:
        """Returns a voice learned from recordings; save it with :func:`.voices.files.save_voice`.

        Args:
            recordings: Of one speaker, a minute in all is good.
            consent: The speaker's statement that the voice may be used, word for word.
            name: What the voice is called.
            options: Of the tuning; None takes :func:`.voices.cloning.usual_tuning`.
            report: Called with step, steps and loss after every step.

        Raises:
            InputError: If the statement is empty, or recordings cannot be used.
            MediaError: If a file cannot be read.
        """
        check_consent(consent)  # before anything is read
        utterances = read_utterances(
            recordings, self.codec, self.tokenizer, seconds_per_token=self.watchdog.seconds_per_token
        )
        return clone_voice(
            self.model,
            utterances,
            fingerprint=self.fingerprint,
            consent=consent,
            name=name,
            options=options,
            report=report,
        )

    def _begin_by(self, options: LinaInferOptions) -> Beginnings:
        return Beginnings(
            self.model,
            self.codec,
            self.tokenizer,
            voices=self.voices,
            default=self.default_voice,
            fingerprint=self.fingerprint,
            options=options,
        )

    def _planner(self) -> TextPlanner:
        return TextPlanner(self.tokenizer, self._speaker.max_characters)

    def _facts(self, voice: str) -> dict[str, Any]:
        return {"voice": voice, "model": self.fingerprint, "format": self.options.format}


def _overridden(options: LinaInferOptions, overrides: Mapping[str, Any]) -> LinaInferOptions:
    """Returns options with some fields changed; None leaves a field as it is."""
    chosen = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(set(chosen) - {field.name for field in fields(LinaInferOptions)})
    if unknown:
        raise InputError(f"There is no option {', '.join(unknown)}.", "See: mmattn infer lina --help")
    return replace(options, **chosen)
