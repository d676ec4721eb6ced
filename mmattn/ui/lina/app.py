"""The Lina app: text in, speech out, in a browser; and a voice learned from a minute of recordings.

    mmattn app lina

Sound is played while it is made. That needs the program ``ffmpeg``; without it a text is played when it is finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.ui.lina.clone import clone_tab
from mmattn.ui.lina.speak import Settings, Spoken, choose_seed, speak
from mmattn.ui.lina.view import (
    EXAMPLES,
    HOW_TO_READ,
    INTRO,
    LIMITS,
    NO_FFMPEG,
    SYNTHETIC,
    model_line,
    numbers_html,
)
from mmattn.ui.lina.voices import Visit, voice_choices, voice_of
from mmattn.ui.notices import as_notices
from mmattn.ui.theme import model_choice, page, reading_notes, waiting_html

__all__ = ["build_app"]


def build_app(predictors: Mapping[str, LinaPredictor], *, can_stream: bool | None = None) -> gr.Blocks:
    """Builds the page; nothing is loaded or started.

    Args:
        predictors: Models a visitor can choose from, by the name shown; the first is preselected.
        can_stream: Whether sound is played while it is made; None looks for ``ffmpeg``, which that needs.
    """
    names = list(predictors)
    first = predictors[names[0]]
    streams = shutil.which("ffmpeg") is not None if can_stream is None else can_stream
    with page("LINA · mmattn", INTRO) as demo:
        gr.HTML(SYNTHETIC)
        visit = gr.State(None)
        with gr.Row(equal_height=False):
            model = model_choice(names)
            choices = voice_choices(first, None)
            voice = gr.Dropdown(choices, value=preselected(first, choices), label="Voice", elem_id="lina-voice")
        about = gr.Markdown(describe(names[0], first), elem_id="lina-model")
        with gr.Tabs():
            with gr.Tab("Speak"):
                _speak_tab(predictors, model, voice, visit, streams=streams)
            with gr.Tab("Clone a voice"):
                clone_tab(predictors, model, voice, visit)
        reading_notes(HOW_TO_READ, LIMITS)

        def on_model(name: str, kept: Visit | None) -> tuple[str, Any]:
            known = voice_choices(predictors[name], kept)
            return describe(name, predictors[name]), gr.update(
                choices=known, value=preselected(predictors[name], known)
            )

        model.change(on_model, [model, visit], [about, voice], api_visibility="private")
    return demo


def describe(name: str, predictor: LinaPredictor) -> str:
    """Returns the line that says which model is loaded."""
    return model_line(
        name,
        parameters=sum(parameter.numel() for parameter in predictor.model.parameters()),
        sample_rate=predictor.codec.sample_rate,
        tokenizer=predictor.config.tokenizer,
    )


def preselected(predictor: LinaPredictor, choices: list[tuple[str, str]]) -> str:
    """Returns the voice that a model begins with: its default, else the first there is."""
    values = [value for _, value in choices]
    return predictor.default_voice if predictor.default_voice in values else values[0]


def _speak_tab(
    predictors: Mapping[str, LinaPredictor], model: gr.Dropdown, voice: gr.Dropdown, visit: gr.State, *, streams: bool
) -> None:
    sampling = next(iter(predictors.values())).sampling
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            text = gr.Textbox(
                label="Text", lines=5, max_lines=14, placeholder="What should it say?", elem_id="lina-text"
            )
            gr.Examples([[example] for example in EXAMPLES], inputs=[text], label="Examples")
            with gr.Accordion("Settings", open=False):
                temperature = gr.Slider(0, 1.5, value=sampling.temperature, step=0.05, label="Temperature")
                top_k = gr.Slider(0, 500, value=sampling.top_k, step=1, label="Top-k (0: all)")
                seed = gr.Number(0, precision=0, label="Seed", elem_id="lina-seed")
                is_random = gr.Checkbox(False, label="Another seed every time", elem_id="lina-random")
            with gr.Row():
                run = gr.Button("Speak", variant="primary", size="lg", elem_id="lina-run", scale=3)
                stop = gr.Button("Stop", size="lg", elem_id="lina-stop", min_width=80)
        with gr.Column(scale=3, min_width=320):
            if streams:
                live = gr.Audio(
                    label="While it is spoken", streaming=True, autoplay=True, interactive=False, buttons=[],
                    elem_id="lina-live",
                )  # fmt: skip
            else:
                gr.HTML(NO_FFMPEG, elem_id="lina-no-stream")
            recording = gr.Audio(
                label="The recording", interactive=False, autoplay=not streams, buttons=["download"],
                elem_id="lina-recording",
            )  # fmt: skip
            numbers = gr.HTML(waiting_html("Nothing spoken yet"), elem_id="lina-numbers")
            picture = gr.Image(
                label="Sound and alignment", show_label=False, interactive=False, buttons=["fullscreen"],
                elem_id="lina-picture",
            )  # fmt: skip
            files = gr.File(
                label="Downloads", visible=False, interactive=False, file_count="multiple", elem_id="lina-files"
            )

    # The names of these arguments are those of the page's API.
    def on_speak(
        text: str,
        model: str,
        voice: str,
        visit: Visit | None,
        temperature: float,
        top_k: int,
        seed: float | None,
        another_seed: bool,
    ) -> Iterator[tuple[Any, ...]]:
        with as_notices():
            settings = Settings(float(temperature), int(top_k), choose_seed(seed, is_random=another_seed))
            file = voice_of(predictors[model], visit, voice)
            yield gr.skip(), None, waiting_html("Speaking …"), None, gr.update(visible=False), settings.seed
            for sound, spoken in speak(predictors[model], text, file, settings):
                if spoken is not None:
                    yield gr.skip(), *_finished(spoken, model), gr.skip()
                elif streams:
                    yield sound, *[gr.skip()] * 5

    @wraps(on_speak)
    def on_whole(*values: Any) -> Iterator[tuple[Any, ...]]:
        for update in on_speak(*values):
            yield update[1:]

    inputs = [text, model, voice, visit, temperature, top_k, seed, is_random]
    views: list[Any] = [recording, numbers, picture, files, seed]
    event = gr.on(
        [run.click],
        on_speak if streams else on_whole,
        inputs,
        [live, *views] if streams else views,
        api_name="speak",
        concurrency_id="lina",
        show_progress_on=[numbers],
    )
    stop.click(lambda: waiting_html("Stopped"), None, numbers, cancels=[event], api_visibility="private")


def _finished(spoken: Spoken, model: str) -> tuple[Any, ...]:
    """Returns what is shown of a finished text: recording, numbers, picture, downloads."""
    result = spoken.result
    if result.skipped:
        gr.Warning(f"Left out, as nobody can say it: {' '.join(result.skipped)[:80]}")
    if not result.finished:
        gr.Warning("A sentence did not come to an end and was cut. Try another seed.")
    # Those of a sentence that was cut follow from that.
    others = sorted({problem for said in result.sentences if said.finished for problem in said.problems})
    if others:
        gr.Warning(f"Not all of it was read as written: {', '.join(others)}. Try another seed.")
    line = numbers_html(
        seconds=result.seconds,
        rtf=result.rtf,
        first_audio=spoken.first_audio,
        seed=result.seed,
        voice=result.voice or "the model's own",
        model=model,
    )
    paths = [str(path) for path in spoken.files]
    picture = next(path for path in paths if Path(path).suffix == ".png")
    return paths[0], line, picture, gr.update(value=paths, visible=True)
