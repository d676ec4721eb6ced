"""Tests speech with judges that nobody here has trained: is it understood, whose voice is it, how does it sound?

The same texts are judged three times - the reference recordings, the codec's copies of them, the model's speech - so
that a table shows where something is lost::

    judges = open_judges(item.text for item in originals)
    rows = {name: judge_utterances(items, judges, seen_words=words).total for name, items in made.items()}
    print(format_table(rows))

The recogniser's vocabulary depends on the texts: error rates of different test sets are no comparison.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmattn.errors import InputError, MissingExtraError
from mmattn.metrics.error_rate import ErrorCounts, count_errors, find_heard
from mmattn.metrics.tables import markdown
from mmattn.speech.lina.evaluation.table import SpeechScores, SpeechSummary, UtteranceScore, WordRecall, format_table
from mmattn.speech.lina.judges.judge import Wave
from mmattn.speech.lina.judges.quality import QualityJudge
from mmattn.speech.lina.judges.recogniser import Recogniser
from mmattn.speech.lina.judges.speaker import Embedding, SpeakerJudge, similarity
from mmattn.speech.lina.judges.watchdog import AlignmentReport
from mmattn.speech.lina.synthetic.sentences import words_of
from mmattn.speech.lina.text.normalise import normalise

__all__ = [
    "CloneSimilarity",
    "Judged",
    "Judges",
    "SpeechScores",
    "SpeechSummary",
    "clone_similarity",
    "format_table",
    "judge_utterances",
    "open_judges",
    "similarity_table",
    "spoken_words",
]


@dataclass(frozen=True)
class Judged:
    """Speech to judge.

    Attributes:
        text: That it should say.
        wave: (N,) ``float32`` in [-1, 1].
        sample_rate: Hz.
        voice: Who speaks, or should.
        reference_seconds: How long the same text is in the reference, if it is known.
        alignment: How the model read the text, if a model did.
    """

    text: str
    wave: Wave
    sample_rate: int
    voice: str
    reference_seconds: float | None = None
    alignment: AlignmentReport | None = None


@dataclass(frozen=True)
class Judges:
    """Who judges.

    Attributes:
        recogniser: Whose vocabulary has the words of all texts.
        speaker: None if it is left out.
        quality: None if it is left out.
        left_out: Judges that could not be had, with the reason.
    """

    recogniser: Recogniser
    speaker: SpeakerJudge | None = None
    quality: QualityJudge | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CloneSimilarity:
    """Whether speech in a cloned voice is closer to that voice than to all others.

    Attributes:
        voice: Whose it should be.
        similarities: Mean cosine of the utterances to every voice's centroid, the nearest first.
        nearest: Part of the utterances that are closer to the voice than to every other.
    """

    voice: str
    similarities: Mapping[str, float]
    nearest: float

    @property
    def is_nearest(self) -> bool:
        """Whether the voice is the nearest on average."""
        return next(iter(self.similarities)) == self.voice


def spoken_words(text: str) -> list[str]:
    """Returns the words that a reader of the text says, in lower case, numbers written out.

    >>> spoken_words("It's 3 o'clock, Anna!")
    ["it's", 'three', "o'clock", 'anna']
    """
    return words_of(normalise(text))


def open_judges(texts: Iterable[str], *, num_distractors: int = 2000, seed: int = 0) -> Judges:
    """Returns the recogniser for these texts, and those of the other judges that are installed.

    Args:
        texts: All that will be judged.
        num_distractors: Words added to the recogniser's vocabulary.
        seed: Of their choice.

    Raises:
        MissingExtraError: If the recogniser is not installed.
        InputError: If its dictionary lacks words.
    """
    recogniser = Recogniser((word for text in texts for word in spoken_words(text)), num_distractors, seed)
    speaker: SpeakerJudge | None = None
    quality: QualityJudge | None = None
    left_out: dict[str, str] = {}
    try:
        speaker = SpeakerJudge()
    except InputError as error:
        left_out["speaker"] = str(error)
    try:
        quality = QualityJudge()
    except (InputError, MissingExtraError) as error:
        left_out["quality"] = str(error)
    return Judges(recogniser, speaker, quality, left_out)


def judge_utterances(
    items: Iterable[Judged],
    judges: Judges,
    *,
    seen_words: Container[str],
    centroids: Mapping[str, Embedding] | None = None,
) -> SpeechScores:
    """Returns what the judges say, each utterance judged by itself.

    Args:
        items: At least one; they are taken one at a time.
        judges: From :func:`open_judges` for these texts.
        seen_words: The words of training, lower case.
        centroids: Of every voice (:func:`.judges.speaker.voice_centroids` of reference recordings); None leaves the
            similarity out.

    Raises:
        InputError: If there is no utterance, a text has no words or words that the recogniser does not know, a wave
            cannot be judged, or a voice has no centroid.
    """
    scores = [_judge(item, judges, seen_words, centroids) for item in items]
    if not scores:
        raise InputError("There is no speech to judge.")
    chance_words, chance_characters = _chance(scores, judges.recogniser)
    return SpeechScores(scores, chance_words.rate, chance_characters.rate, judges.left_out)


def clone_similarity(
    voice: str, utterances: Iterable[Embedding], centroids: Mapping[str, Embedding]
) -> CloneSimilarity:
    """Compares speech in a cloned voice with that voice and others.

    Args:
        voice: Whose it should be; one of ``centroids``.
        utterances: Vectors of the speech, at least one.
        centroids: Of the voice and of all it could be taken for.

    Raises:
        InputError: If the voice has no centroid, or there is no utterance.
    """
    vectors = list(utterances)
    if voice not in centroids or not vectors:
        raise InputError(f"Got {len(vectors)} utterances of {voice!r} and voices {', '.join(centroids)}.")
    names = list(centroids)
    table = np.array([[similarity(vector, centroids[name]) for name in names] for vector in vectors])
    means = dict(zip(names, table.mean(axis=0).tolist(), strict=True))
    others = np.delete(table, names.index(voice), axis=1).max(axis=1, initial=-1.0)
    return CloneSimilarity(
        voice=voice,
        similarities=dict(sorted(means.items(), key=lambda pair: -pair[1])),
        nearest=float((table[:, names.index(voice)] > others).mean()),
    )


def similarity_table(clones: Sequence[CloneSimilarity]) -> str:
    """Returns a Markdown table: each cloned voice's similarity to itself and to the nearest other voice."""
    lines = [
        ("cloned voice", "similarity to it", "nearest other voice", "similarity to that", "utterances nearest to it")
    ]
    for clone in clones:
        others = [(name, value) for name, value in clone.similarities.items() if name != clone.voice]
        name, value = (others[0][0], f"{others[0][1]:.3f}") if others else ("-", "-")
        own = clone.similarities[clone.voice]
        lines.append((clone.voice, f"{own:.3f}", name, value, f"{100 * clone.nearest:.0f} %"))
    return markdown(lines)


def _judge(
    item: Judged, judges: Judges, seen_words: Container[str], centroids: Mapping[str, Embedding] | None
) -> UtteranceScore:
    text = spoken_words(item.text)
    _check_words(text, item.text, judges.recogniser)
    heard = judges.recogniser.transcribe(item.wave, item.sample_rate)
    same = judges.recogniser.sounds_alike
    outcome = list(zip(text, find_heard(text, heard, same), strict=True))
    seen = [is_heard for word, is_heard in outcome if word in seen_words]
    unseen = [is_heard for word, is_heard in outcome if word not in seen_words]
    spelled = judges.recogniser.spell_like(text, heard)
    return UtteranceScore(
        voice=item.voice,
        text=tuple(text),
        heard=tuple(spelled),
        words=count_errors(text, spelled),
        characters=count_errors(" ".join(text), " ".join(spelled)),
        seen=WordRecall(sum(seen), len(seen)),
        unseen=WordRecall(sum(unseen), len(unseen)),
        seconds=len(item.wave) / item.sample_rate,
        reference_seconds=item.reference_seconds,
        similarity=_similarity(item, judges.speaker, centroids),
        quality=judges.quality.rate(item.wave, item.sample_rate) if judges.quality else None,
        alignment=item.alignment,
    )


def _check_words(words: Sequence[str], text: str, recogniser: Recogniser) -> None:
    unknown = [word for word in words if word not in recogniser.words]
    if unknown or not words:
        what = f"has words that the recogniser does not listen for: {', '.join(unknown)}" if unknown else "has no words"
        raise InputError(f"The text {text!r} {what}.", "Open the judges with all texts that they will judge.")


def _similarity(item: Judged, speaker: SpeakerJudge | None, centroids: Mapping[str, Embedding] | None) -> float | None:
    if speaker is None or centroids is None:
        return None
    if item.voice not in centroids:
        raise InputError(f"Voice {item.voice!r} has no centroid; there are {', '.join(centroids)}.")
    return similarity(speaker.embed(item.wave, item.sample_rate), centroids[item.voice])


def _chance(scores: Sequence[UtteranceScore], recogniser: Recogniser) -> tuple[ErrorCounts, ErrorCounts]:
    """Returns word and character errors of every transcript against the next text that is another one."""
    words, characters = ErrorCounts(), ErrorCounts()
    for place, score in enumerate(scores):
        following = [*scores[place + 1 :], *scores[:place]]
        other = next((candidate.text for candidate in following if candidate.text != score.text), None)
        if other is not None:
            heard = recogniser.spell_like(other, score.heard)
            words += count_errors(other, heard)
            characters += count_errors(" ".join(other), " ".join(heard))
    return words, characters
