"""The hub: one page with a tab per system that has a model."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from mmattn.ui.theme import CACHE_SECONDS

__all__ = ["build_hub"]

INTRO = """# mmattn
Attention-based systems that run on this machine, without a network. Choose one."""


def build_hub(apps: Mapping[str, gr.Blocks]) -> gr.Blocks:
    """Builds the page.

    Args:
        apps: App by the name its tab shows; at least one.

    Raises:
        ValueError: If there is no app.
    """
    if not apps:
        raise ValueError("The hub needs at least one app; no system has a model installed.")
    with gr.Blocks(title="mmattn", analytics_enabled=False, delete_cache=CACHE_SECONDS) as demo:
        gr.Markdown(INTRO, elem_classes="mm-hero")
        with gr.Tabs():
            for name, app in apps.items():
                with gr.Tab(name):
                    app.render()
    return demo
