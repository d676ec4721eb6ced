"""The app of Lina."""

from mmattn.ui.lina.app import build_app

__all__ = ["build_app"]
