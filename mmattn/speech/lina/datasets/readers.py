"""How each layout of a speech dataset lists its utterances on disk.

A reader goes over a folder in the order of its names and yields utterances; what is wrong with the folder it adds to a
list, one sentence each, and goes on. Names that begin with a full stop are passed over.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmattn.media.audio import is_audio
from mmattn.speech.lina.datasets.roots import (
    MLS_PARTS,
    SUBSET,
    VCTK_AUDIO,
    VCTK_TEXTS,
    is_mls_part,
    libritts_root,
    mls_root,
    vctk_root,
)

__all__ = ["MANIFEST", "READERS", "SpeechFile", "Split", "find_layouts"]

Split = Literal["train", "val", "test"]
Reader = Callable[[Path, list[str]], Iterator["SpeechFile"]]

MANIFEST = "manifest.jsonl"
_SPLITS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test",
}  # fmt: skip
_ONE_SPEAKER = "speaker"
_VCTK_NAME = re.compile(r"(.+)_mic([12])")
# Published so: all texts of the one speaker and some recordings of the other were lost.
_VCTK_WITHOUT_TEXTS, _VCTK_WITH_GAPS = "p315", "p362"


@dataclass(frozen=True)
class SpeechFile:
    """A recording and what is said in it.

    Attributes:
        audio: The recording's file.
        text: As it is written, with surrounding spaces removed.
        speaker: Who speaks.
        split: What it is for.
        name: Unique in its dataset: the path below the dataset's folder without suffix, with slashes.
    """

    audio: Path
    text: str
    speaker: str
    split: Split
    name: str


def find_layouts(root: Path) -> list[str]:
    """Returns the layouts that a folder, or a file, may be, the likeliest first."""
    if root.is_file():
        return ["manifest"] if root.suffix == ".jsonl" else []
    found = [
        ("manifest", (root / MANIFEST).is_file()),
        ("ljspeech", (root / "metadata.csv").is_file() and (root / "wavs").is_dir()),
        ("libritts", libritts_root(root) is not None),
        ("vctk", vctk_root(root) is not None),
        ("mls", mls_root(root) is not None),
    ]
    marked = [name for name, is_so in found if is_so]
    if marked:
        return marked
    return ["folder"] if any(is_audio(path) for path in _files(root)) else []


def _text(file: Path, problems: list[str]) -> str | None:
    """Returns the text of a file; None, and a problem more, if there is none."""
    try:
        text = " ".join(file.read_text(encoding="utf-8-sig").split())
    except OSError:
        problems.append(f"{file} is missing or cannot be read.")
        return None
    except UnicodeDecodeError:
        problems.append(f"{file} is not UTF-8 text.")
        return None
    if not text:
        problems.append(f"{file} is empty.")
    return text or None


def _manifest(root: Path, problems: list[str]) -> Iterator[SpeechFile]:
    file = root if root.is_file() else root / MANIFEST
    seen: set[str] = set()
    for number, line in enumerate(_lines(file, problems), 1):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        entry = _entry(line, where, problems)
        if entry is None:
            continue
        audio = file.parent / entry["audio"]
        name = Path(entry["audio"]).with_suffix("").as_posix().lstrip("/")
        if name in seen:
            problems.append(f"{where}: {entry['audio']} is listed twice.")
            continue
        if not audio.is_file():
            problems.append(f"{where}: there is no file {audio}.")
            continue
        seen.add(name)
        text = " ".join(entry["text"].split())
        yield SpeechFile(audio, text, str(entry["speaker"]), _SPLITS[entry["split"]], name)


def _entry(line: str, where: str, problems: list[str]) -> dict[str, Any] | None:
    """Returns a manifest's line with all its fields; None, and a problem more, if it is not as expected."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        problems.append(f"{where} is no JSON: {error.msg}.")
        return None
    if not isinstance(entry, dict):
        problems.append(f"{where}: expected an object with 'audio' and 'text'.")
        return None
    for field in ("audio", "text"):
        if not isinstance(entry.get(field), str) or not entry[field].strip():
            problems.append(f"{where}: '{field}' is missing or empty.")
            return None
    entry = {"speaker": _ONE_SPEAKER, "split": "train", **entry}
    if not isinstance(entry["speaker"], (str, int)) or entry["speaker"] == "":
        problems.append(f"{where}: 'speaker' is {entry['speaker']!r}, expected a name.")
        return None
    if entry["split"] not in _SPLITS:
        problems.append(f"{where}: 'split' is {entry['split']!r}, expected train, val or test.")
        return None
    return entry


def _ljspeech(root: Path, problems: list[str]) -> Iterator[SpeechFile]:
    by_id = {path.stem: path for path in sorted((root / "wavs").iterdir()) if is_audio(path)}
    text = _lines(root / "metadata.csv", problems)
    seen: set[str] = set()
    for number, line in enumerate(text, 1):
        columns = line.split("|")
        if not line.strip():
            continue
        identifier = columns[0].strip()
        spoken = " ".join((columns[2:3] or columns[1:2] or [""])[0].split())
        if not spoken:
            problems.append(f"metadata.csv, line {number}: expected 'id|text' or 'id|text|normalised text'.")
        elif identifier in seen:
            problems.append(f"metadata.csv, line {number}: {identifier} is listed twice.")
        elif identifier not in by_id:
            problems.append(f"metadata.csv, line {number}: there is no recording wavs/{identifier}.wav.")
        else:
            seen.add(identifier)
            yield SpeechFile(by_id[identifier], spoken, "LJ", "train", identifier)
    for identifier in by_id.keys() - {line.partition("|")[0].strip() for line in text}:
        problems.append(f"{by_id[identifier]} is not listed in metadata.csv.")


def _libritts(root: Path, problems: list[str]) -> Iterator[SpeechFile]:
    top = libritts_root(root) or root
    subsets = [root.resolve()] if top == root.resolve().parent else sorted(top.iterdir())
    for subset in subsets:
        match = SUBSET.fullmatch(subset.name)
        if match is None or not subset.is_dir():
            continue
        for audio in _recordings(subset, problems):
            place = audio.relative_to(subset).parts
            if len(place) != 3:
                problems.append(f"{audio} lies elsewhere than {subset.name}/SPEAKER/CHAPTER.")
                continue
            text = _text(audio.with_suffix(".normalized.txt"), problems)
            if text is not None:
                yield SpeechFile(audio, text, place[0], _SPLITS[match[1]], _name(audio, top))


def _vctk(root: Path, problems: list[str]) -> Iterator[SpeechFile]:
    top = vctk_root(root) or root
    heard: set[Path] = set()
    for audio in _recordings(top / VCTK_AUDIO, problems):
        match, place = _VCTK_NAME.fullmatch(audio.stem), audio.relative_to(top / VCTK_AUDIO).parts
        if match is None or len(place) != 2:
            problems.append(f"{audio} is called otherwise than SPEAKER/SPEAKER_NUMBER_mic1.flac.")
            continue
        # Both microphones heard the same.
        if match[2] == "2" or place[0] == _VCTK_WITHOUT_TEXTS:
            continue
        file = top / VCTK_TEXTS / place[0] / f"{match[1]}.txt"
        heard.add(file)
        text = _text(file, problems)
        if text is not None:
            yield SpeechFile(audio, text, place[0], "train", _name(audio, top))
    for file in _files(top / VCTK_TEXTS):
        if file.suffix == ".txt" and file not in heard and file.parent.name != _VCTK_WITH_GAPS:
            problems.append(f"{file} has no recording {VCTK_AUDIO}/{file.parent.name}/{file.stem}_mic1.flac.")


def _mls(root: Path, problems: list[str]) -> Iterator[SpeechFile]:
    top = mls_root(root) or root
    parts = [root.resolve()] if top == root.resolve().parent else [top / part for part in MLS_PARTS]
    for part in filter(is_mls_part, parts):
        by_id = {path.stem: path for path in _recordings(part / "audio", problems)}
        listed: set[str] = set()
        for number, line in enumerate(_lines(part / "transcripts.txt", problems), 1):
            identifier, _, text = line.partition("\t")
            where = f"{part.name}/transcripts.txt, line {number}"
            if not line.strip():
                continue
            if not text.strip():
                problems.append(f"{where}: expected an id, a tab and a text.")
            elif identifier in listed:
                problems.append(f"{where}: {identifier} is listed twice.")
            elif identifier not in by_id:
                problems.append(f"{where}: there is no recording {identifier}.flac.")
            else:
                audio, speaker = by_id[identifier], identifier.partition("_")[0]
                yield SpeechFile(audio, " ".join(text.split()), speaker, _SPLITS[part.name], _name(audio, top))
            listed.add(identifier)
        problems += [f"{by_id[name]} is not listed in transcripts.txt." for name in sorted(by_id.keys() - listed)]


def _folder(root: Path, problems: list[str]) -> Iterator[SpeechFile]:
    for audio in _recordings(root, problems):
        folders = audio.relative_to(root).parts[:-1]
        split = _SPLITS.get(folders[0].lower(), "train") if folders else "train"
        below = folders[1:] if folders and folders[0].lower() in _SPLITS else folders
        text = _text(audio.with_suffix(".txt"), problems)
        if text is not None:
            yield SpeechFile(audio, text, below[0] if below else _ONE_SPEAKER, split, _name(audio, root))
    files = _files(root)
    spoken = {file.with_suffix("") for file in files if is_audio(file)}
    for file in files:
        if file.suffix == ".txt" and file.with_suffix("") not in spoken and file.parent != root:
            problems.append(f"{file} has no recording beside it.")


READERS: dict[str, Reader] = {
    "manifest": _manifest,
    "ljspeech": _ljspeech,
    "libritts": _libritts,
    "vctk": _vctk,
    "mls": _mls,
    "folder": _folder,
}
"""Layout -> its reader (folder, problems) -> utterances."""


def _lines(file: Path, problems: list[str]) -> list[str]:
    """Returns the lines of a file; none, and a problem more, if it is no UTF-8 text."""
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file} cannot be read: {error}.")
        return []


def _files(root: Path) -> list[Path]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts))


def _recordings(root: Path, problems: list[str]) -> list[Path]:
    """Returns the recordings; of several with one name but for the suffix, none, and a problem more."""
    by_name: dict[Path, list[Path]] = defaultdict(list)
    for path in _files(root):
        if is_audio(path):
            by_name[path.with_suffix("")].append(path)
    for same in by_name.values():
        if len(same) > 1:
            problems.append(f"It is not clear which to take of {', '.join(map(str, same))}.")
    return [same[0] for same in by_name.values() if len(same) == 1]


def _name(audio: Path, root: Path) -> str:
    return audio.relative_to(root).with_suffix("").as_posix()
