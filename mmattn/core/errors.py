"""The old place of :mod:`mmattn.errors`, for one release."""

from mmattn.errors import *  # noqa: F403
