"""The Crane app: find and outline defects in pictures, in a browser.

    mmattn app crane

The model runs once per picture. Both threshold sliders and the colour range only redraw what was computed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import numpy as np

from mmattn.media.image import read_image
from mmattn.ui.notices import as_notices
from mmattn.ui.queue import stop_if_gone
from mmattn.ui.theme import bar_html, model_choice, page, reading_notes, waiting_html
from mmattn.vision.crane.predictor import CranePredictor, shrink
from mmattn.vision.crane.results import CraneResult
from mmattn.viz.heatmap import colormap_table

__all__ = ["Packed", "Scored", "build_app", "detect", "draw", "example_pictures", "pack"]

MAX_PICTURES = 24
MAX_PIXELS = 60_000_000
VIEW_SIDE = 1024

INTRO = """# Crane · find what does not belong
Give it a picture of any object or surface. It was never shown that object: a vision-language model compares every
patch with the words *object* and *damaged object*, and outlines what looks damaged."""

HOW_TO_READ = """
- **Score**: how sure the model is that something is wrong with the picture as a whole, from 0 to 1. The yellow mark is
  your threshold; above it the picture is called *anomalous*. Scores of different kinds of products are not comparable:
  set the threshold on pictures of your own product (`mmattn calibrate crane FOLDER_OF_NORMALS`).
- **Heat map**: the same question for every place. Dark is normal, bright is unusual. With the *fixed* range the same
  colour always means the same value, so a flawless picture stays dark. *Each picture's own range* always paints
  something bright, even when there is nothing to find: use it to look for structure, not to judge.
- **Outline**: everything above the outline threshold.
- **Flawless examples**: with one to ten pictures of the same product without defects the map becomes much sharper.
"""

LIMITS = """
- The embedded model is small and was trained on *generated* pictures. It knows scratches, stains, cracks, holes and
  similar visible damage; it cannot know that a part is missing or that a label is the wrong one.
- Small defects vanish when a large picture is resized to the model's input: crop to the region of interest.
- It measures "unlike the rest", not "dangerous". **Not for diagnosis:** results on medical pictures are research
  output and must not be used for decisions about a patient.
- Pictures and results stay on the machine that runs this page. They are deleted within a quarter of an hour after you
  leave; what you sent and never used, within a day.
"""


@dataclass
class Scored:
    """One picture of a session: its name and its result, all that redrawing needs."""

    name: str
    result: CraneResult


@dataclass
class Packed:
    """A zip of results made for download; it is removed when the session forgets it."""

    file: Path

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.file.parent, ignore_errors=True)


def build_app(predictors: Mapping[str, CranePredictor], *, examples: Sequence[Path] | None = None) -> gr.Blocks:
    """Builds the page; nothing is loaded or started.

    Args:
        predictors: Models a visitor can choose from, by the name shown; the first is preselected.
        examples: Example pictures; None takes the bundled ones.
    """
    names = list(predictors)
    pictures = list(example_pictures() if examples is None else examples)
    with page("Crane · mmattn", INTRO) as demo:
        state = gr.State([])
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                with gr.Tabs():
                    with gr.Tab("One picture"):
                        one = gr.Image(
                            type="numpy",
                            sources=["upload", "webcam", "clipboard"],
                            label="Picture",
                            height=320,
                            elem_id="crane-picture",
                        )
                    with gr.Tab("Several pictures"):
                        many = gr.File(
                            file_count="multiple",
                            file_types=["image"],
                            label=f"Up to {MAX_PICTURES} pictures",
                            elem_id="crane-files",
                        )
                model = model_choice(names)
                with gr.Accordion("Flawless examples of the same product (optional)", open=False):
                    normals = gr.File(
                        file_count="multiple", file_types=["image"], label="1 to 10 pictures", elem_id="crane-normals"
                    )
                run = gr.Button("Find defects", variant="primary", size="lg", elem_id="crane-run")
                if pictures:
                    gr.Examples([[str(p)] for p in pictures], inputs=[one], label="Examples")
            with gr.Column(scale=6, min_width=320):
                verdict = gr.HTML(verdict_html(None), elem_id="crane-verdict")
                slider = gr.ImageSlider(
                    label="Picture | what looks damaged",
                    interactive=False,
                    height=420,
                    slider_position=12,
                    elem_id="crane-slider",
                )
                gr.HTML(scale_html())
                with gr.Row():
                    threshold = gr.Slider(
                        0,
                        1,
                        value=predictors[names[0]].options.threshold,
                        step=0.01,
                        label="Score threshold",
                        elem_id="crane-threshold",
                    )
                    outline = gr.Slider(
                        0,
                        1,
                        value=predictors[names[0]].options.pixel_threshold,
                        step=0.01,
                        label="Outline threshold",
                        elem_id="crane-outline",
                    )
                colors = gr.Radio(
                    [("fixed [0, 1]", "fixed"), ("each picture's own range", "image")],
                    value="fixed",
                    label="Colours of the heat map",
                )
                picker = gr.Gallery(
                    label="All pictures, highest score first",
                    columns=4,
                    height=220,
                    visible=False,
                    allow_preview=False,
                    elem_id="crane-gallery",
                )
                download = gr.DownloadButton("Download overlays, maps and scores", interactive=False)
        reading_notes(HOW_TO_READ, LIMITS)

        chosen = gr.State(0)
        packed = gr.State(None)
        views = [verdict, slider, picker]

        def on_detect(
            picture: np.ndarray | None, files: list[str] | None, name: str, good: list[str] | None
        ) -> list[Scored]:
            return detect(predictors[name], picture, files, good)

        def on_redraw(scored: list[Scored], index: int, at: float, outline_at: float, range_: str) -> tuple[Any, ...]:
            return draw(scored, index, at, outline_at, range_)

        def on_pack(scored: list[Scored], at: float, outline_at: float, range_: str) -> tuple[Packed | None, Any]:
            made = pack(scored, at, outline_at, range_)
            return made, gr.update(interactive=made is not None, value=None if made is None else str(made.file))

        controls = [state, chosen, threshold, outline, colors]
        found = run.click(on_detect, [one, many, model, normals], state, api_name="detect", concurrency_id="crane")
        found.success(lambda: 0, None, chosen, api_visibility="private").success(
            on_redraw, controls, views, api_visibility="private"
        ).success(on_pack, [state, threshold, outline, colors], [packed, download], api_visibility="private")
        for control in (threshold, outline, colors):
            control.change(on_redraw, controls, views, api_visibility="private", show_progress="hidden")

        def on_pick(event: gr.SelectData) -> int:
            return int(event.index)

        picker.select(on_pick, None, chosen, api_visibility="private").then(
            on_redraw, controls, views, api_visibility="private", show_progress="hidden"
        )
    return demo


def detect(
    predictor: CranePredictor,
    picture: np.ndarray | None,
    files: Sequence[str] | None,
    normals: Sequence[str] | None = None,
) -> list[Scored]:
    """Scores one picture, uint8 RGB (H, W, 3), or several files; highest score first.

    Raises:
        gr.Error: With a notice for the visitor when there is nothing to score or a file cannot be used.
    """
    named: list[tuple[str, np.ndarray]] = []
    with as_notices():
        if files:
            named = [(Path(f).name, read_image(Path(f), max_pixels=MAX_PIXELS)) for f in files[:MAX_PICTURES]]
        elif picture is not None:
            named = [("picture", predictor.read(picture))]
        if not named:
            raise gr.Error("Give a picture first: upload one, take one with the webcam, or click an example.")
        if files and len(files) > MAX_PICTURES:
            gr.Warning(f"Only the first {MAX_PICTURES} of {len(files)} pictures are scored.")
        with_memory = _with_normals(predictor, normals)
        results = []
        for _, image in named:
            stop_if_gone()
            results.append(with_memory.predict(image))
    scored = [
        Scored(name, replace(result, image=shrink(result.image, VIEW_SIDE)))
        for (name, _), result in zip(named, results, strict=True)
        if isinstance(result, CraneResult)
    ]
    return sorted(scored, key=lambda item: -item.result.score)


def draw(
    scored: Sequence[Scored], index: int, threshold: float, outline: float, display_range: str
) -> tuple[str, tuple[np.ndarray, np.ndarray] | None, Any]:
    """Redraws verdict, before/after pair (H, W, 3) and gallery from what was computed; the model does not run."""
    if not scored:
        return verdict_html(None), None, gr.update(visible=False)
    changed = [_restyle(item, threshold, outline, display_range) for item in scored]
    current = changed[min(index, len(changed) - 1)]
    if len(changed) == 1:
        gallery = gr.update(visible=False, value=None)
    else:
        captions = [
            (item.plot(), f"{item.score:.2f} · {entry.name}") for item, entry in zip(changed, scored, strict=True)
        ]
        gallery = gr.update(visible=True, value=captions)
    return verdict_html(current), (current.image, current.plot()), gallery


def pack(scored: Sequence[Scored], threshold: float, outline: float, display_range: str) -> Packed | None:
    """Writes a zip of overlays, raw maps and ``scores.json``; None where nothing is scored."""
    if not scored:
        return None
    folder = Path(tempfile.mkdtemp(prefix="mmattn-crane-"))
    packed = Packed(folder / "crane_results.zip")
    summary: dict[str, Any] = {}
    with zipfile.ZipFile(packed.file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, item in enumerate(scored):
            result = _restyle(item, threshold, outline, display_range)
            name = f"{number:02d}_{item.name}"
            for path in result.save(folder, name):
                archive.write(path, path.name)
                path.unlink()
            summary[name] = result.to_json()
        archive.writestr("scores.json", json.dumps(summary, indent=2))
    return packed


def verdict_html(result: CraneResult | None) -> str:
    """The coloured line with the score, the word and the bar."""
    if result is None:
        return waiting_html("No picture scored yet")
    word = "anomalous" if result.is_anomalous else "normal"
    return (
        f'<div class="mm-verdict {word}"><span class="number">{result.score:.3f}</span>'
        f'<span class="word">{word}</span>{bar_html(result.score, result.threshold)}</div>'
    )


def scale_html() -> str:
    """The colour scale of the heat map with its two ends named."""
    table = colormap_table("inferno")
    ramp = ",".join("rgb({},{},{})".format(*table[i]) for i in range(0, 256, 15))
    return (
        '<div class="mm-scale"><span>0 normal</span>'
        f'<div class="ramp" style="background:linear-gradient(90deg,{ramp})"></div><span>1 damaged</span></div>'
    )


def example_pictures() -> list[Path]:
    """Returns the bundled sample pictures, at most six."""
    folder = Path(__file__).resolve().parent.parent / "assets" / "crane" / "samples"
    return sorted(p for p in folder.glob("*") if p.suffix in {".jpg", ".png"} and "mask" not in p.stem)[:6]


def _restyle(item: Scored, threshold: float, outline: float, display_range: str) -> CraneResult:
    style: Literal["fixed", "image"] = "image" if display_range == "image" else "fixed"
    return replace(item.result, threshold=threshold, pixel_threshold=outline, display_range=style)


def _with_normals(predictor: CranePredictor, normals: Sequence[str] | None) -> CranePredictor:
    """The predictor itself, or one that shares its model and remembers the visitor's flawless pictures."""
    if not normals:
        return predictor
    session = CranePredictor(predictor.model, device=predictor.device, options=predictor.options, name=predictor.name)
    session.remember_normals([read_image(Path(f), max_pixels=MAX_PIXELS) for f in normals[:10]])
    return session
