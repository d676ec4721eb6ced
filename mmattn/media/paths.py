"""Paths that somebody else wrote down, in a journal, a dataset, an archive or a list: never trusted to stay inside."""

from __future__ import annotations

import os
from pathlib import Path

from mmattn.errors import InputError

__all__ = ["contained"]


def contained(path: str | os.PathLike[str], folder: str | os.PathLike[str], *, links_may_leave: bool = False) -> Path:
    """Returns where ``path``, relative to ``folder``, lies, if that is inside the folder.

    Links on the way are resolved, so neither ``../`` nor a link leads out. The last part is not: whoever deletes or
    replaces a path that is a link itself touches the link and not what it points to.

    Args:
        path: As it was written down; relative, with ``/``.
        folder: Where it has to stay. It need not exist, and may be a link itself.
        links_may_leave: Takes links inside the folder as its owner's wish. For reading a dataset, parts of which
            people keep on other disks; never for writing or deleting.

    Returns:
        ``folder / path`` without ``..``, not resolved.

    Raises:
        InputError: If the path is empty, absolute, the folder itself, or leads outside of it, or no file can have it
            as a name.

    >>> contained("a/x.png", "results").as_posix()
    'results/a/x.png'
    >>> contained("a/../../x.png", "results")
    Traceback (most recent call last):
    mmattn.errors.InputError: The path 'a/../../x.png' leads outside of 'results'. Paths in a folder's files stay in it.
    """
    text, base = os.fspath(path), Path(folder)
    outside = InputError(f"The path {text!r} leads outside of '{base}'.", "Paths in a folder's files stay in it.")
    if not text or "\0" in text:
        raise InputError(f"The path {text!r} is none that a file can have.")
    # First by the text alone: to the system, 'link/../x' lies beside what the link points to.
    plain = os.path.normpath(text)
    if Path(text).is_absolute() or plain.split(os.sep, 1)[0] in ("..", "."):
        raise outside
    place = base / plain
    if links_may_leave:
        return place
    try:
        parent, root = place.parent.resolve(), base.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise InputError(f"The path {text!r} in '{base}' cannot be followed.") from error
    if not parent.is_relative_to(root):
        raise outside
    return place
