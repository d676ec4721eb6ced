"""Checkpoints: found by ``"embedded"``, a path or ``"hf:owner/name[/file][@revision]"``, written, and read.

A checkpoint is a folder with ``model.safetensors``, ``config.json`` and a model card.

``config.json`` holds ``system`` (which of our systems wrote it), ``format_version`` and ``config`` (the system's
architecture dataclass as plain JSON), so that a folder says by itself how to build the model that fits its tensors.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmattn import __version__
from mmattn.core.weights.hub import download, parse_hub
from mmattn.errors import CheckpointError, InputError, OutputError, WeightsUnavailableError
from mmattn.media.files import flush_file, flush_folder, make_folders, storage_error
from mmattn.media.regular import check_regular, expanded, read_regular

__all__ = [
    "FORMAT_VERSION",
    "check_replaceable",
    "embedded_path",
    "load_checkpoint",
    "read_card",
    "read_config",
    "read_safetensors",
    "resolve",
    "save_checkpoint",
]

FORMAT_VERSION = 1
_MAX_CONFIG_BYTES = 1 << 24
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def resolve(system: str, source: str | Path, *, what: str = "checkpoint") -> Path:
    """Returns the local path of a checkpoint, downloading it when it comes from the hub.

    Args:
        system: Name of the system, for example ``"crane"``.
        source: ``"embedded"`` (the small model inside the package), a local path, or
            ``"hf:owner/name[/file][@revision]"``. A folder called ``embedded`` is reached as ``./embedded``.
        what: What it was asked for as, which is the name of the option too; the messages speak of it.

    Returns:
        A folder, or one file when the hub source names a file or the path is one.

    Raises:
        InputError: If a hub source is not of the form above.
        WeightsUnavailableError: If the weights are neither on disk nor reachable.
    """
    text = str(source)
    if text == "embedded":
        path = embedded_path(system)
        if not (path / WEIGHTS).is_file():
            raise WeightsUnavailableError(
                f"This installation has no embedded {system} model (looked in '{path}').",
                f"Pass a {what}: --{what} PATH or --{what} hf:owner/name.",
            )
        return path
    if text.startswith("hf:"):
        return download(parse_hub(text, what), what)
    path = expanded(text)
    if "\0" in text or not path.exists():
        raise WeightsUnavailableError(
            f"{what.capitalize()} '{text}' does not exist.",
            f"The {what} can be embedded, the path of a checkpoint folder, or hf:owner/name[/file][@revision].",
        )
    return path


def embedded_path(system: str) -> Path:
    """Returns where the embedded model of ``system`` lives in this installation, present or not."""
    return Path(str(files("mmattn"))) / "assets" / system


def save_checkpoint(
    directory: str | Path, tensors: Mapping[str, Tensor], *, system: str, config: Mapping[str, Any], card: str
) -> Path:
    """Writes a checkpoint folder and returns its path; the folder appears complete or not at all.

    Everything is written to a temporary folder beside ``directory`` and renamed. An older checkpoint there is
    replaced; other files in it (sample inputs, say) are kept.

    Args:
        directory: The folder to write.
        tensors: State by name. Tensors that share memory are written as separate copies.
        system: Name of the system, for example ``"crane"``.
        config: The system's config as plain JSON types.
        card: The model card, Markdown.

    Raises:
        CheckpointError: If ``directory`` is a file, or a folder with content that is no checkpoint.
        OutputError: If it cannot be written; an older checkpoint is kept.
    """
    target = Path(directory).expanduser().absolute()
    check_replaceable(target)
    description = {"system": system, "format_version": FORMAT_VERSION, "config": dict(config)}
    try:
        with staged(target) as staging:
            (staging / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
            (staging / CARD).write_text(card, encoding="utf-8")
            save_file(separate(tensors), staging / WEIGHTS, metadata={"format": "pt", "system": system})
            copy_other_files(target, staging)
    except Exception as error:
        failure = storage_error(error) or (error if isinstance(error, OSError) else None)
        if failure is None:
            raise
        raise OutputError(
            f"Cannot write the checkpoint '{target}': {failure.strerror or failure}.",
            "An older one is kept. Free some space or choose a folder you may write to.",
        ) from error
    return target


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``target``, then flushes all that is in it to the disk and swaps the two."""
    make_folders(target.parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)
        for path in (*staging.rglob("*"), staging):
            if path.is_dir():
                flush_folder(path)
            elif path.is_file():
                flush_file(path)
        swap(staging, target)
        flush_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load_checkpoint(directory: str | Path, system: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a checkpoint folder of ``system`` and returns ``(tensors, config)``, tensors on the CPU.

    Raises:
        CheckpointError: If the folder is missing or is no checkpoint, belongs to another system, was written in a
            newer format, or its tensors are damaged.
    """
    folder = Path(directory).expanduser()
    config = read_config(folder, system)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"'{folder}' has {CONFIG} but no {WEIGHTS}.", "Copy the whole folder again.")
    return read_safetensors(weights), config


def read_config(directory: str | Path, system: str) -> dict[str, Any]:
    """Reads only the ``config`` of a checkpoint folder of ``system``.

    Raises:
        CheckpointError: As :func:`load_checkpoint`, tensors aside.
    """
    folder = Path(directory).expanduser()
    convert_hint = f"Turn released weights into a checkpoint with: mmattn convert {system} FILE --output DIR"
    if not folder.exists():
        raise CheckpointError(f"Checkpoint folder '{folder}' does not exist.", "Pass an existing one or 'embedded'.")
    if not folder.is_dir():
        raise CheckpointError(f"'{folder}' is a file, expected a checkpoint folder with {CONFIG}.", convert_hint)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"'{folder}' is not an mmattn checkpoint: it has no {CONFIG}.", convert_hint)
    description = parse_config(folder / CONFIG)
    if description is None:
        raise CheckpointError(
            f"'{folder / CONFIG}' is not an mmattn config: expected JSON with system, format_version and config.",
            convert_hint,
        )
    if description["system"] != system:
        raise CheckpointError(
            f"'{folder}' is a {description['system']} checkpoint, expected one of {system}.",
            f"Use it with: mmattn infer {description['system']}",
        )
    if description["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"'{folder}' has format {description['format_version']}; mmattn {__version__} reads up to "
            f"{FORMAT_VERSION}.",
            "Update with: pip install --upgrade mmattn",
        )
    return dict(description["config"])


def read_card(directory: str | Path, default: str) -> str:
    """Returns the model card of a checkpoint folder, ``default`` where the folder has none or is not there yet."""
    file = Path(directory) / CARD
    return file.read_text(encoding="utf-8") if file.is_file() else default


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Reads all tensors of ``file``; a damaged one raises :class:`CheckpointError`."""
    check_regular(file, error=CheckpointError)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> CheckpointError:
    """Returns the error for a file that cannot be parsed."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"'{file}' is damaged or no weights file: {reason.rstrip('.')}.", "Download or copy it again."
    )


def parse_config(file: Path) -> dict[str, Any] | None:
    """Returns the description in ``config.json``, or None when it is not one of ours."""
    try:
        data = json.loads(read_regular(file, _MAX_CONFIG_BYTES, error=InputError))
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("config"), dict):
        return None
    if not isinstance(data.get("system"), str) or not isinstance(data.get("format_version"), int):
        return None
    return data


def check_replaceable(target: Path) -> None:
    """Checks that writing ``target`` damages nothing that is no checkpoint.

    Raises:
        CheckpointError: If it is a file, or a folder with other things in it.
    """
    if target.is_dir():
        if any(target.iterdir()) and parse_config(target / CONFIG) is None:
            raise CheckpointError(f"'{target}' has files in it and is not a checkpoint.", "Choose a new folder.")
    elif target.exists():
        raise CheckpointError(f"'{target}' is a file, expected a folder to write.", "Choose another path.")


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns contiguous CPU tensors that share no memory, as safetensors demands."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != value.nbytes:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        result[name] = value
    return result


def copy_other_files(source: Path, target: Path) -> None:
    """Copies what an older checkpoint folder holds besides its three files."""
    if not source.is_dir():
        return
    for entry in source.iterdir():
        if entry.name in {WEIGHTS, CONFIG, CARD}:
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name)
        else:
            shutil.copy2(entry, target / entry.name)


def swap(staging: Path, target: Path) -> None:
    """Puts ``staging`` in the place of ``target``; the old folder comes back if that fails."""
    if not target.exists():
        staging.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    target.replace(old)
    try:
        staging.rename(target)
    finally:
        if not target.exists():
            old.replace(target)
    shutil.rmtree(old, ignore_errors=True)
