"""The page's tab on which a voice is cloned: sentences to read, recordings, consent, progress, the voice to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.voices.cloning import ENOUGH_SECONDS
from mmattn.ui.lina.view import CLONE_INTRO, CONSENT, SENTENCES, recordings_html
from mmattn.ui.lina.voices import Visit, clone, voice_choices
from mmattn.ui.notices import as_notices
from mmattn.ui.queue import stop_if_gone
from mmattn.ui.theme import waiting_html

__all__ = ["clone_tab"]

PROGRESS = gr.Progress()


def clone_tab(predictors: Mapping[str, LinaPredictor], model: gr.Dropdown, voice: gr.Dropdown, visit: gr.State) -> None:
    """Builds the tab.

    Args:
        predictors: Models by name.
        model: The choice of one.
        voice: The choice of a voice, which gets the new ones.
        visit: Of the visitor, a :class:`.voices.Visit` or None.
    """
    gr.Markdown(CLONE_INTRO)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            _collect(visit)
        with gr.Column(min_width=300):
            name = gr.Textbox("my voice", label="Name of the voice", max_lines=1, elem_id="lina-name")
            consent = gr.Textbox(
                label="The speaker's statement", placeholder=CONSENT, lines=2, max_length=500, elem_id="lina-consent"
            )
            agreed = gr.Checkbox(
                False, label="This is my own voice, or its owner has agreed to this clone", elem_id="lina-agreed"
            )
            run = gr.Button("Clone the voice", variant="primary", size="lg", elem_id="lina-clone")
            status = gr.HTML(waiting_html("No voice cloned yet"), elem_id="lina-clone-status")
            keep = gr.DownloadButton("Download the voice", visible=False, elem_id="lina-keep")
            known = gr.File(
                label="Or bring a voice file", file_types=[".safetensors"], height=150, elem_id="lina-voice-file"
            )

    def on_clone(
        chosen: str, kept: Visit | None, called: str, statement: str, has_agreed: bool, progress: gr.Progress = PROGRESS
    ) -> tuple[Any, ...]:
        def report(step: int, steps: int, loss: float) -> None:
            stop_if_gone()
            progress((step, steps), desc=f"Learning the voice, loss {loss:.2f}", unit="steps")

        progress(0, desc="Reading the recordings")
        predictor = predictors[chosen]
        with as_notices():
            shown = clone(predictor, kept, name=called, consent=statement, has_agreed=has_agreed, report=report)
        seconds = sum(item.seconds for item in kept.recordings) if kept else 0.0
        if seconds < ENOUGH_SECONDS:
            gr.Warning(f"{seconds:.0f} s of speech are little; the voice may not sound alike. A minute is good.")
        return _with_voice(predictor, kept, shown, f"{shown} can speak now")

    def on_file(chosen: str, kept: Visit | None, file: str | None) -> tuple[Any, ...]:
        predictor, visiting = predictors[chosen], kept or Visit()
        if file is None:
            return visiting, gr.skip(), gr.skip(), gr.skip(), None
        with as_notices():
            shown = visiting.add_voice(predictor, file)
        return *_with_voice(predictor, visiting, shown, f"{shown} can speak now"), None

    views: list[Any] = [visit, voice, status, keep]
    run.click(
        on_clone,
        [model, visit, name, consent, agreed],
        views,
        api_visibility="private",
        concurrency_id="lina-clone",
        show_progress_on=[status],
    )
    known.upload(on_file, [model, visit, known], [*views, known], api_visibility="private")


def _with_voice(predictor: LinaPredictor, visit: Visit | None, shown: str, line: str) -> tuple[Any, ...]:
    """Returns the visit, the choice of voices, the status and the download after a voice has come."""
    file = None if visit is None else visit.voices[shown][0]
    return (
        visit,
        gr.update(choices=voice_choices(predictor, visit), value=f"yours:{shown}"),
        f'<div class="mm-verdict normal"><span class="word">{line}</span></div>',
        gr.update(value=str(file), visible=True),
    )


def _collect(visit: gr.State) -> None:
    """Builds the part that collects recordings."""
    sentence = gr.Dropdown(list(SENTENCES), value=SENTENCES[0], label="Read this aloud", elem_id="lina-sentence")
    audio = gr.Audio(
        sources=["microphone", "upload"], type="filepath", label="Your recording", elem_id="lina-record", buttons=[]
    )
    said = gr.Textbox(SENTENCES[0], label="What is said in it", lines=2, elem_id="lina-said")
    with gr.Row():
        add = gr.Button("Add this recording", elem_id="lina-add")
        clear = gr.Button("Start over", elem_id="lina-clear", min_width=80)
    listing = gr.HTML(recordings_html([]), elem_id="lina-recordings")
    several = gr.File(
        label="Or upload several: 1.wav with 1.txt, 2.wav with 2.txt, ...",
        file_count="multiple",
        height=150,
        elem_id="lina-several",
    )

    def listed(kept: Visit) -> str:
        return recordings_html([(item.text, item.seconds) for item in kept.recordings])

    def on_add(kept: Visit | None, path: str | None, text: str, read: str) -> tuple[Any, ...]:
        visiting = kept or Visit()
        with as_notices():
            visiting.record(path, text)
        following = SENTENCES[(SENTENCES.index(read) + 1) % len(SENTENCES)] if read in SENTENCES else SENTENCES[0]
        return visiting, listed(visiting), None, following

    def on_several(kept: Visit | None, files: list[str] | None) -> tuple[Any, ...]:
        visiting = kept or Visit()
        if files:
            with as_notices():
                visiting.record_files(files)
        return visiting, listed(visiting), None

    def on_clear(kept: Visit | None) -> tuple[Any, ...]:
        visiting = kept or Visit()
        visiting.recordings.clear()
        return visiting, listed(visiting)

    sentence.change(lambda text: text, sentence, said, api_visibility="private", show_progress="hidden")
    add.click(on_add, [visit, audio, said, sentence], [visit, listing, audio, sentence], api_visibility="private")
    several.upload(on_several, [visit, several], [visit, listing, several], api_visibility="private")
    clear.click(on_clear, visit, [visit, listing], api_visibility="private")
