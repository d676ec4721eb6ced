"""Voice files: a tuned initial state, the model it fits, and the speaker's consent.

One safetensors file with the tensors of :class:`.state.InitialState` under the published names. Its metadata
say which model it was made for, by a fingerprint of that model's weights; another model refuses it, because a state
means nothing to weights it was not tuned with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmattn.errors import CheckpointError, InputError
from mmattn.media.files import atomic_path
from mmattn.speech.lina.voices.state import SCALE, InitialState

__all__ = ["FORMAT", "VOICES", "Voice", "find_voices", "fingerprint", "load_voice", "locate_voice", "save_voice"]

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
        voice: Name of a shipped voice, in any case if that is unique, or path of a voice file; a file called like a
            voice is reached as ``./NAME``.
        shipped: Files by name.

    Raises:
        InputError: If it is neither.
    """
    if str(voice) in shipped:
        return shipped[str(voice)]
    path = Path(voice).expanduser()
    if path.is_file():
        return path
    alike = [file for name, file in shipped.items() if name.casefold() == str(voice).casefold()]
    if len(alike) == 1:
        return alike[0]
    names = ", ".join(shipped)
    known = f"This model has the voices {names}." if names else "This model comes without voices; pass a file."
    raise InputError(f"There is no voice '{voice}', neither by this name nor as a file.", known)


FORMAT = "mmattn-lina-voice-1"
"""Of the files written here."""

_SAMPLES = 512


@dataclass(frozen=True)
class Voice:
    """A voice.

    Attributes:
        state: Where the decoder starts.
        model: Fingerprint of the weights it fits; empty if the file does not say.
        consent: The speaker's statement that the voice may be used, word for word; empty if the file does not say.
        name: What it is called.
    """

    state: InitialState
    model: str
    consent: str
    name: str = ""


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Returns 16 hexadecimal digits that tell models' weights apart.

    Half precision is what is compared, so that a model and its copy stored in half precision are the same.

    Args:
        tensors: State of a language model, by our names.

    >>> fingerprint({"a": torch.zeros(3)}) == fingerprint({"a": torch.zeros(3).half()})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        flat = tensor.reshape(-1)
        # Some of the numbers of every tensor are enough, and fast for hundreds of millions.
        step = max(1, len(flat) // _SAMPLES)
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(flat[::step].to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_voice(path: str | Path, voice: Voice) -> Path:
    """Writes a voice file and returns its path.

    Args:
        path: A ``.safetensors`` file in an existing folder; an older one is replaced.
        voice: With a consent statement.

    Raises:
        InputError: If the statement or the model's fingerprint is empty, the folder does not exist, or the suffix is
            another.
        MediaError: If it cannot be written; an older one is kept.
    """
    file = Path(path).expanduser()
    if file.suffix != ".safetensors":
        raise InputError(f"A voice is saved as .safetensors, not as '{file.name}'.")
    if not file.parent.is_dir():
        raise InputError(f"The folder '{file.parent}' does not exist.", "Make it first.")
    if not voice.consent.strip():
        raise InputError(
            "A voice is saved with the statement that its speaker agreed to it; there is none.",
            "For example: --consent 'I, Anna Smith, agree to the use of my voice, 1 May 2026'.",
        )
    if not voice.model:
        raise InputError("A voice is saved with the fingerprint of the model it fits; there is none.")
    metadata = {
        "format": FORMAT,
        "model": voice.model,
        "consent": voice.consent.strip(),
        "name": voice.name,
        "scale": repr(voice.state.scale),
    }
    tensors = {str(name): t.detach().cpu().contiguous() for name, t in voice.state.tensors.items()}
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return file


def load_voice(path: str | Path, model: str | None) -> Voice:
    """Reads a voice file.

    Args:
        path: The file; those of the published code, which have no metadata, can be read too.
        model: Fingerprint of the weights that will speak; None takes any voice, also one that does not say which.

    Raises:
        CheckpointError: If there is no such file, it is no voice, of a newer format, or of another model.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(f"Voice file '{file}' does not exist.", "Check the path.")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise CheckpointError(f"'{file}' is damaged or no voice file: {error}") from error
    kind = metadata.get("format", "")
    if kind.startswith("mmattn-lina-voice") and kind != FORMAT:
        raise CheckpointError(f"'{file}' is a voice of format {kind}, expected {FORMAT}.", "Update mmattn.")
    if not tensors:
        raise CheckpointError(f"'{file}' is no voice file: it holds no states.")
    ours = kind == FORMAT
    made_for = metadata.get("model", "") if ours else ""
    if model is not None and made_for != model:
        said = f"was made for model {made_for}" if made_for else "does not say which model it was made for"
        raise CheckpointError(f"Voice '{file.name}' {said}; this is model {model}.", "Clone the voice with this model.")
    try:
        scale = float(metadata.get("scale", SCALE)) if ours else SCALE
    except ValueError as error:
        raise CheckpointError(f"'{file}' is a damaged voice file: its scale is no number.") from error
    state = InitialState(tensors, scale=scale)
    if not all(bool(tensor.isfinite().all()) for tensor in state.parameters()):
        raise CheckpointError(f"Voice '{file.name}' has numbers that are not finite.", "Clone the voice again.")
    return Voice(state, made_for, metadata.get("consent", ""), metadata.get("name", "") or file.stem)
