"""Sentences to codes: many at once, watched, and spoken again when they fail.

Every sentence draws from random numbers of its own, made from the item's seed, the sentence's place and the attempt, so
that what it sounds like does not depend on what it is generated with. Sentences that start from the voice are
independent of each other and fill batches across items; those that go on from the one before wait for it. A sentence
that had to be cut leaves no state worth going on from: the next one starts from the voice again.

Shapes: M text tokens, Q codebooks, n frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.generation.choice import choose_speaking
from mmattn.speech.lina.generation.steps import Generation, GenerationOptions, Speech, SpeechRequest, generate
from mmattn.speech.lina.judges.alignment import AlignmentReport, alignment_report, best_candidates
from mmattn.speech.lina.judges.watchdog import Watchdog
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.network.decoder import DecoderState
from mmattn.speech.lina.results import LinaSentence
from mmattn.speech.lina.text.planning import PlannedSentence
from mmattn.speech.lina.text.tokens import TextTokens

__all__ = ["Beginning", "Speaker", "SpokenSentence", "draw_seed"]


@dataclass(frozen=True)
class Beginning:
    """What a text is spoken from.

    Attributes:
        state: Of the voice; None is the model's own start.
        prompt: (Q, n) codes of a recording to go on from.
        prompt_text: What is said in it.
    """

    state: DecoderState | None = None
    prompt: Tensor | None = None
    prompt_text: TextTokens | None = None


@dataclass(frozen=True)
class SpokenSentence:
    """One sentence, spoken.

    Attributes:
        plan: What was to be said.
        codes: (Q, n).
        alignment: (n, M) float32 weights of the sentence's tokens; with a prompt rows may sum to less than 1.
        finished: Whether it ended by itself and was not cut.
        report: How it read the text.
        problems: What is wrong with it, in words.
        retries: Attempts after the first.
        state: To go on from; None if it was cut.
    """

    plan: PlannedSentence
    codes: Tensor
    alignment: npt.NDArray[np.float32]
    finished: bool
    report: AlignmentReport
    problems: tuple[str, ...]
    retries: int
    state: DecoderState | None

    def describe(self, *, start: float, seconds: float) -> LinaSentence:
        """Returns what a result tells about the sentence.

        Args:
            start: Where it begins in the recording, seconds.
            seconds: How long it is.
        """
        return LinaSentence(
            text=self.plan.text,
            symbols=self.plan.tokens.symbols,
            words=self.plan.tokens.words,
            alignment=np.ascontiguousarray(self.alignment.T),
            start=start,
            seconds=seconds,
            finished=self.finished,
            retries=self.retries,
            problems=self.problems,
            report=self.report,
        )


@dataclass
class _Job:
    """A sentence that is being worked on.

    Attributes:
        item: Number of its item.
        place: Its number in that.
        beginning: What it is spoken from.
        tries: Attempts so far.
    """

    item: int
    place: int
    beginning: Beginning
    tries: list[SpokenSentence]


def draw_seed(seed: int, place: int, attempt: int) -> int:
    """Returns the seed of one attempt at one sentence.

    >>> draw_seed(0, 1, 0) != draw_seed(1, 0, 0)
    True
    """
    return int(np.random.SeedSequence([seed, place, attempt]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Speaker:
    """Speaks sentences.

    Args:
        model: In evaluation mode.
        watchdog: What is expected of sentences.
        options: Of the run.

    Raises:
        InputError: If an option of sampling, or what the checkpoint recommends, is out of range.
    """

    def __init__(self, model: LinaModel, watchdog: Watchdog, options: LinaInferOptions) -> None:
        self._model, self._watchdog, self._options = model, watchdog, options
        self._sampling, self._guidance, self._max_characters = choose_speaking(options, model.config.speaking)
        # Without randomness another attempt would say the same.
        drawn = self._sampling
        is_random = drawn.temperature > 0 and drawn.top_k != 1 and drawn.sampled_codebooks != 0
        self._retries = options.retries if is_random else 0

    @property
    def sampling(self) -> SamplingOptions:
        """How tokens are drawn."""
        return self._sampling

    @property
    def max_characters(self) -> int:
        """Longest sentence that is spoken at one go."""
        return self._max_characters

    def speak(
        self, items: Sequence[Sequence[PlannedSentence]], beginnings: Sequence[Beginning], seeds: Sequence[int]
    ) -> list[list[SpokenSentence]]:
        """Returns the sentences of every item, spoken.

        Args:
            items: Each with its sentences.
            beginnings: One of each item.
            seeds: The same.

        Raises:
            CheckpointError: If the model's output is not finite.
            InputError: As :class:`.steps.Generation`.
        """
        spoken: list[list[SpokenSentence]] = [[] for _ in items]
        waiting = self._first_jobs(items, beginnings)
        while waiting:
            # Sentences of about one length together waste the fewest steps; failed ones are as long as they were.
            waiting.sort(key=lambda job: (len(items[job.item][job.place].tokens.ids), job.item, job.place))
            count = max(1, self._options.sentences_at_once // self._options.candidates)
            batch, waiting = waiting[:count], waiting[count:]
            self._attempt(batch, items, seeds)
            for job in batch:
                if not self._is_settled(job):
                    waiting.append(job)
                    continue
                best = self._best(job)
                waiting += self._next_job(job, best, items, beginnings)
                # A page of states would be as large as the model.
                spoken[job.item].append(replace(best, state=None))
        return [sorted(sentences, key=lambda sentence: sentence.plan.place) for sentences in spoken]

    def begin(self, plan: PlannedSentence, beginning: Beginning, seed: int) -> tuple[Generation, int]:
        """Returns the first attempt at one sentence, to be stepped, and the frames at which to cut it.

        Args:
            plan: The sentence.
            beginning: What it is spoken from.
            seed: Of its item.
        """
        limit = self._limit(plan)
        request = self._request(plan, beginning, draw_seed(seed, plan.place, 0))
        return Generation(self._model, [request], self._generation_options(limit)), limit

    def judge(self, plan: PlannedSentence, beginning: Beginning, speech: Speech, retries: int = 0) -> SpokenSentence:
        """Returns an attempt, cut to its limit, with all that is wrong with it.

        Args:
            plan: What was to be said.
            beginning: What it was spoken from.
            speech: What the model said.
            retries: Attempts before.
        """
        limit = self._limit(plan)
        frames = min(speech.codes.shape[1], limit)
        finished = speech.finished and frames < limit
        rows = speech.alignment[:frames].float().cpu().numpy()
        before = 0 if beginning.prompt_text is None else len(beginning.prompt_text.ids) - 2
        # The prompt's start stands for the sentence's own.
        alignment = np.concatenate([rows[:, :1], rows[:, 1 + before :]], axis=1)
        report = alignment_report(alignment, plan.tokens.words)
        tokens, words = len(plan.tokens.ids) - 2, plan.tokens.count_words()
        problems = self._watchdog.problems(tokens, words, frames, finished=finished, report=report)
        state = speech.state if finished else None
        return SpokenSentence(plan, speech.codes[:, :frames], alignment, finished, report, problems, retries, state)

    def following(self, beginning: Beginning, spoken: SpokenSentence) -> Beginning:
        """Returns what the sentence after this one is spoken from."""
        if self._options.carry == "voice" or spoken.state is None:
            return beginning
        return Beginning(spoken.state.for_next_text(self._model.initial_state(1)))

    def _first_jobs(self, items: Sequence[Sequence[PlannedSentence]], beginnings: Sequence[Beginning]) -> list[_Job]:
        ready = 1 if self._options.carry == "state" else None
        return [
            _Job(number, place, beginning, [])
            for number, (sentences, beginning) in enumerate(zip(items, beginnings, strict=True))
            for place in range(len(sentences[:ready]))
        ]

    def _next_job(
        self,
        job: _Job,
        spoken: SpokenSentence,
        items: Sequence[Sequence[PlannedSentence]],
        beginnings: Sequence[Beginning],
    ) -> list[_Job]:
        """Returns the sentence that waited for this one, if any."""
        if self._options.carry == "voice" or job.place + 1 == len(items[job.item]):
            return []
        return [_Job(job.item, job.place + 1, self.following(beginnings[job.item], spoken), [])]

    def _attempt(self, jobs: Sequence[_Job], items: Sequence[Sequence[PlannedSentence]], seeds: Sequence[int]) -> None:
        """Speaks every job once more, or for the first time with all its candidates."""
        entries = [
            (job, attempt)
            for job in jobs
            for attempt in ([len(job.tries)] if job.tries else range(self._options.candidates))
        ]
        plans = [items[job.item][job.place] for job, _ in entries]
        requests = [
            self._request(plan, job.beginning, draw_seed(seeds[job.item], plan.place, attempt))
            for plan, (job, attempt) in zip(plans, entries, strict=True)
        ]
        longest = max(self._limit(plan) for plan in plans)
        speeches = generate(self._model, requests, self._generation_options(longest))
        for plan, (job, attempt), speech in zip(plans, entries, speeches, strict=True):
            retries = max(0, attempt - self._options.candidates + 1)
            job.tries.append(self.judge(plan, job.beginning, speech, retries))

    def _is_settled(self, job: _Job) -> bool:
        retries = len(job.tries) - self._options.candidates
        return retries >= self._retries or any(not attempt.problems for attempt in job.tries)

    def _is_nothing(self, attempt: SpokenSentence) -> bool:
        words, frames = attempt.plan.tokens.count_words(), attempt.codes.shape[1]
        return attempt.finished and self._watchdog.is_nothing(words, frames)

    def _best(self, job: _Job) -> SpokenSentence:
        """Returns the attempt with the fewest problems and the steadiest alignment; it says how many there were.

        One that ended at once is taken only if all did.
        """
        some = [attempt for attempt in job.tries if not self._is_nothing(attempt)] or job.tries
        fewest = min(len(attempt.problems) for attempt in some)
        good = [attempt for attempt in some if len(attempt.problems) == fewest]
        best = good[best_candidates([torch.from_numpy(attempt.alignment) for attempt in good])[0]]
        return replace(best, retries=max(attempt.retries for attempt in job.tries))

    def _request(self, plan: PlannedSentence, beginning: Beginning, seed: int) -> SpeechRequest:
        text = plan.tokens.ids
        if beginning.prompt_text is not None:
            text = torch.cat([beginning.prompt_text.ids[:-1], text[1:]])
        return SpeechRequest(text, beginning.prompt, beginning.state, seed)

    def _limit(self, plan: PlannedSentence) -> int:
        return self._watchdog.limit(len(plan.tokens.ids) - 2)

    def _generation_options(self, limit: int) -> GenerationOptions:
        # The frames up to the limit are then the same whether this or a longer sentence of the batch sets it: forcing
        # ends into the first codebook reaches the last one's frames only after it.
        frames = limit + self._model.config.num_codebooks - 1
        return GenerationOptions(sampling=self._sampling, max_frames=frames, guidance=self._guidance)
