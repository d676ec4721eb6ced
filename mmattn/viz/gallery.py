"""A page that shows the results of a batch: one self-contained ``index.html`` beside the pictures it shows.

Style and script are written into the page, nothing is fetched from elsewhere (a content security policy forbids it),
and all text is escaped. The page works from the file system, on a phone, in light and dark, and without JavaScript.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote

import numpy as np

from mmattn.media.files import atomic_path

__all__ = ["GalleryItem", "write_gallery"]

_VIDEO_SUFFIXES = frozenset({".m4v", ".mov", ".mp4", ".webm"})
_AUDIO_SUFFIXES = frozenset({".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"})
_HISTOGRAM_BINS = 48


@dataclass(frozen=True)
class GalleryItem:
    """One result.

    Args:
        title: Usually the input's file name.
        score: Any finite number; ``None`` when the system has none.
        label: What the system calls the item. With a threshold the page derives the label from the score instead.
        pictures: Name -> path relative to the page; pictures, videos or audio, told by suffix. The card shows the
            second picture and, left of the pointer, the first (so put the input first and its overlay second); with
            a video or sound it shows the player and all pictures under it.
        details: Further facts, shown as they are.
        error: Why there is no result; such items stand last.
    """

    title: str
    score: float | None = None
    label: str | None = None
    pictures: Mapping[str, str | os.PathLike[str]] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)
    error: str | None = None


def write_gallery(
    path: str | os.PathLike[str],
    items: Sequence[GalleryItem],
    *,
    title: str = "Results",
    threshold: float | None = None,
    note: str = "",
    labels: tuple[str, str] = ("normal", "anomalous"),
) -> Path:
    """Writes the page for ``items``, highest score first; those without a score stand by name.

    Args:
        path: The HTML file, or a folder that gets an ``index.html``.
        items: What to show; may be empty.
        title: Heading of the page.
        threshold: Scores above it get the second label. The page has a slider that moves it; without a threshold
            there is no slider and items keep their own labels.
        note: A sentence or two under the heading: model, data, how to read the score.
        labels: Words for scores up to the threshold and above it.

    Returns:
        Path of the page.

    Raises:
        ValueError: A score or the threshold is not finite, or a picture's path is not relative.
        MediaError: The page cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in {".html", ".htm"}:
        target = target / "index.html"
    _check(items, threshold)
    page = _page(_ordered(items), title, threshold, note, labels)
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _check(items: Sequence[GalleryItem], threshold: float | None) -> None:
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold must be a finite number, got {threshold}.")
    for item in items:
        if item.score is not None and not math.isfinite(item.score):
            raise ValueError(f"The score of {item.title!r} is {item.score}; pass None for an item without a score.")


def _ordered(items: Sequence[GalleryItem]) -> list[GalleryItem]:
    def key(item: GalleryItem) -> tuple[bool, bool, float, str]:
        return item.error is not None, item.score is None, -(item.score or 0.0), item.title

    return sorted(items, key=key)


def _page(items: Sequence[GalleryItem], title: str, threshold: float | None, note: str, labels: tuple[str, str]) -> str:
    style = files("mmattn.viz").joinpath("gallery.css").read_text(encoding="utf-8")
    script = files("mmattn.viz").joinpath("gallery.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src 'self' file: data:; media-src 'self' file:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    low, high = _score_range(items, threshold)
    kinds = [_kind(item, threshold) for item in items]
    grid = "cards roomy" if any(map(_plays, items)) else "cards"
    cards = "\n".join(_card(item, kind, low, high, labels) for item, kind in zip(items, kinds, strict=True))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body style="--threshold: {_percent(threshold if threshold is not None else low, low, high)}">
<header class="wide"><div class="head">
<div><h1>{escape(title)}</h1>{f'<p class="note">{escape(note)}</p>' if note else ""}</div>
{_counts(kinds, labels)}
</div></header>
<div class="tools"><div class="wide">
{_slider(items, threshold, low, high)}
{_finder(items, kinds, labels)}
</div></div>
<main class="wide">
<div class="{grid}" data-below="{escape(labels[0])}" data-above="{escape(labels[1])}">
{cards}
</div>
<p class="empty"{" hidden" if items else ""}>{"Nothing matches." if items else "There are no results yet."}</p>
</main>
{_DIALOG}
<script>{script}</script>
</body>
</html>
"""


def _score_range(items: Sequence[GalleryItem], threshold: float | None) -> tuple[float, float]:
    """The range of bars and slider: [0, 1], widened to what is there."""
    values = [item.score for item in items if item.score is not None] + [0.0, 1.0]
    if threshold is not None:
        values.append(threshold)
    return min(values), max(values)


def _kind(item: GalleryItem, threshold: float | None) -> str:
    if item.error is not None:
        return "failed"
    if item.score is None or threshold is None:
        return "plain"
    return "above" if item.score > threshold else "below"


def _counts(kinds: Sequence[str], labels: tuple[str, str]) -> str:
    rows = [("all", "items" if len(kinds) != 1 else "item", len(kinds))]
    if "above" in kinds or "below" in kinds:
        rows += [("above", labels[1], kinds.count("above")), ("below", labels[0], kinds.count("below"))]
    if "failed" in kinds:
        rows.append(("failed", "failed", kinds.count("failed")))
    cells = [
        f'<div class="{kind}"><dt>{escape(word)}</dt><dd id="count-{kind}">{count}</dd></div>'
        for kind, word, count in rows
    ]
    return f'<dl class="counts">{"".join(cells)}</dl>'


def _slider(items: Sequence[GalleryItem], threshold: float | None, low: float, high: float) -> str:
    scores = [item.score for item in items if item.score is not None and item.error is None]
    if threshold is None or not scores:
        return ""
    counts, edges = np.histogram(scores, bins=_HISTOGRAM_BINS, range=(low, high))
    # The square root keeps rare scores visible beside a common one.
    heights = np.sqrt(counts / counts.max()) * 28
    bars = "".join(
        f'<rect x="{index * 4}" y="{30 - height:.1f}" width="3" height="{height:.1f}" data-from="{edge:.6g}" '
        f'class="{"above" if edge >= threshold else "below"}"/>'
        for index, (height, edge) in enumerate(zip(heights.tolist(), edges.tolist(), strict=False))
        if height
    )
    box = f"0 0 {_HISTOGRAM_BINS * 4} 30"
    return f"""<div class="threshold"><label for="threshold">Threshold</label>
<div class="slide"><svg viewBox="{box}" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>
<input id="threshold" type="range" min="{low:.6g}" max="{high:.6g}" step="any" value="{threshold:.6g}"></div>
<output id="threshold-value" for="threshold">{threshold:.3f}</output></div>"""


def _finder(items: Sequence[GalleryItem], kinds: Sequence[str], labels: tuple[str, str]) -> str:
    choices = [("all", "All")]
    if "above" in kinds or "below" in kinds:
        choices += [("above", labels[1].capitalize()), ("below", labels[0].capitalize())]
    if "failed" in kinds:
        choices.append(("failed", "Failed"))
    buttons = "".join(
        f'<button type="button" value="{kind}" aria-pressed="{str(kind == "all").lower()}">{escape(word)}</button>'
        for kind, word in choices
    )
    order = ""
    # Without scores the cards stand by name already.
    if any(item.score is not None for item in items):
        order = """<select id="order" aria-label="Order"><option value="high">Highest first</option>
<option value="low">Lowest first</option><option value="name">By name</option></select>
"""
    return f"""<div class="find">
<div class="show"{" hidden" if len(choices) == 1 else ""}>{buttons}</div>
{order}<input id="query" type="search" placeholder="Find a file" aria-label="Find a file"></div>"""


def _card(item: GalleryItem, kind: str, low: float, high: float, labels: tuple[str, str]) -> str:
    media = [_medium(item, name, path) for name, path in item.pictures.items()]
    word = {"failed": "failed", "above": labels[1], "below": labels[0]}.get(kind, item.label or "")
    chip = f'<span class="chip">{escape(word)}</span>' if word else ""
    score = ""
    if item.score is not None:
        value = _percent(item.score, low, high)
        score = (
            f'<div class="score"><div class="bar"><i style="--value: {value}"></i></div><b>{item.score:.3f}</b></div>'
        )
    details = dict(item.details)
    if item.label and item.label not in labels and word != item.label:
        details = {"label": item.label, **details}
    rows = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in details.items())
    data = f' data-score="{float(item.score)!r}"' if item.score is not None else ""
    data += f' data-media="{escape(json.dumps(media))}"' if media and item.error is None else ""
    name = escape(item.title)
    folder, _, last = item.title.rpartition("/")
    place = f'<p class="folder">{escape(folder)}/</p>' if folder else ""
    return f"""<article class="card {kind}" data-title="{name}"{data}>
{_stage(item, media)}
<div class="body">{place}<div class="name"><h2 title="{name}">{escape(last)}</h2>{chip}</div>
{f'<p class="error">{escape(item.error)}</p>' if item.error is not None else score}
{f'<dl class="details">{rows}</dl>' if rows else ""}</div>
</article>"""


def _plays(item: GalleryItem) -> bool:
    return any(_media_kind(path) != "img" for path in item.pictures.values())


def _media_kind(path: str | os.PathLike[str]) -> str:
    suffix = PurePosixPath(os.fspath(path)).suffix.lower()
    return "video" if suffix in _VIDEO_SUFFIXES else "audio" if suffix in _AUDIO_SUFFIXES else "img"


def _medium(item: GalleryItem, name: str, path: str | os.PathLike[str]) -> dict[str, str]:
    text = os.fspath(path)
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).drive or not text:
        raise ValueError(
            f"The path {text!r} of {item.title!r} must be relative to the page, so that the folder can be moved."
        )
    # Quoting also turns the colon of "javascript:" into text.
    return {"name": name, "path": quote(text.replace(os.sep, "/")), "kind": _media_kind(path)}


def _stage(item: GalleryItem, media: Sequence[Mapping[str, str]]) -> str:
    if item.error is not None:
        return '<div class="stage"><span aria-hidden="true">!</span></div>'
    if not media:
        return ""
    playable = [entry for entry in media if entry["kind"] != "img"]
    if playable:
        kind, path = playable[0]["kind"], playable[0]["path"]
        player = f'<div class="stage plays"><{kind} controls preload="metadata" src="{path}"></{kind}></div>'
        return player + "".join(
            _under(item, entry, index) for index, entry in enumerate(media) if entry["kind"] == "img"
        )
    images = [
        f'<img class="{place}" src="{entry["path"]}" alt="{escape(item.title)}, {escape(entry["name"])}" '
        'loading="lazy" decoding="async">'
        for place, entry in zip(("first", "second"), media, strict=False)
    ]
    if len(images) == 2:
        left, right = escape(media[0]["name"]), escape(media[1]["name"])
        images.append(
            f'<span class="edge"></span><span class="tag left">{left}</span><span class="tag right">{right}</span>'
        )
    classes = "stage compare" if len(images) == 3 else "stage"
    return (
        f'<button type="button" class="{classes}" aria-label="Enlarge {escape(item.title)}">{"".join(images)}</button>'
    )


def _under(item: GalleryItem, entry: Mapping[str, str], index: int) -> str:
    """A picture below a player, as the risk curve of a video."""
    text = f"{escape(item.title)}, {escape(entry['name'])}"
    image = f'<img src="{entry["path"]}" alt="{text}" loading="lazy" decoding="async">'
    return (
        f'<button type="button" class="stage under" data-index="{index}" aria-label="Enlarge {text}">{image}</button>'
    )


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * (value - low) / (high - low):.2f}%"


_DIALOG = """<dialog aria-label="Enlarged"><div class="zoom"><div class="canvas"></div>
<div class="side"><h2></h2><div class="facts"></div><div class="show"></div>
<div class="move"><button type="button" id="previous">&larr; Previous</button>
<button type="button" id="next">Next &rarr;</button></div>
</div></div><button type="button" class="shut" aria-label="Close">&times;</button></dialog>"""
