"""What every page is made of."""

import gradio as gr
import pytest

from mmattn.errors import InputError, MediaError
from mmattn.ui.notices import as_notices
from mmattn.ui.theme import bar_html, model_choice, page, reading_notes, waiting_html


def texts(demo: gr.Blocks) -> list[str]:
    return [block.value for block in demo.blocks.values() if isinstance(block, gr.Markdown)]


def test_a_page_has_its_head_above_and_its_notes_below() -> None:
    with page("Demo", "# Head") as demo:
        model_choice(["small", "large"])
        reading_notes("How.", "Limits.")
    assert demo.title == "Demo"
    assert texts(demo) == ["# Head", "How.", "Limits."]
    assert [block.label for block in demo.blocks.values() if isinstance(block, gr.Accordion)] == [
        "How to read this",
        "Limits",
    ]


@pytest.mark.parametrize(("names", "can_choose"), [(["small"], False), (["small", "large"], True)])
def test_the_first_model_is_chosen_and_one_alone_cannot_be_changed(names: list[str], can_choose: bool) -> None:
    choice = model_choice(names)
    assert (choice.value, choice.interactive) == ("small", can_choose)


def test_html_is_escaped_and_places_are_in_percent() -> None:
    assert "&lt;b&gt;" in waiting_html("<b>")
    assert "width:25.0%" in bar_html(0.25, 0.5)
    assert "left:50.0%" in bar_html(0.25, 0.5)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("It is no picture.", "Use another."), "It is no picture. Use another."),
        (MediaError("'/tmp/gradio/0af/torn.png' is no picture."), "'torn.png' is no picture."),
    ],
)
def test_bad_input_becomes_a_notice_and_other_errors_do_not(error: Exception, text: str) -> None:
    with pytest.raises(gr.Error) as notice, as_notices():
        raise error
    assert notice.value.message == text
    for other in (KeyError("a fault of ours"), ValueError("text of a library")):
        with pytest.raises(type(other)), as_notices():
            raise other
