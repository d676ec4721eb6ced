"""How the apps look, and the parts that every page has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape

import gradio as gr

from mmattn.ui.visitors import HouseBlocks

__all__ = [
    "CSS",
    "bar_html",
    "build_theme",
    "model_choice",
    "page",
    "reading_notes",
    "waiting_html",
]

CACHE_SECONDS = (3600, 82800)  # look every hour, delete what is 23 hours old: nothing stays longer than a day

CSS = """
.mm-hero h1 { font-size: 1.9rem; margin-bottom: .1rem; letter-spacing: -.01em; }
.mm-hero p { opacity: .8; margin-top: 0; }
.mm-verdict { border-radius: 14px; padding: 16px 20px; color: #fff; }
.mm-verdict { display: flex; gap: 18px; align-items: center; flex-wrap: wrap; }
.mm-verdict.normal { background: linear-gradient(120deg, #14665f, #1f8a70); }
.mm-verdict.anomalous { background: linear-gradient(120deg, #7a1f3d, #c2453d); }
.mm-verdict.waiting { background: linear-gradient(120deg, #3b4252, #566072); }
.mm-verdict span { color: #fff !important; }
.mm-verdict .number { font-size: 2.1rem; font-weight: 700; font-variant-numeric: tabular-nums; line-height: 1; }
.mm-verdict .word { font-size: 1.1rem; font-weight: 600; }
.mm-verdict .bar { position: relative; flex: 1 1 180px; height: 10px; border-radius: 5px; }
.mm-verdict .bar { background: rgba(255,255,255,.25); }
.mm-verdict .bar .fill { position: absolute; inset: 0 auto 0 0; border-radius: 5px; background: #fff; }
.mm-verdict .bar .mark { position: absolute; top: -5px; bottom: -5px; width: 2px; background: #ffd54a; }
.mm-scale { display: flex; align-items: center; gap: 10px; font-size: .85rem; }
.mm-scale .ramp { flex: 1; height: 12px; border-radius: 6px; }
footer { opacity: .6; }
"""


def build_theme() -> gr.themes.Base:
    """Returns the theme: system fonts only, so that a page loads without any network."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="cyan",
        neutral_hue="slate",
        font=fonts,
        font_mono=["ui-monospace", "monospace"],
    )


@contextmanager
def page(title: str, intro: str) -> Iterator[gr.Blocks]:
    """Opens a page with its head; what is made inside the block stands below.

    Files of visitors go some minutes after they have left (:data:`mmattn.ui.queue.FORGET_SECONDS`); those that were
    sent but never used, within a day.
    """
    with HouseBlocks(title=title, analytics_enabled=False, delete_cache=CACHE_SECONDS) as demo:
        gr.Markdown(intro, elem_classes="mm-hero")
        yield demo


def model_choice(names: Sequence[str]) -> gr.Dropdown:
    """Adds the choice of a model, the first preselected."""
    return gr.Dropdown(list(names), value=names[0], label="Model", interactive=len(names) > 1)


def reading_notes(how_to_read: str, limits: str) -> None:
    """Adds the two folded texts that every page of a system ends with; both are Markdown."""
    for label, text in (("How to read this", how_to_read), ("Limits", limits)):
        with gr.Accordion(label, open=False):
            gr.Markdown(text)


def waiting_html(text: str) -> str:
    """Returns the line that stands where a verdict will."""
    return f'<div class="mm-verdict waiting"><span class="word">{escape(text)}</span></div>'


def bar_html(value: float, mark: float) -> str:
    """Returns a verdict's bar, filled up to ``value``, with the threshold at ``mark``; both in [0, 1]."""
    return (
        f'<div class="bar"><div class="fill" style="width:{100 * value:.1f}%"></div>'
        f'<div class="mark" style="left:{100 * mark:.1f}%"></div></div>'
    )
