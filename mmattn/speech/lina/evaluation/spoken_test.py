"""The test of a model that speaks: its sentences, the codec's copies and the recordings before the same judges.

Held-out voices are cloned and speak too: their sentences should sound more like them than like any voice the model
knows. All texts are read once more as one page, whose end should be as good as its beginning. Everything goes through
:class:`.predictor.LinaPredictor`, as users get it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from mmattn.errors import InputError
from mmattn.media.audio import SYNTHETIC_SPEECH, read_audio, write_audio
from mmattn.media.files import write_text
from mmattn.metrics.tables import write_json
from mmattn.speech.lina.datasets.layouts import find_utterances
from mmattn.speech.lina.datasets.recordings import Recording
from mmattn.speech.lina.datasets.records import SpeechFile
from mmattn.speech.lina.evaluation.scores import (
    CloneSimilarity,
    Judged,
    Judges,
    SpeechScores,
    clone_similarity,
    format_table,
    judge_utterances,
    open_judges,
    similarity_table,
)
from mmattn.speech.lina.judges.speaker import Embedding, voice_centroids
from mmattn.speech.lina.predictor import LinaItem, LinaPredictor
from mmattn.speech.lina.voices.files import Voice

__all__ = ["SpokenTest", "find_held_out", "run_spoken_test"]

_BATCH = 8
_TESTED, _CLONED = "test", "clone"
_CONSENT = "Test of cloning; the voice is not kept."


@dataclass(frozen=True)
class SpokenTest:
    """What came out.

    Attributes:
        rows: Scores of the recordings, the codec's copies, the speech, the first and the last quarter of the page, and
            the first three of every held-out voice.
        clones: Whom the cloned voices sound like.
    """

    rows: dict[str, SpeechScores]
    clones: list[CloneSimilarity] = field(default_factory=list)

    def table(self) -> str:
        """Returns Markdown."""
        text = format_table({name: scores.total for name, scores in self.rows.items()})
        return f"{text}\n\n{similarity_table(self.clones)}" if self.clones else text

    def numbers(self) -> dict[str, float]:
        """Returns every number that there is, by the name ``row/score``."""
        found = {
            f"{name.replace(' ', '_')}/{score}": value
            for name, scores in self.rows.items()
            for score, value in scores.total.to_json().items()
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def save(self, folder: Path) -> None:
        """Writes ``scores.json`` and ``table.md``."""
        clones = [
            {"voice": c.voice, "similarities": c.similarities, "nearest": c.nearest, "is_nearest": c.is_nearest}
            for c in self.clones
        ]
        scores = {"rows": {name: scores.to_json() for name, scores in self.rows.items()}, "clones": clones}
        write_json(folder / "scores.json", scores)
        write_text(folder / "table.md", self.table() + "\n")


@dataclass(frozen=True)
class _Recorded:
    """A reference recording and its text."""

    text: str
    voice: str
    file: Path

    def judged(self) -> Judged:
        recording = read_audio(self.file)
        return Judged(self.text, recording.samples, recording.sample_rate, self.voice)


def find_held_out(folder: str | Path) -> list[Path]:
    """Returns the folders of held-out voices, each with sub-folders ``clone`` and ``test``.

    Raises:
        InputError: If there are none.
    """
    found = sorted(path.parent for path in Path(folder).glob(f"*/{_TESTED}") if (path.parent / _CLONED).is_dir())
    if not found:
        raise InputError(
            f"There are no held-out voices in {folder}.", f"Expected folders VOICE/{_CLONED} and VOICE/{_TESTED} in it."
        )
    return found


def run_spoken_test(
    predictor: LinaPredictor,
    files: Sequence[SpeechFile],
    *,
    seen_words: frozenset[str],
    held_out: Sequence[Path] = (),
    examples: Path | None = None,
    seed: int = 0,
) -> SpokenTest:
    """Speaks, clones and judges.

    Args:
        predictor: With a voice of every speaker's name; a speaker without one is spoken by the model's usual voice.
        files: Reference recordings and texts.
        seen_words: The words of training, lower case.
        held_out: From :func:`find_held_out`.
        examples: Folder to write all speech to; None keeps none.
        seed: Of the first sentence; the next has the next.

    Raises:
        InputError: As :func:`.scores.judge_utterances`, or a held-out voice cannot be cloned.
        MissingExtraError: If the recogniser is not installed.
    """
    known = [_Recorded(file.text, file.speaker, file.audio) for file in files]
    strange = {folder: _recorded(folder / _TESTED, folder.name) for folder in held_out}
    everything = [*known, *(item for items in strange.values() for item in items)]
    judges = open_judges(item.text for item in everything)
    centroids = _centroids(everything, judges)
    rows: dict[str, SpeechScores] = {}

    def judge(row: str, made: Iterator[Judged], count: int) -> list[Judged]:
        bar = tqdm(made, desc=f"Judging {row}", total=count, unit="sentence", mininterval=5)
        kept: list[Judged] = []
        for number, item in enumerate(bar):
            kept.append(item)
            if examples is not None:
                file = examples / row.replace(" ", "_") / f"{number:03d}_{item.voice}.wav"
                write_audio(file, item.wave, item.sample_rate, comment=SYNTHETIC_SPEECH)
        rows[row] = judge_utterances(kept, judges, seen_words=seen_words, centroids=centroids)
        return kept

    def judge_all(suffix: str, items: list[_Recorded], voice: Voice | None) -> list[Judged]:
        """Judges recordings, the codec's copies and the speech, and returns the speech."""
        judge(f"recordings{suffix}", (item.judged() for item in items), len(items))
        judge(f"codec{suffix}", (_copied(item, predictor) for item in items), len(items))
        return judge(f"speech{suffix}", _spoken(items, predictor, voice, seed), len(items))

    judge_all("", known, None)
    page = list(_read_page(known, predictor, seed))
    quarter = -(-len(page) // 4)
    judge("page start", iter(page[:quarter]), quarter)
    judge("page end", iter(page[-quarter:]), quarter)
    clones: list[CloneSimilarity] = []
    for folder, items in strange.items():
        spoken = judge_all(f" of {folder.name}", items, _cloned(predictor, folder))
        if judges.speaker is not None and centroids is not None:
            vectors = [judges.speaker.embed(item.wave, item.sample_rate) for item in spoken]
            clones.append(clone_similarity(folder.name, vectors, centroids))
    return SpokenTest(rows, clones)


def _recorded(folder: Path, voice: str) -> list[_Recorded]:
    return [_Recorded(file.text, voice, file.audio) for file in find_utterances(folder, "folder")]


def _centroids(items: Sequence[_Recorded], judges: Judges) -> dict[str, Embedding] | None:
    if judges.speaker is None:
        return None
    vectors: dict[str, list[Embedding]] = {}
    for item in tqdm(items, desc="Hearing voices", unit="recording", mininterval=5):
        heard = item.judged()
        vectors.setdefault(item.voice, []).append(judges.speaker.embed(heard.wave, heard.sample_rate))
    return voice_centroids(vectors)


@torch.inference_mode()
def _copied(item: _Recorded, predictor: LinaPredictor) -> Judged:
    codec = predictor.codec
    wave = torch.from_numpy(read_audio(item.file, sample_rate=codec.sample_rate).samples)[None].to(predictor.device)
    copy = codec.decode(codec.encode(wave))[0, : wave.shape[1]]
    return Judged(item.text, copy.cpu().numpy(), codec.sample_rate, item.voice)


def _spoken(items: Sequence[_Recorded], predictor: LinaPredictor, voice: Voice | None, seed: int) -> Iterator[Judged]:
    """Speaks the items with one voice, or each with the shipped voice of its speaker."""
    for first in range(0, len(items), _BATCH):
        batch = items[first : first + _BATCH]
        wanted = [
            LinaItem(item.text, voice or (item.voice if item.voice in predictor.voices else None), seed + first + i)
            for i, item in enumerate(batch)
        ]
        for item, result in zip(batch, predictor.predict_batch(wanted), strict=True):
            report = result.sentences[0].report if len(result.sentences) == 1 else None
            seconds = read_audio(item.file).seconds
            yield Judged(item.text, result.samples, result.sample_rate, item.voice, seconds, report)


def _read_page(items: Sequence[_Recorded], predictor: LinaPredictor, seed: int) -> Iterator[Judged]:
    """Reads all texts as one, with the voice of the first, and yields its sentences."""
    voice = items[0].voice
    text = "\n".join(item.text for item in items)
    result = predictor.predict(LinaItem(text, voice if voice in predictor.voices else None, seed))
    for sentence in result.sentences:
        start = round(sentence.start * result.sample_rate)
        sound = result.samples[start : start + round(sentence.seconds * result.sample_rate)]
        yield Judged(sentence.text, sound, result.sample_rate, voice, None, sentence.report)


def _cloned(predictor: LinaPredictor, folder: Path) -> Voice:
    recordings = [Recording(file.audio, file.text) for file in find_utterances(folder / _CLONED, "folder")]
    with tqdm(desc=f"Cloning {folder.name}", unit="step", mininterval=5) as bar:

        def report(step: int, total: int, loss: float) -> None:
            bar.total = total
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        return predictor.clone(recordings, consent=_CONSENT, name=folder.name, report=report)
