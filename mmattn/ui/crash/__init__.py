"""The app of Crash."""

from mmattn.ui.crash.app import build_app

__all__ = ["build_app"]
