import pytest

from mmattn.core.errors import InputError
from mmattn.speech.lina.planning import MAX_TOKENS, TextPlanner
from mmattn.speech.lina.text import CharacterTokenizer


def plan(text: str) -> list[tuple[int, str, str]]:
    return [(p.place, p.text, p.after) for p in TextPlanner(CharacterTokenizer(), 200).whole(text)]


def test_sentences_are_numbered_and_tokenised() -> None:
    planned = TextPlanner(CharacterTokenizer(), 200).whole("One. Two!")
    assert [(p.place, p.text, p.after) for p in planned] == [(0, "One.", "start"), (1, "Two!", "sentence")]
    assert "".join(planned[1].tokens.symbols) == "^two!$"


def test_the_widest_break_around_something_left_out_remains() -> None:
    assert plan("One.\n\n***\nTwo.") == [(0, "One.", "start"), (1, "Two.", "paragraph")]
    assert plan("One; *** \n\nTwo.") == [(0, "One;", "start"), (1, "Two.", "paragraph")]
    assert plan("***\n\nOne. Two; three.") == [(0, "One.", "start"), (1, "Two;", "sentence"), (2, "three.", "part")]


def test_a_sentence_of_too_many_tokens_is_spoken_in_parts() -> None:
    planned = TextPlanner(CharacterTokenizer(), 200).whole("Hi. " + "9" * 195 + " End.")
    assert all(len(p.tokens.ids) <= MAX_TOKENS for p in planned)
    assert "".join(p.text for p in planned).replace(" ", "") == "Hi." + "9" * 195 + "End."
    assert [p.after for p in planned] == ["start", "sentence", *["part"] * (len(planned) - 2)]
    assert [p.place for p in planned] == list(range(len(planned)))


def test_nothing_to_speak_is_an_error_that_shows_the_text() -> None:
    for text in ("", " \n"):
        with pytest.raises(InputError, match="The text is empty"):
            plan(text)
    with pytest.raises(InputError, match=r"nothing that can be spoken: '\*\*\*'"):
        plan("***")


def test_portions_give_the_sentences_of_the_whole() -> None:
    text = "One two. ***\n\nThree; four. " + "9" * 150 + " five."
    planner = TextPlanner(CharacterTokenizer(), 60)
    pieces = [p for character in text for p in planner.push(character)] + planner.finish()
    whole = TextPlanner(CharacterTokenizer(), 60)
    expected = whole.whole(text)
    assert [(p.place, p.text, p.after) for p in pieces] == [(p.place, p.text, p.after) for p in expected]
    assert planner.skipped == whole.skipped == ["***"]
