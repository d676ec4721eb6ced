"""Errors a user can cause. Each carries one clear sentence and, where it helps, a hint that says what to do.

The command line prints ``message`` and ``hint`` without a traceback, the apps show them as a notice, and the batch
runner writes them to ``errors.jsonl``. Kernels, metrics and the like raise built-in errors about arguments of a call;
:func:`describe` reads both kinds.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "InputError",
    "MediaError",
    "MediaNotFoundError",
    "MissingExtraError",
    "MmattnError",
    "OutputError",
    "WeightsUnavailableError",
    "describe",
]


class MmattnError(Exception):
    """Base of the errors that are shown to people as they are.

    Args:
        message: What was given and what was expected, one sentence.
        hint: What to do about it; empty when the message already says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InputError(MmattnError, ValueError):
    """A file, folder, dataset or option that cannot be used as given."""


class MediaError(MmattnError, ValueError):
    """A file that cannot be read or written as the picture, sound or video it should be."""


class MediaNotFoundError(MediaError, FileNotFoundError):
    """A path that does not exist; also a ``FileNotFoundError`` for callers that look for that."""


class OutputError(MmattnError, OSError):
    """Results that cannot be written: no permission, no space, a folder that another run is using."""


class CheckpointError(MmattnError):
    """A checkpoint that does not fit: other system, other sizes, missing or unexpected keys."""


class WeightsUnavailableError(MmattnError, FileNotFoundError):
    """Weights that are neither on disk nor reachable."""


class MissingExtraError(MmattnError, ImportError):
    """An optional dependency that is not installed.

    Args:
        package: The distribution that is missing, as pip names it.
        extra: The extra of mmattn that brings it.
        purpose: What it is needed for, as in "reading video".
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed.",
            f"Install it with: pip install 'mmattn[{extra}]'",
        )


def describe(error: BaseException) -> tuple[str, str]:
    """Splits an error into ``(message, hint)`` for people.

    >>> describe(InputError("threshold is 3, expected a number in [0, 1].", "Pass --threshold 0.5."))
    ('threshold is 3, expected a number in [0, 1].', 'Pass --threshold 0.5.')
    >>> describe(ValueError("odd"))
    ('odd', '')
    """
    hint = str(getattr(error, "hint", "") or "")
    message = str(getattr(error, "message", "") or error) or type(error).__name__
    return message, hint
