"""How each layout of a speech dataset lists its utterances on disk.

A reader goes over a folder in the order of its names and yields utterances; what is wrong with the folder it adds to
the scan's problems, one sentence each, and goes on. Names that begin with a full stop are passed over.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmattn.core.datasets.layouts import Layout, LayoutTable
from mmattn.errors import InputError
from mmattn.media.audio import is_audio
from mmattn.media.paths import contained
from mmattn.speech.lina.datasets import roots
from mmattn.speech.lina.datasets.records import Scan, SpeechFile, Split

__all__ = ["LAYOUTS", "SpeechLayout", "guess_layouts"]


_SPLITS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test",
}  # fmt: skip
_ONE_SPEAKER = "speaker"
_VCTK_NAME = re.compile(r"(.+)_mic([12])")
# Published so: all texts of the one speaker and some recordings of the other were lost.
_VCTK_WITHOUT_TEXTS, _VCTK_WITH_GAPS = "p315", "p362"


@dataclass(frozen=True)
class SpeechLayout(Layout):
    """How one speech dataset lies on disk; ``find`` takes the scan and where the dataset begins.

    Attributes:
        begins: Where a dataset begins that lies at, in or around a path, None if there is none; without it, it is the
            folder that has one of the markers.
    """

    begins: Callable[[Path], Path | None] | None = None

    def top(self, root: Path) -> Path | None:
        """Returns where the dataset begins, None if what it cannot do without is not there."""
        if self.begins is not None:
            return self.begins(root)
        return root if super().fits(root) else None

    def fits(self, root: Path) -> bool:
        """Says whether a path looks like this layout."""
        return self.top(root) is not None


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


def _manifest(scan: Scan, top: Path) -> Iterator[SpeechFile]:
    seen: set[str] = set()
    for number, line in enumerate(_lines(top, scan.problems), 1):
        if not line.strip():
            continue
        where = f"{top.name}, line {number}"
        entry = _entry(line, where, scan.problems)
        if entry is None:
            continue
        try:
            audio = contained(entry["audio"], top.parent, links_may_leave=True)
        except InputError as error:
            scan.problems.append(f"{where}: {error.message}")
            continue
        name = audio.relative_to(top.parent).with_suffix("").as_posix()
        if name in seen:
            scan.problems.append(f"{where}: {entry['audio']} is listed twice.")
            continue
        if not audio.is_file():
            scan.problems.append(f"{where}: there is no file {audio}.")
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


def _ljspeech(scan: Scan, top: Path) -> Iterator[SpeechFile]:
    by_id = {path.stem: path for path in sorted((top / "wavs").iterdir()) if is_audio(path)}
    text = _lines(top / "metadata.csv", scan.problems)
    seen: set[str] = set()
    for number, line in enumerate(text, 1):
        columns = line.split("|")
        if not line.strip():
            continue
        identifier = columns[0].strip()
        spoken = " ".join((columns[2:3] or columns[1:2] or [""])[0].split())
        if not spoken:
            scan.problems.append(f"metadata.csv, line {number}: expected 'id|text' or 'id|text|normalised text'.")
        elif identifier in seen:
            scan.problems.append(f"metadata.csv, line {number}: {identifier} is listed twice.")
        elif identifier not in by_id:
            scan.problems.append(f"metadata.csv, line {number}: there is no recording wavs/{identifier}.wav.")
        else:
            seen.add(identifier)
            yield SpeechFile(by_id[identifier], spoken, "LJ", "train", identifier)
    for identifier in by_id.keys() - {line.partition("|")[0].strip() for line in text}:
        scan.problems.append(f"{by_id[identifier]} is not listed in metadata.csv.")


def _libritts(scan: Scan, top: Path) -> Iterator[SpeechFile]:
    root = scan.root.resolve()
    subsets = [root] if top == root.parent else sorted(top.iterdir())
    for subset in subsets:
        match = roots.SUBSET.fullmatch(subset.name)
        if match is None or not subset.is_dir():
            continue
        for audio in _recordings(subset, scan.problems):
            place = audio.relative_to(subset).parts
            if len(place) != 3:
                scan.problems.append(f"{audio} lies elsewhere than {subset.name}/SPEAKER/CHAPTER.")
                continue
            text = _text(audio.with_suffix(".normalized.txt"), scan.problems)
            if text is not None:
                yield SpeechFile(audio, text, place[0], _SPLITS[match[1]], _name(audio, top))


def _vctk(scan: Scan, top: Path) -> Iterator[SpeechFile]:
    heard: set[Path] = set()
    for audio in _recordings(top / roots.VCTK_AUDIO, scan.problems):
        match, place = _VCTK_NAME.fullmatch(audio.stem), audio.relative_to(top / roots.VCTK_AUDIO).parts
        if match is None or len(place) != 2:
            scan.problems.append(f"{audio} is called otherwise than SPEAKER/SPEAKER_NUMBER_mic1.flac.")
            continue
        # Both microphones heard the same.
        if match[2] == "2" or place[0] == _VCTK_WITHOUT_TEXTS:
            continue
        file = top / roots.VCTK_TEXTS / place[0] / f"{match[1]}.txt"
        heard.add(file)
        text = _text(file, scan.problems)
        if text is not None:
            yield SpeechFile(audio, text, place[0], "train", _name(audio, top))
    for file in _files(top / roots.VCTK_TEXTS):
        if file.suffix == ".txt" and file not in heard and file.parent.name != _VCTK_WITH_GAPS:
            scan.problems.append(
                f"{file} has no recording {roots.VCTK_AUDIO}/{file.parent.name}/{file.stem}_mic1.flac."
            )


def _mls(scan: Scan, top: Path) -> Iterator[SpeechFile]:
    root = scan.root.resolve()
    parts = [root] if top == root.parent else [top / part for part in roots.MLS_PARTS]
    for part in filter(roots.is_mls_part, parts):
        by_id = {path.stem: path for path in _recordings(part / "audio", scan.problems)}
        listed: set[str] = set()
        for number, line in enumerate(_lines(part / "transcripts.txt", scan.problems), 1):
            identifier, _, text = line.partition("\t")
            where = f"{part.name}/transcripts.txt, line {number}"
            if not line.strip():
                continue
            if not text.strip():
                scan.problems.append(f"{where}: expected an id, a tab and a text.")
            elif identifier in listed:
                scan.problems.append(f"{where}: {identifier} is listed twice.")
            elif identifier not in by_id:
                scan.problems.append(f"{where}: there is no recording {identifier}.flac.")
            else:
                audio, speaker = by_id[identifier], identifier.partition("_")[0]
                yield SpeechFile(audio, " ".join(text.split()), speaker, _SPLITS[part.name], _name(audio, top))
            listed.add(identifier)
        scan.problems += [f"{by_id[name]} is not listed in transcripts.txt." for name in sorted(by_id.keys() - listed)]


def _folder(scan: Scan, top: Path) -> Iterator[SpeechFile]:
    for audio in _recordings(top, scan.problems):
        folders = audio.relative_to(top).parts[:-1]
        split = _SPLITS.get(folders[0].lower(), "train") if folders else "train"
        below = folders[1:] if folders and folders[0].lower() in _SPLITS else folders
        text = _text(audio.with_suffix(".txt"), scan.problems)
        if text is not None:
            yield SpeechFile(audio, text, below[0] if below else _ONE_SPEAKER, split, _name(audio, top))
    files = _files(top)
    spoken = {file.with_suffix("") for file in files if is_audio(file)}
    for file in files:
        if file.suffix == ".txt" and file.with_suffix("") not in spoken and file.parent != top:
            scan.problems.append(f"{file} has no recording beside it.")


LAYOUTS = LayoutTable(
    "lina",
    {
        "manifest": SpeechLayout(_manifest, begins=roots.manifest_file),
        "ljspeech": SpeechLayout(_ljspeech, begins=roots.ljspeech_root),
        "libritts": SpeechLayout(_libritts, begins=roots.libritts_root),
        "vctk": SpeechLayout(_vctk, begins=roots.vctk_root),
        "mls": SpeechLayout(_mls, begins=roots.mls_root),
        "folder": SpeechLayout(_folder, begins=lambda root: root if root.is_dir() else None),
    },
)
"""Layout by name; "auto" stands for the one that fits."""


def guess_layouts(root: Path) -> list[str]:
    """Returns the layouts that a folder, or a manifest, may be; a plain folder of recordings only if no other fits."""
    if root.is_file():
        return ["manifest"] if root.suffix == ".jsonl" else []
    marked = [name for name in LAYOUTS.guess(root) if name != "folder"]
    return marked or (["folder"] if any(is_audio(path) for path in _files(root)) else [])


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
