"""Speech datasets on disk: which utterances there are, who speaks, and what they are for.

| layout | files | speaker | split |
| --- | --- | --- | --- |
| manifest | ``manifest.jsonl``, a line ``{"audio": ..., "text": ..., "speaker": ..., "split": ...}`` each | as it says | as it says |
| ljspeech | ``metadata.csv`` (``id|text|normalised text``) and ``wavs/id.wav`` | one | none |
| libritts | ``SUBSET/SPEAKER/CHAPTER/*.wav`` and ``.normalized.txt``, LibriTTS and LibriTTS-R | folder | ``train-*``, ``dev-*``, ``test-*`` |
| vctk | ``wav48_silence_trimmed/SPEAKER/SPEAKER_NUMBER_mic1.flac`` and ``txt/SPEAKER/SPEAKER_NUMBER.txt`` (0.92) | folder | none |
| mls | ``train``, ``dev``, ``test``: ``transcripts.txt`` (``id<TAB>text``), ``audio/SPEAKER/BOOK/id.flac`` | in the id | folder |
| folder | ``[SPLIT/][SPEAKER/].../NAME.wav`` and ``NAME.txt`` | folder | folder |

Only ``audio``, relative to the manifest, and ``text`` are needed in a manifest. Where all is for training, 2 % are kept
to validate and 2 % to test, chosen by their names alone: a file keeps its place when others come or go. Of VCTK's two microphones the first is taken.
"""  # noqa: E501 - a table

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from mmattn.errors import InputError
from mmattn.speech.lina.datasets.readers import LAYOUTS, guess_layouts
from mmattn.speech.lina.datasets.records import Scan, SpeechFile, Split
from mmattn.speech.lina.datasets.roots import MANIFEST

__all__ = ["LAYOUTS", "find_utterances", "hash_split", "scan"]

_KEPT = 0.02
_EXPECTED = (
    f"Expected {MANIFEST}; or metadata.csv and wavs/; or LibriTTS's train-*, dev-*, test-*; or VCTK's "
    "wav48_silence_trimmed/ and txt/; or MLS's train/, dev/, test/ with transcripts.txt and audio/; or recordings, "
    "each with a text beside it: a.wav, a.txt."
)


def find_utterances(root: str | Path, layout: str = "auto") -> list[SpeechFile]:
    """Returns the utterances of a dataset in the order of their names.

    Args:
        root: Its folder, or a manifest.
        layout: One of :data:`LAYOUTS`, or "auto".

    Raises:
        InputError: If the folder is missing, fits no layout or several, is empty, or a text or recording is missing.
    """
    found = scan(root, layout)
    LAYOUTS.refuse(found.layout, found, nothing=False)
    if not found.utterances:
        raise InputError(f"There are no utterances in '{root}', read as {found.layout}.", _EXPECTED)
    return found.utterances


def scan(root: str | Path, layout: str = "auto") -> Scan:
    """Looks through a dataset and collects what is wrong with it.

    Args:
        root: Its folder, or a manifest.
        layout: One of :data:`LAYOUTS`, or "auto".

    Raises:
        InputError: If the folder is missing, or fits no layout or several.
    """
    path = Path(root)
    if not path.exists():
        raise InputError(f"There is no folder '{root}'.", "Check data.init_args.root.")
    if layout == "auto":
        fitting = guess_layouts(path)
        if not fitting:
            raise InputError(f"'{root}' looks like no speech dataset.", _EXPECTED)
        if len(fitting) > 1:
            raise InputError(
                f"'{root}' looks like {' and like '.join(fitting)}.", f"Say which: layout {' or '.join(fitting)}."
            )
        layout = fitting[0]
    if layout not in LAYOUTS:
        raise InputError(f"There is no layout '{layout}'.", f"Expected auto or one of {', '.join(LAYOUTS)}.")
    top = LAYOUTS[layout].top(path)
    if top is None:
        raise InputError(f"'{path}' is not in the layout {layout}.", _EXPECTED)
    found = Scan(path, layout=layout)
    found.utterances = sorted(LAYOUTS[layout].find(found, top), key=lambda item: item.name)
    if {item.split for item in found.utterances} == {"train"}:
        found.utterances = [replace(item, split=hash_split(item.name)) for item in found.utterances]
    return found


def hash_split(name: str) -> Split:
    """Returns the split of an utterance by its name alone: 2 % val, 2 % test, the rest train.

    >>> from collections import Counter
    >>> sorted(Counter(hash_split(f"LJ001-{number:04d}") for number in range(10_000)).items())
    [('test', 204), ('train', 9615), ('val', 181)]
    """
    place = int.from_bytes(hashlib.sha256(f"split {name}".encode()).digest()[:8], "big") / 2**64
    if place < _KEPT:
        return "val"
    return "test" if place < 2 * _KEPT else "train"
