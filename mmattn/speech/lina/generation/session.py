"""Speaking while text arrives: sound comes out in chunks as soon as it is final.

A sentence is spoken when its end is certain, which white space after a full stop usually says;
:meth:`LinaSession.flush` speaks what is waiting. With the same options and seed the chunks together are, bit for bit,
what :meth:`.predictor.LinaPredictor.predict` returns for the same text with ``retries=0`` and ``sentences_at_once=1``:
sound that was sent cannot be taken back, so a sentence that runs away is cut at its limit and reported, not tried
again, and in batches of several sentences rounding may differ.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mmattn.errors import InputError
from mmattn.speech.lina.generation.speaker import Beginning, Speaker
from mmattn.speech.lina.generation.steps import Generation
from mmattn.speech.lina.results import LinaResult, LinaSentence
from mmattn.speech.lina.text.normalise import check_text
from mmattn.speech.lina.text.planning import PlannedSentence

__all__ = ["AudioChunk", "LinaSession"]

FloatArray = npt.NDArray[np.float32]


class AudioChunk(NamedTuple):
    """Sound that is final.

    Attributes:
        samples: (n,) float32, n at least 1.
        sample_rate: Hz.
        seconds_since_feed: Time from the call of ``feed`` or ``flush`` until it was there.
    """

    samples: FloatArray
    sample_rate: int
    seconds_since_feed: float


@dataclass
class _Ongoing:
    """The sentence that is being spoken.

    Attributes:
        plan: What is to be said.
        generation: Of its codes.
        sent: Frames that were decoded.
        start: Samples before it.
    """

    plan: PlannedSentence
    generation: Generation
    sent: int
    start: int


class LinaSession:
    """See the module; made by :meth:`.predictor.LinaPredictor.open_session`.

    Args:
        speaker: Speaks.
        beginning: What the first sentence is spoken from.
        seed: Of the random numbers.
        model: Fingerprint of the weights.

    Attributes:
        sentences: Those that have been spoken.
        first_audio_seconds: Time from the first call that gave sound until the first chunk; None before.
        planned_tokens: Text tokens of all complete sentences so far, spoken or not; the work grows with them.
    """

    def __init__(self, speaker: Speaker, beginning: Beginning, *, seed: int, model: str) -> None:
        self.sentences: list[LinaSentence] = []
        self.first_audio_seconds: float | None = None
        self.planned_tokens = 0
        self._speaker, self._narrator, self._planner = speaker, speaker.narrator(), speaker.planner()
        self._beginning = self._next_beginning = beginning
        self._seed, self._model, self._sample_rate = seed, model, speaker.codec.sample_rate
        self._queue: deque[PlannedSentence] = deque()
        self._ongoing: _Ongoing | None = None
        self._texts: list[str] = []
        self._pieces: list[FloatArray] = []
        self._samples = 0
        self._work_seconds = 0.0
        self._is_open = True

    def __enter__(self) -> LinaSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def skipped(self) -> list[str]:
        """Pieces of the text that cannot be spoken."""
        return self._planner.skipped

    def feed(self, text: str) -> Iterator[AudioChunk]:
        """Takes the next piece of the text and returns the sound of every sentence that is complete, as it is made.

        The beginning of a sentence is kept until its end comes. If the chunks are not all taken, the next call goes on
        with them.

        Args:
            text: Of any length; words may be cut.

        Raises:
            InputError: If it is no string, which leaves the session as it was, or the session is closed.
        """
        self._check_open()
        check_text(text, "What was fed")
        self._texts.append(text)
        return self._chunks(time.perf_counter(), self._planner.push(text))

    def flush(self) -> Iterator[AudioChunk]:
        """Returns the sound of all that is waiting: the text ends here. What is fed later is a new paragraph.

        Raises:
            InputError: If the session is closed.
        """
        self._check_open()
        return self._chunks(time.perf_counter(), self._planner.finish())

    def close(self) -> None:
        """Ends the session; text that has not been spoken is dropped. :meth:`result` still works."""
        self._is_open = False
        self._ongoing = None
        self._queue.clear()

    def result(self) -> LinaResult:
        """Returns all that has been spoken so far.

        Raises:
            InputError: If no sentence has been spoken yet.
        """
        if not self.sentences:
            raise InputError("Nothing has been spoken in this session yet.", "Feed a sentence, or call flush.")
        return LinaResult(
            samples=np.concatenate(self._pieces),
            sample_rate=self._sample_rate,
            text="".join(self._texts),
            sentences=tuple(self.sentences),
            seed=self._seed,
            voice=self._beginning.voice,
            model=self._model,
            work_seconds=self._work_seconds,
            frame_rate=self._speaker.frame_rate,
            skipped=tuple(self.skipped),
            format=self._speaker.options.format,
        )

    def _chunks(self, called: float, sentences: list[PlannedSentence]) -> Iterator[AudioChunk]:
        # In the queue when feed is called, not when its first chunk is taken.
        self._queue.extend(sentences)
        self.planned_tokens += sum(len(sentence.tokens.ids) for sentence in sentences)

        def chunks() -> Iterator[AudioChunk]:
            while self._is_open:
                before = time.perf_counter()
                samples = self._next_piece()
                now = time.perf_counter()
                self._work_seconds += now - before
                if samples is None:
                    return
                if self.first_audio_seconds is None:
                    self.first_audio_seconds = now - called
                yield AudioChunk(samples, self._sample_rate, now - called)

        return chunks()

    @torch.inference_mode()
    def _next_piece(self) -> FloatArray | None:
        """Returns the next samples, or None if there is nothing left to speak."""
        while True:
            if self._ongoing is None:
                if not self._queue:
                    return None
                samples = self._begin(self._queue.popleft())
            else:
                samples = self._step(self._ongoing)
            if len(samples):
                self._samples += len(samples)
                self._pieces.append(samples)
                return samples

    def _begin(self, plan: PlannedSentence) -> FloatArray:
        """Begins a sentence and returns the pause before it."""
        generation = self._speaker.attempt(plan, self._next_beginning, self._seed)
        pause = self._narrator.begin(plan.after)
        self._ongoing = _Ongoing(plan, generation, 0, self._samples + len(pause))
        return pause

    def _step(self, ongoing: _Ongoing) -> FloatArray:
        """Takes one step of the sentence and returns the samples that are final by it."""
        generation = ongoing.generation
        generation.step()
        codes = generation.codes(0, ongoing.sent)[:, : self._speaker.limit(ongoing.plan) - ongoing.sent]
        ongoing.sent += codes.shape[1]
        samples = self._narrator.push(codes)
        return np.concatenate([samples, self._end(ongoing, len(samples))]) if generation.done else samples

    def _end(self, ongoing: _Ongoing, ready: int) -> FloatArray:
        """Ends the sentence and returns its last samples.

        Args:
            ongoing: The sentence.
            ready: Samples of it that are there but not yet counted.
        """
        spoken = self._speaker.judge(ongoing.plan, self._next_beginning, ongoing.generation.speech(0))
        samples = self._narrator.end(is_cut=not spoken.finished)
        length = self._samples + ready + len(samples) - ongoing.start
        self.sentences.append(
            spoken.describe(start=ongoing.start / self._sample_rate, seconds=length / self._sample_rate)
        )
        self._next_beginning = self._speaker.following(self._beginning, spoken)
        self._ongoing = None
        return samples

    def _check_open(self) -> None:
        if not self._is_open:
            raise InputError("This session is closed.", "Open another one.")
