"""Errors of reading and writing media: what was given, what was expected, and a hint that says what to do."""

from __future__ import annotations

__all__ = ["MediaError", "MediaNotFoundError"]


class MediaError(ValueError):
    """A file that cannot be read or written as the picture or video it should be.

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


class MediaNotFoundError(MediaError, FileNotFoundError):
    """A path that does not exist; also a ``FileNotFoundError`` for callers that look for that."""
