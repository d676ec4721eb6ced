"""The hub: one page with a tab per system that has a model."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from mmattn.ui.theme import page

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
    with page("mmattn", INTRO) as demo, gr.Tabs():
        for name, app in apps.items():
            with gr.Tab(name):
                app.render()
    return demo
