"""Sentences of many texts, spoken together, watched, and spoken again when they fail.

Every sentence draws from random numbers of its own, made from the text's seed, the sentence's place and the attempt, so
that what it sounds like does not depend on what it is generated with. Sentences that start from the voice are
independent of each other and fill batches across texts; those that go on from the one before wait for it. A sentence
that had to be cut leaves no state worth going on from: the next one starts from the voice again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from mmattn.speech.lina.generation.speaker import Beginning, Speaker, SpokenSentence, draw_seed
from mmattn.speech.lina.generation.steps import generate
from mmattn.speech.lina.judges.watchdog import best_candidates
from mmattn.speech.lina.text.planning import PlannedSentence

__all__ = ["PlannedText", "speak_texts"]


@dataclass(frozen=True)
class PlannedText:
    """One text to speak.

    Attributes:
        sentences: In order.
        beginning: What it is spoken from.
        seed: Of its random numbers.
    """

    sentences: Sequence[PlannedSentence]
    beginning: Beginning
    seed: int


@dataclass
class _Job:
    """A sentence that is being worked on.

    Attributes:
        text: Number of its text.
        place: Its number in that.
        plan: What is to be said.
        beginning: What it is spoken from.
        seed: Of its text.
        tries: Attempts so far.
    """

    text: int
    place: int
    plan: PlannedSentence
    beginning: Beginning
    seed: int
    tries: list[SpokenSentence] = field(default_factory=list)


def speak_texts(speaker: Speaker, texts: Sequence[PlannedText]) -> list[list[SpokenSentence]]:
    """Returns the sentences of every text, spoken.

    Raises:
        CheckpointError: If the model's output is not finite.
        InputError: As :class:`.steps.Generation`.
    """
    options = speaker.options
    together = max(1, options.sentences_at_once // options.candidates)
    ready = 1 if options.carry == "state" else None
    waiting = [
        _Job(number, place, plan, text.beginning, text.seed)
        for number, text in enumerate(texts)
        for place, plan in enumerate(text.sentences[:ready])
    ]
    spoken: list[list[SpokenSentence]] = [[] for _ in texts]
    while waiting:
        # Sentences of about one length together waste the fewest steps; failed ones are as long as they were.
        waiting.sort(key=lambda job: (len(job.plan.tokens.ids), job.text, job.place))
        batch, waiting = waiting[:together], waiting[together:]
        _attempt(speaker, batch)
        for job in batch:
            if not _is_settled(speaker, job):
                waiting.append(job)
                continue
            best, text = _best(speaker, job), texts[job.text]
            if ready is not None and job.place + 1 < len(text.sentences):
                beginning, place = speaker.following(text.beginning, best), job.place + 1
                waiting.append(_Job(job.text, place, text.sentences[place], beginning, text.seed))
            # A page of states would be as large as the model.
            spoken[job.text].append(replace(best, state=None))
    return [sorted(sentences, key=lambda sentence: sentence.plan.place) for sentences in spoken]


def _attempt(speaker: Speaker, jobs: Sequence[_Job]) -> None:
    """Speaks every job once more, or for the first time with all its candidates."""
    candidates = speaker.options.candidates
    entries = [(job, attempt) for job in jobs for attempt in ([len(job.tries)] if job.tries else range(candidates))]
    requests = [
        speaker.request(job.plan, job.beginning, draw_seed(job.seed, job.plan.place, attempt))
        for job, attempt in entries
    ]
    longest = max(speaker.limit(job.plan) for job in jobs)
    speeches = generate(speaker.model, requests, speaker.generation_options(longest))
    for (job, attempt), speech in zip(entries, speeches, strict=True):
        retries = max(0, attempt - candidates + 1)
        job.tries.append(speaker.judge(job.plan, job.beginning, speech, retries))


def _is_settled(speaker: Speaker, job: _Job) -> bool:
    retries = len(job.tries) - speaker.options.candidates
    return retries >= speaker.retries or any(not attempt.problems for attempt in job.tries)


def _best(speaker: Speaker, job: _Job) -> SpokenSentence:
    """Returns the attempt with the fewest problems and the steadiest alignment; it says how many there were.

    One that ended at once is taken only if all did.
    """
    words = job.plan.tokens.count_words()
    some = [
        attempt
        for attempt in job.tries
        if not (attempt.finished and speaker.watchdog.is_nothing(words, attempt.codes.shape[1]))
    ] or job.tries
    fewest = min(len(attempt.problems) for attempt in some)
    good = [attempt for attempt in some if len(attempt.problems) == fewest]
    best = good[best_candidates([torch.from_numpy(attempt.alignment) for attempt in good])[0]]
    return replace(best, retries=max(attempt.retries for attempt in job.tries))
