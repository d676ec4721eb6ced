import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.text.planning import MAX_TOKENS, TextPlanner
from mmattn.speech.lina.text.tokenizers import CharacterTokenizer


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


def test_numbers_and_addresses_are_spoken_in_parts_as_long_as_other_sentences() -> None:
    text = "It costs $1,234,567.89, which is 12,345,678 more than it was. "
    text += "See www.example.com/some-page_with/a-second-name.html."
    planned = TextPlanner(CharacterTokenizer(), 80).whole(text)
    assert [p.text for p in planned] == [
        "It costs one million two hundred and thirty four thousand",
        "five hundred and sixty seven dollars eighty nine cents,",
        "which is twelve million three hundred and forty five",
        "thousand six hundred and seventy eight more than it was.",
        "See W W W dot example dot com slash some dash page",
        "underscore with slash a dash second dash name dot H T M L.",
    ]
    assert [p.after for p in planned] == ["start", "part", "part", "part", "sentence", "part"]
    assert [p.place for p in planned] == list(range(6))


def test_a_row_of_digits_is_cut_between_words() -> None:
    planned = TextPlanner(CharacterTokenizer(), 200).whole("Hi. " + "9" * 195 + " End.")
    assert max(len(p.tokens.ids) for p in planned) <= 250
    assert " ".join(p.text for p in planned) == "Hi. " + "nine " * 195 + "End."
    assert [p.after for p in planned] == ["start", "sentence", *["part"] * (len(planned) - 2)]


def test_a_word_is_cut_only_where_the_model_cannot_take_it() -> None:
    assert plan("a" * 199 + ".")[0][1] == "a" * 199 + "."
    planned = TextPlanner(CharacterTokenizer(), 2000).whole("a" * 1500)
    assert [len(p.text) for p in planned] == [750, 750]
    assert MAX_TOKENS == 800


def test_what_is_left_out_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    planner = TextPlanner(CharacterTokenizer(), 200)
    planned = planner.whole("Hello \u732b world. A \u732b and a \u72ac. ***")
    assert [p.text for p in planned] == ["Hello \u732b world.", "A \u732b and a \u72ac."]
    assert "".join(planned[0].tokens.symbols) == "^hello world.$"
    assert planner.skipped == ["\u732b", "\u72ac", "***"]
    assert [record.message for record in caplog.records] == [
        "Left out what cannot be spoken as English: \u732b \u72ac ***"
    ]


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
