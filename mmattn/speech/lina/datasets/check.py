"""``mmattn data check lina PATH``: everything that is wrong with a speech dataset, before a training finds it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mmattn.core.datasets.layouts import Report
from mmattn.errors import MediaError, describe
from mmattn.media.audio import read_audio
from mmattn.speech.lina.datasets.layouts import scan
from mmattn.speech.lina.datasets.recordings import trim_silence
from mmattn.speech.lina.datasets.records import SpeechFile
from mmattn.speech.lina.judges.watchdog import SECONDS_PER_TOKEN, fits_text
from mmattn.speech.lina.text.normalise import spoken_form

__all__ = ["check_folder"]

_SHORTEST, _LONGEST = 0.3, 30.0
_SPLITS = ("train", "val", "test")
# A share of the samples at the very edge of the range, which speech that was not clipped does not reach.
_EDGE, _CLIPPED = 0.999, 1e-3


@dataclass
class _Content:
    """What is in a speech dataset.

    Attributes:
        utterances: Split -> how many.
        seconds: Split -> of how much speech that can be read.
        speakers: All of them.
        sample_rates: Rate, Hz -> recordings.
        left_out: Character that cannot be spoken -> texts with it.
    """

    utterances: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SPLITS, 0.0))
    speakers: set[str] = field(default_factory=set)
    sample_rates: Counter[int] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """Yields what there is, as text."""
        hours = sum(self.seconds.values()) / 3600
        counts = _number(sum(self.utterances.values()), "utterance"), _number(len(self.speakers), "speaker")
        yield f"{', '.join(counts)}, {hours:.2f} hours"
        for split in _SPLITS:
            yield f"{split}: {_number(self.utterances[split], 'utterance')}, {self.seconds[split] / 60:.1f} min"
        rates = ", ".join(f"{rate} Hz ({count})" for rate, count in sorted(self.sample_rates.items()))
        yield f"sample rates: {rates or 'none'}"
        if self.left_out:
            named = ", ".join(f"{character} ({count})" for character, count in self.left_out.most_common(10))
            yield f"characters that are not spoken, and the texts with them: {named}"


def check_folder(path: str | Path, layout: str = "auto") -> Report:
    """Reads every file of a dataset and names all that is wrong with it.

    Texts that are missing, empty, or have nothing that can be spoken; recordings without a text, damaged, empty,
    silent, clipped, shorter than 0.3 s or longer than 30 s, too long or too short for their texts; and a dataset
    without anything to train on.

    Args:
        path: The dataset's folder, or its manifest.
        layout: One of :data:`mmattn.speech.lina.datasets.layouts.LAYOUTS`, or "auto".

    Raises:
        InputError: If the folder is missing, or fits no layout or several.
        MissingExtraError: If there are digits in a text, and num2words is not installed.
    """
    found = scan(path, layout)
    content, problems = _Content(), found.problems
    for item in tqdm(found.utterances, desc="Checking", unit="utterance", file=sys.stderr, mininterval=1):
        content.utterances[item.split] += 1
        content.speakers.add(item.speaker)
        spoken, dropped = spoken_form(item.text)
        content.left_out.update(dropped)
        if not spoken:
            problems.append(f"{item.audio}: its text '{item.text[:40]}' has nothing that can be spoken.")
        problems += _audio_problems(item, spoken, content)
    if not content.utterances["train"]:
        problems.append("There is no utterance to train on.")
    return Report(found.layout, found.root, problems, list(content.lines()))


def _audio_problems(item: SpeechFile, spoken: str, content: _Content) -> Iterator[str]:
    try:
        recording = read_audio(item.audio)
    except MediaError as error:
        yield describe(error)[0]
        return
    content.sample_rates[recording.sample_rate] += 1
    content.seconds[item.split] += recording.seconds
    if not _SHORTEST <= recording.seconds <= _LONGEST:
        yield f"{item.audio} lasts {recording.seconds:.2f} s, expected {_SHORTEST:g} to {_LONGEST:g} s."
    else:
        # What a clone refuses, too; of a length out of range enough has been said.
        speech = len(trim_silence(recording.samples, recording.sample_rate)) / recording.sample_rate
        if spoken and not fits_text(len(spoken), speech, SECONDS_PER_TOKEN["characters"]):
            yield f"{item.audio} lasts {speech:.2f} s without silence, which does not fit its text {item.text[:40]!r}."
    clipped = _clipped(recording.samples)
    if clipped > _CLIPPED:
        yield f"{item.audio} is clipped: {clipped:.1%} of its samples are at the limit."


def _clipped(samples: npt.NDArray[np.float32]) -> float:
    """Returns the share of samples at the edge of the range."""
    return float((np.abs(samples) >= _EDGE).mean())


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
