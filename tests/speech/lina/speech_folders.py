"""Small speech datasets on disk, in the layouts that public ones have: tones, and words beside them."""

import json
from pathlib import Path

import numpy as np

from mmattn.media.audio import write_audio

RATE = 1000


def record(file: Path, seconds: float = 0.5, pitch: float = 100.0, rate: int = RATE, loudness: float = 0.5) -> Path:
    """Writes a tone."""
    wave = loudness * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    return write_audio(file, wave.astype(np.float32), rate)


def say(file: Path, text: str, **tone: float) -> Path:
    """Writes a tone and a text beside it."""
    record(file, **tone)  # type: ignore[arg-type]
    file.with_suffix(".txt").write_text(text, encoding="utf-8")
    return file


def plain_folder(root: Path, count: int = 4) -> Path:
    """``SPLIT/SPEAKER/NUMBER.wav`` and ``.txt`` of two speakers; a third one has only test recordings."""
    for split, number in (("train", count), ("val", 1), ("test", 1)):
        for speaker in ("anna", "ben"):
            for index in range(number):
                say(root / split / speaker / f"{index}.wav", f"hello number {index}", seconds=0.4 + 0.1 * index)
    say(root / "test" / "carl" / "0.wav", "who is this?")
    return root


def ljspeech(root: Path, count: int = 3) -> Path:
    """``metadata.csv`` and ``wavs/``."""
    names = [f"LJ001-{number:04d}" for number in range(count)]
    lines = [f"{name}|He paid $2, {name[-1]} times|He paid two dollars, some times" for name in names]
    for name in names:
        record(root / "wavs" / f"{name}.wav")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def libritts(root: Path) -> Path:
    """``SUBSET/SPEAKER/CHAPTER/`` of three subsets."""
    for subset, speaker in (("train-clean-100", "103"), ("dev-clean", "84"), ("test-clean", "61")):
        for number in range(2):
            file = root / subset / speaker / "1240" / f"{speaker}_1240_000000_00000{number}.wav"
            record(file)
            file.with_suffix(".normalized.txt").write_text(f"Sentence {number}.", encoding="utf-8")
            file.with_suffix(".original.txt").write_text(f"Sentence {number}.", encoding="utf-8")
    return root


def vctk(root: Path) -> Path:
    """Both microphones of two speakers, and the gaps of the published set.

    ``p280`` was recorded by one microphone, the texts of ``p315`` and some recordings of ``p362`` are lost.
    """
    (root / "wav48_silence_trimmed").mkdir(parents=True)
    (root / "wav48_silence_trimmed" / "log.txt").write_text("trimmed\n")
    (root / "speaker-info.txt").write_text("ID  AGE  GENDER  ACCENTS  REGION COMMENTS\np225  23  F    English\n")
    for name in ("p225_001", "p225_002", "p280_001", "p315_001", "p362_001", "p362_002", "s5_001"):
        speaker = name[:-4]
        if name != "p362_002":
            for microphone in ("mic1",) if speaker == "p280" else ("mic1", "mic2"):
                record(root / "wav48_silence_trimmed" / speaker / f"{name}_{microphone}.flac", seconds=1.0)
        if speaker != "p315":
            (root / "txt" / speaker).mkdir(parents=True, exist_ok=True)
            (root / "txt" / speaker / f"{name}.txt").write_text(f"Sentence {name}.\n", encoding="utf-8")
    return root


def mls(root: Path) -> Path:
    """``PART/transcripts.txt`` and ``PART/audio/SPEAKER/BOOK/`` of the three parts, with the other files there."""
    for part, speaker in (("train", "4800"), ("dev", "20"), ("test", "30")):
        names = [f"{speaker}_2156_00000{number}" for number in range(2)]
        for name in names:
            record(root / part / "audio" / speaker / "2156" / f"{name}.flac")
        lines = [f"{name}\tit was number {name[-1]}\n" for name in names]
        (root / part / "transcripts.txt").write_text("".join(lines), encoding="utf-8")
        (root / part / "segments.txt").write_text("".join(f"{name}\thttp://x.mp3\t0\t1\n" for name in names))
    (root / "train" / "limited_supervision" / "1hr").mkdir(parents=True)
    (root / "train" / "limited_supervision" / "1hr" / "handles.txt").write_text("4800_2156_000000\n")
    (root / "metainfo.txt").write_text("SPEAKER | GENDER | PARTITION\n")
    return root


def manifest(root: Path, entries: list[object]) -> Path:
    """``manifest.jsonl``."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    file = root / "manifest.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
