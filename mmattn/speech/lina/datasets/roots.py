"""Where in a folder a published speech dataset begins: people point at it, at the folder around it, or at a part."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

__all__ = [
    "MANIFEST",
    "MLS_PARTS",
    "SUBSET",
    "VCTK_AUDIO",
    "VCTK_TEXTS",
    "is_mls_part",
    "libritts_root",
    "ljspeech_root",
    "manifest_file",
    "mls_root",
    "vctk_root",
]

MANIFEST = "manifest.jsonl"
SUBSET = re.compile(r"(train|dev|test)-[\w-]+")
"""Names of LibriTTS's subsets."""
MLS_PARTS = ("train", "dev", "test")
VCTK_AUDIO, VCTK_TEXTS = "wav48_silence_trimmed", "txt"


def manifest_file(root: Path) -> Path | None:
    """Returns the manifest: the file itself, or that in a folder."""
    file = root if root.is_file() else root / MANIFEST
    return file if file.is_file() else None


def ljspeech_root(root: Path) -> Path | None:
    """Returns the folder itself if it has LJSpeech's table and recordings."""
    return root if (root / "metadata.csv").is_file() and (root / "wavs").is_dir() else None


def libritts_root(root: Path) -> Path | None:
    """Returns the folder of LibriTTS's subsets: ``root``, the only folder in it, or its parent if it is a subset."""
    if SUBSET.fullmatch(root.resolve().name) and next(root.glob("*/*/*.normalized.txt"), None):
        return root.resolve().parent
    return _first(root, lambda top: any(SUBSET.fullmatch(path.name) and path.is_dir() for path in top.iterdir()))


def vctk_root(root: Path) -> Path | None:
    """Returns the folder of VCTK's recordings and texts: ``root``, or the only folder in it."""
    return _first(root, lambda top: (top / VCTK_AUDIO).is_dir() and (top / VCTK_TEXTS).is_dir())


def mls_root(root: Path) -> Path | None:
    """Returns the folder of MLS's parts: ``root``, the only folder in it, or its parent if it is a part."""
    here = root.resolve()
    if here.name in MLS_PARTS and is_mls_part(here):
        return here.parent
    return _first(root, lambda top: any(is_mls_part(top / part) for part in MLS_PARTS))


def is_mls_part(folder: Path) -> bool:
    """Says whether a folder is one part of MLS."""
    return (folder / "transcripts.txt").is_file() and (folder / "audio").is_dir()


def _first(root: Path, is_it: Callable[[Path], bool]) -> Path | None:
    """Returns the first of ``root`` and, if there is only one, the folder in it that is the one wanted."""
    folders = [
        path for path in (root.iterdir() if root.is_dir() else ()) if path.is_dir() and not path.name.startswith(".")
    ]
    return next((folder for folder in (root, *(folders if len(folders) == 1 else ())) if is_it(folder)), None)
