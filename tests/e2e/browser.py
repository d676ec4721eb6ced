"""A headless browser and a served app, for tests that look at what a visitor sees."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; `make system-deps` installs it"
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@contextmanager
def opened_page(url: str, *, width: int = 1280, height: int = 900, flags: Sequence[str] = ()) -> Iterator[Any]:
    """Yields a playwright page at ``url``; fails at the end when the page raised a JavaScript error.

    ``flags`` are Chromium's own, beside the quiet ones.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *flags])
        page = browser.new_page(viewport={"width": width, "height": height})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        try:
            yield page
        finally:
            browser.close()
        assert errors == []


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serves a Gradio app on a free port of this machine and yields its address."""
    from mmattn.ui.serve import launch

    _, url, _ = launch(app, prevent_thread_lock=True, quiet=True)
    try:
        yield url
    finally:
        app.close()
