"""Who may enter a page: accounts from a file or the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmattn.errors import InputError

__all__ = ["ACCOUNTS", "check_share", "read_accounts"]

ACCOUNTS = "MMATTN_AUTH"
"""Environment variable with accounts: ``user:password``, one a line."""


def check_share(share: bool, accounts: Sequence[tuple[str, str]]) -> None:
    """Checks that a page is not shared with everybody.

    Raises:
        InputError: If it is.
    """
    if share and not accounts:
        raise InputError(
            "--share opens the page to anybody on the internet, and there are no accounts.",
            f"Put user:password into a file and pass --auth-file FILE, or set {ACCOUNTS}.",
        )


def read_accounts(file: Path | None, environment: Mapping[str, str] = os.environ) -> list[tuple[str, str]]:
    """Returns the (user, password) pairs of a file, else of :data:`ACCOUNTS`; none where there is neither.

    A command line is no place for them: every user of the machine can read it.

    Args:
        file: UTF-8 text, ``user:password`` a line; empty lines and those that begin with ``#`` are skipped.
        environment: Where :data:`ACCOUNTS` is looked up.

    Raises:
        InputError: If the file cannot be read, a line has no user or no password, or there is no account in it.
    """
    if file is None and ACCOUNTS not in environment:
        return []
    place = ACCOUNTS if file is None else f"'{file}'"
    try:
        text = environment[ACCOUNTS] if file is None else file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{place} cannot be read: {error}.", "Expected lines of user:password.") from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        user, _, password = line.strip().partition(":")
        if not user or not password:
            raise InputError(f"Line {number} of {place} is no account.", "Expected user:password.")
        found[user] = password
    if not found:
        raise InputError(f"There is no account in {place}.", "Expected lines of user:password.")
    return list(found.items())
