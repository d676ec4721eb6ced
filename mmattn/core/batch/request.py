"""What one ``mmattn infer`` run was asked to do, as the command line hands it to a system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from mmattn.errors import InputError

__all__ = ["InferRequest"]


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """One batch run.

    Attributes:
        system: Name of the system.
        inputs: INPUT arguments as typed: files, folders, globs, ``@list.txt``.
        output: Folder for the results; the current one for a run that has none.
        checkpoint: "embedded", a path, or ``hf:owner/name[/file][@revision]``.
        device: "auto", "cpu", "cuda", ...
        batch_size: Items per forward pass.
        workers: Threads that read ahead; 0 reads in the main thread.
        seed: Start of the random state.
        limit: Number of items after which the run stops; None is all.
        dry_run: List what would be done, load and write nothing.
        overwrite: Start the output folder over.
        options: The system's ``<Name>InferOptions``.
        overrides: Fields of ``<Name>Config`` that were set on the command line; all others stay as the checkpoint
            has them.
        live: Camera or stream to watch in the place of inputs, for systems that can; None otherwise.
        live_seconds: Seconds of it after which to stop; None goes on until it ends.
    """

    system: str
    inputs: Sequence[str]
    output: Path
    checkpoint: str = "embedded"
    device: str = "auto"
    batch_size: int = 1
    workers: int = 2
    seed: int = 0
    limit: int | None = None
    dry_run: bool = False
    overwrite: bool = False
    options: Any = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    live: str | None = None
    live_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} is {value}, expected a whole number of at least {least}.")

    def result_options(self) -> dict[str, Any]:
        """Returns the choices that results depend on, as plain JSON types: two runs into one folder must agree.

        Batch size, device and threads are left out, so that a run can be resumed elsewhere.
        """
        local = not self.checkpoint.startswith("hf:") and self.checkpoint != "embedded"
        checkpoint = str(Path(self.checkpoint).expanduser().absolute()) if local else self.checkpoint
        options = asdict(self.options) if is_dataclass(self.options) and not isinstance(self.options, type) else {}
        return {"checkpoint": checkpoint, "seed": self.seed, **options, **self.overrides}
