"""The one door to a Lina model: from a text to a :class:`LinaResult`, from recordings to a voice.

``LinaPredictor.from_pretrained("embedded").predict("Hello there.")`` gives samples and how the text was read;
``open_session`` speaks a text while it arrives. Scripts, apps and tests use it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmattn.core.config_fields import chosen
from mmattn.core.device import resolve_device
from mmattn.errors import CheckpointError, InputError
from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.datasets.recordings import Recording
from mmattn.speech.lina.generation.attempts import PlannedText, speak_texts
from mmattn.speech.lina.generation.session import LinaSession
from mmattn.speech.lina.generation.speaker import Speaker
from mmattn.speech.lina.results import LinaItem, LinaResult, VoiceChoice, as_items, checked_seed
from mmattn.speech.lina.text.tokenizers import build_tokenizer
from mmattn.speech.lina.text.tokens import Tokenizer
from mmattn.speech.lina.voices.cloning import Progress, check_consent, learn_voice, read_utterances
from mmattn.speech.lina.voices.files import Voice, find_voices, fingerprint, load_voice, locate_voice
from mmattn.speech.lina.voices.tuning import TuningOptions
from mmattn.speech.lina.weights.store import StoredLina, check_finite

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
        options = options or LinaInferOptions()
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
        self.model.pack(options.precision)
        if isinstance(codec, nn.Module):
            codec.to(device)
        self.codec = codec
        self._speaker = Speaker(self.model, codec, tokenizer, options)

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
        options = chosen(options or LinaInferOptions(), overrides)
        where = resolve_device(device)
        stored = StoredLina.load(source)
        codec = stored.build_codec(options.codec)
        tokenizer = build_tokenizer(stored.config.tokenizer, stored.config.tokenizer_options, stored.folder)
        name = "embedded" if str(source) == "embedded" else Path(str(source)).name
        predictor = cls(stored, codec, tokenizer, device=where, options=options, name=name)
        if options.voice is not None:
            predictor.load_voice(options.voice)  # a wrong one is told before anything is spoken
        return predictor

    @property
    def options(self) -> LinaInferOptions:
        """Choices of this run."""
        return self._speaker.options

    @property
    def default_voice(self) -> str | None:
        """Name of the voice that speaks if none is chosen; None if no voices ship with the model."""
        named = self.config.default_voice
        return named if named in self.voices else next(iter(self.voices), None)

    @property
    def sampling(self) -> SamplingOptions:
        """How tokens are drawn: by the options, else as the checkpoint says."""
        return self._speaker.choice.sampling

    @property
    def frame_rate(self) -> float:
        """Codec frames per second."""
        return self._speaker.frame_rate

    def load_voice(self, voice: str | Path) -> Voice:
        """Returns a voice of this model.

        Args:
            voice: Name of a shipped voice, or path of a voice file.

        Raises:
            InputError: If it is neither.
            CheckpointError: If the file is damaged or was made for another model.
        """
        return load_voice(locate_voice(voice, self.voices), self.fingerprint)

    def with_options(self, **changes: Any) -> LinaPredictor:
        """Returns a predictor that shares model and codec and makes other choices.

        Args:
            **changes: Fields of :class:`LinaInferOptions`; None leaves one as it is. Another codec needs another
                predictor.

        Raises:
            InputError: If one is unknown or out of range.
        """
        options = chosen(self.options, changes)
        for name in ("codec", "precision"):
            if getattr(options, name) != getattr(self.options, name):
                raise InputError(f"{name} belongs to a loaded model and cannot be changed.", "Load another predictor.")
        other = copy.copy(self)
        other._speaker = replace(self._speaker, options=options)
        return other

    @torch.inference_mode()
    def check_speaking(self, seed: int = 0) -> None:
        """Tells of a voice, prompt or seed of the run that cannot be used, before anything is spoken.

        Raises:
            InputError: If the voice is unknown, or prompt or seed are none.
            CheckpointError: If the voice is of another model.
            MediaError: If the prompt cannot be read.
        """
        checked_seed(seed)
        self._speaker.beginning(self._chosen(None))

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
        given, speaker = as_items(items), self._speaker
        planners = [speaker.planner() for _ in given]
        plans = [
            planner.whole(item.text, f"The text of '{item.name}'" if item.name else "The text")
            for planner, item in zip(planners, given, strict=True)
        ]
        texts = [
            PlannedText(plan, speaker.beginning(self._chosen(item.voice)), item.seed)
            for plan, item in zip(plans, given, strict=True)
        ]
        recorded = [speaker.record(sentences) for sentences in speak_texts(speaker, texts)]
        work = time.perf_counter() - started
        total = sum(len(samples) for samples, _ in recorded)
        return [
            LinaResult(
                samples=samples,
                sample_rate=self.codec.sample_rate,
                text=item.text,
                sentences=sentences,
                seed=item.seed,
                voice=text.beginning.voice,
                model=self.fingerprint,
                work_seconds=work * len(samples) / total,
                frame_rate=self.frame_rate,
                skipped=tuple(planner.skipped),
                format=self.options.format,
            )
            for item, planner, text, (samples, sentences) in zip(given, planners, texts, recorded, strict=True)
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
        beginning = self._speaker.beginning(self._chosen(voice))
        return LinaSession(self._speaker, beginning, seed=seed, model=self.fingerprint)

    def clone(
        self,
        recordings: Sequence[Recording],
        *,
        consent: str,
        name: str,
        options: TuningOptions | None = None,
        report: Progress | None = None,
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
        usual = self._speaker.watchdog.seconds_per_token
        utterances = read_utterances(recordings, self.codec, self.tokenizer, seconds_per_token=usual)
        return learn_voice(
            self.model,
            utterances,
            fingerprint=self.fingerprint,
            consent=consent,
            name=name,
            options=options,
            report=report,
        )

    def _chosen(self, choice: VoiceChoice | None) -> Voice | None:
        """Returns who speaks: the choice, else the run's, else the default one where nothing is continued, else none.

        Raises:
            InputError: If the voice is unknown or of another type.
            CheckpointError: If it is of another model.
        """
        if not isinstance(choice, str | Path | Voice | None):
            raise InputError(
                f"The voice is {choice!r:.60}, a {type(choice).__name__}.",
                "Expected a name, the path of a file, or a Voice.",
            )
        chosen = choice if choice is not None else self.options.voice
        if chosen is None and self.options.prompt is None:
            chosen = self.default_voice
        if chosen is None:
            return None
        voice = chosen if isinstance(chosen, Voice) else self.load_voice(chosen)
        if voice.model != self.fingerprint:
            raise CheckpointError(
                f"Voice '{voice.name}' was made for model {voice.model or 'unknown'}; this is {self.fingerprint}.",
                "Clone the voice with this model.",
            )
        return voice
