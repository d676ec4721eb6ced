"""What people write, as it is found on pages and in messages: each row was once misread."""

# ruff: noqa: RUF001 - the typographic characters are meant.

import shutil

import pytest

from mmattn.speech.lina.text.normalise import normalise, spoken_form
from mmattn.speech.lina.text.phonemes import GruutTokenizer
from mmattn.speech.lina.text.sentences import split_sentences

SIGNS = {
    "The temperature is -5°C.": "The temperature is minus five degrees Celsius.",
    "The balance is -$40.": "The balance is minus forty dollars.",
    "$-40 and −£2": "minus forty dollars and minus two pounds",
    "fell by -2.5%": "fell by minus two point five percent",
    "from -10°C to 5°C": "from minus ten degrees Celsius to five degrees Celsius",
    "-10 to -5 °C": "minus ten to minus five degrees Celsius",
    "+5%, (-3 kg)": "plus five percent, minus three kilograms",
    "p < 0.05": "p is less than zero point zero five",
    "p < -0.05, x<y": "p is less than minus zero point zero five, x is less than y",
    "Blood pressure >140": "Blood pressure above one hundred and forty",
    "<= 5": "at most five",
    ">= 5": "at least five",
    "x->y": "x to y",
    "B => C, then": "B to C, then",
    "-> item": "item",
}
NAMES = {
    "We drove from St. Louis to St. Paul.": "We drove from Saint Louis to Saint Paul.",
    "the St. Louis Cardinals": "the Saint Louis Cardinals",
    "She visited St. Petersburg.": "She visited Saint Petersburg.",
    "at St Andrews, Main St. 5": "at Saint Andrews, Main Street five",
    "on 42nd St. Then": "on forty second Street Then",
    "12 Elm Dr. is it": "twelve Elm Drive is it",
    "Dr Jones": "Doctor Jones",
    "Mr & Mrs Smith vs. Jones Ltd": "Mister and Missus Smith versus Jones Limited",
    "DR. SMITH IS IN THE ROOM": "Doctor smith is in the room",
    "PhD student": "P H D student",
    "Fig. 3 and Vol. 2": "Figure three and Volume two",
    "Approx. 5, Vs. them, Etc.": "Approximately five, Versus them, Et cetera.",
    "George W. Bush won.": "George W Bush won.",
    "Plan B. Then we left.": "Plan B. Then we left.",
    "BREAKING NEWS FROM THE BBC": "breaking news from the B B C",
    "HTML AND CSS BASICS": "H T M L and C S S basics",
    "iOS, macOS and mRNA": "I O S, mac O S and M R N A",
    "the tsp, kwh, hmm, shh": "the T S P, K W H, hmm, shh",
}
AMOUNTS = {
    "H.264": "H two six four",
    "1 000 000": "one million",
    "12 345 678": "twelve million three hundred and forty five thousand six hundred and seventy eight",
    "12 000 km": "twelve thousand kilometers",
    "€29,99": "twenty nine euros ninety nine cents",
    "29,99 €": "twenty nine euros ninety nine cents",
    "$3/kg, $5/month": "three dollars per kilogram, five dollars per month",
    "100m²": "one hundred square meters",
    "2024-03-05T14:30:00Z": "March fifth, twenty twenty four, fourteen thirty",
    "2024-03-05 14:30+02:30": "March fifth, twenty twenty four, fourteen thirty U T C plus two thirty",
    "2024/03/05": "March fifth, twenty twenty four",
    "5/6/24": "May sixth, twenty twenty four",
    "5/6/87": "May sixth, nineteen eighty seven",
    "5/8 inch, 7/8": "five eighths inch, seven eighths",
    "2 3/4 cups, 10/10, 16/9": "two and three quarters cups, ten out of ten, sixteen ninths",
    "24/7": "twenty four seven",
    "9/11": "nine eleven",
    "and/or": "and or",
    "w/o milk, TCP/IP": "without milk, T C P I P",
    "3 m/s": "three meters per second",
    "9.8 m/s²": "nine point eight meters per second squared",
    "120/80 mmHg": "one hundred and twenty over eighty millimeters of mercury",
    "90 mg/dL": "ninety milligrams per deciliter",
    "10 kWh, 5 mA, 100 Mbps": "ten kilowatt hours, five milliamps, one hundred megabits per second",
    "2 tsp, 20 dB": "two teaspoons, twenty decibels",
    "10s": "ten seconds",
    "the 80s, her 20s": "the eighties, her twenties",
    "Call 555-0142": "Call five five five, zero one four two",
    "call me at 867-5309": "call me at eight six seven, five three zero nine",
    "100-2000 people": "one hundred to two thousand people",
}
MARKUP = {
    "# Heading": "Heading",
    "<b>Bonds</b> within": "Bonds within",
    "<p>Hello</p><p>World</p>": "Hello. World",
    "fish &amp; chips": "fish and chips",
    "~~old~~ **new** `code`": "old new code",
    "[text](https://x.com/y)": "text",
    "<john@example.com> a < b": "john at example dot com a is less than b",
}
ONE_SENTENCE = [
    "Ph.D. students work.",
    "He holds a B.Sc. in physics.",
    "Gov. Smith, Sen. Lee and Rep. Kim.",
    "Ft. Worth is big.",
    "fish &amp; chips",
]


@pytest.mark.parametrize(("written", "spoken"), [*(SIGNS | NAMES | AMOUNTS | MARKUP).items()])
def test_what_is_written_is_said(written: str, spoken: str) -> None:
    if any(c.isdigit() for c in written):
        pytest.importorskip("num2words", reason="num2words is not installed")
    assert spoken_form(written) == (spoken, [])


@pytest.mark.parametrize("text", ONE_SENTENCE)
def test_no_sentence_ends_at_an_abbreviation(text: str) -> None:
    assert [sentence.text for sentence in split_sentences(text)] == [text]


def test_a_sentence_ends_where_another_begins() -> None:
    texts = [sentence.text for sentence in split_sentences("One more rep. Then rest. She has a Ph.D. They do not.")]
    assert texts == ["One more rep.", "Then rest.", "She has a Ph.D.", "They do not."]


@pytest.mark.parametrize(
    "piece", ["<", "&", "&am;", "*a", "~~", "[a](", "<b ", "1 000 ", "5/", "$", "<!--", "x->", "`"]
)
def test_markup_without_an_end_takes_time_in_proportion(piece: str) -> None:
    pytest.importorskip("num2words", reason="num2words is not installed")
    assert isinstance(normalise(piece * (20_000 // len(piece))), str)


def test_a_very_common_word_is_said_as_people_say_it() -> None:
    pytest.importorskip("gruut", reason="gruut is not installed")
    assert GruutTokenizer().encode("Wi-Fi").symbols[1:-1] == ["w", "ˈaɪ", "f", "ˌaɪ"]
    assert GruutTokenizer().encode("iOS").symbols[1:-1] == ["ˈaɪ", " ", "ˈoʊ", " ", "ˈɛ", "s"]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_says_it_too() -> None:
    from mmattn.speech.lina.text.phonemes import EspeakTokenizer

    assert "".join(EspeakTokenizer().encode("Wi-Fi").symbols[1:-1]) == "wˈaɪfaɪ"
