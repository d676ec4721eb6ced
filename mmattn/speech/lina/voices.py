"""The voices that ship with a model: a folder ``voices`` of voice files in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmattn.errors import InputError

__all__ = ["VOICES", "find_voices", "locate_voice"]

VOICES = "voices"


def find_voices(folder: Path | None) -> dict[str, Path]:
    """Returns the voice files of a checkpoint by their names, sorted; none if it has no such folder.

    Args:
        folder: The checkpoint's; None has no voices.
    """
    files = () if folder is None else (folder / VOICES).glob("*.safetensors")
    return {file.stem: file for file in sorted(files) if not file.name.startswith(".")}


def locate_voice(voice: str | Path, shipped: Mapping[str, Path]) -> Path:
    """Returns the file of a voice.

    Args:
        voice: Name of a shipped voice, or path of a voice file; a file called like one is reached as ``./NAME``.
        shipped: Files by name.

    Raises:
        InputError: If it is neither.
    """
    if str(voice) in shipped:
        return shipped[str(voice)]
    path = Path(voice).expanduser()
    if path.is_file():
        return path
    names = ", ".join(shipped)
    known = f"This model has the voices {names}." if names else "This model comes without voices; pass a file."
    raise InputError(f"There is no voice '{voice}', neither by this name nor as a file.", known)
