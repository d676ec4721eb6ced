"""Written English as it is spoken."""

# ruff: noqa: RUF001 - the typographic characters are meant.

import logging
import time

import pytest

from mmattn.speech.lina.text.normalise import normalise, spoken_form

NUMBERS = {
    "$3.50": "three dollars fifty cents",
    "$1": "one dollar",
    "$.50": "fifty cents",
    "£5 and €5": "five pounds and five euros",
    "$5 million, $3.5bn": "five million dollars, three point five billion dollars",
    "1,234": "one thousand two hundred and thirty four",
    "1,234.56": "one thousand two hundred and thirty four point five six",
    "1,5": "one, five",
    "in 2021, 1900 and 2005": "in twenty twenty one, nineteen hundred and two thousand and five",
    "the 1990s and '80s": "the nineteen nineties and eighties",
    "5th, 1st 22nd": "fifth, first twenty second",
    "3.14": "three point one four",
    ".5": "zero point five",
    "50% of 50 %": "fifty percent of fifty percent",
    "1/2 cup, 2½ cups": "one half cup, two and a half cups",
    "24/7": "twenty four seven",
    "-5 + 3": "minus five plus three",
    "−5°C": "minus five degrees Celsius",
    "100°": "one hundred degrees",
    "10kg at 1 km/h": "ten kilograms at one kilometer per hour",
    "007": "zero zero seven",
    "1234567890123456": "one two three four five six seven eight nine zero one two three four five six",
    "1990–1995": "nineteen ninety to nineteen ninety five",
    "192.168.1.1": "one hundred and ninety two dot one hundred and sixty eight dot one dot one",
    "3D, B2B and covid-19": "three D, B two B and covid-nineteen",
    "#1": "number one",
    "10-20 people": "ten to twenty people",
    "$5-10, 1-2 kg": "five dollars to ten, one to two kilograms",
    "5-3=2, 5 - 3 = 2": "five minus three equals two, five minus three equals two",
    "12-34-56": "twelve thirty four fifty six",
    "1.2e6 and 3E-4": "one point two times ten to the power of six and three times ten to the power of minus four",
    "10², 2³ and 10⁻⁹": "ten squared, two cubed and ten to the power of minus nine",
    "6×10^23": "six times ten to the power of twenty three",
    "5 m², 100m, 3 L": "five square meters, one hundred meters, three liters",
    "1.5M users": "one point five million users",
    "2*3>5": "two times three is greater than five",
    "5'11\"": "five foot eleven",
    "١٢": "twelve",
    "5μm and 5Ω": "five micrometers and five ohms",
}
PHONES = {
    "call 555-123-4567.": "call five five five, one two three, four five six seven.",
    "+1 (555) 123-4567": "plus one, five five five, one two three, four five six seven",
    "+44 20 7946 0958": "plus four four, two zero, seven nine four six, zero nine five eight",
    "0800 123 456": "zero eight zero zero, one two three, four five six",
    "555.123.4567": "five five five, one two three, four five six seven",
    "100 200 300": "one hundred two hundred three hundred",
}
ROMAN = {
    "Louis XIV met Henry VIII": "Louis the fourteenth met Henry the eighth",
    "Henry V, World War II": "Henry the fifth, World War two",
    "Chapter IV. I am.": "Chapter four. I am.",
    "Apollo XIII": "Apollo thirteen",
    "Part I, and I": "Part one, and I",
    "Malcolm X in DC": "Malcolm X in D C",
    "VIII": "V I I I",
    "James V. Smith": "James V Smith",
}
TIMES = {
    "at 10:30": "at ten thirty",
    "10:05am": "ten oh five A M",
    "10:00": "ten o'clock",
    "14:00": "fourteen hundred hours",
    "at 3 p.m. we go": "at three P M we go",
    "It's 5 p.m. Now go.": "It's five P M. Now go.",
    "10:30:15": "ten thirty and fifteen seconds",
    "3:2 or 10:75": "three to two or ten to seventy five",
    "2021-05-04": "May fourth, twenty twenty one",
    "5/4/2021": "May fourth, twenty twenty one",
    "31/12/1999": "December thirty first, nineteen ninety nine",
    "99/99/2021": "ninety nine slash ninety nine slash twenty twenty one",
    "May 5, 2021": "May fifth, twenty twenty one",
    "Jan. 5": "January fifth",
    "Mar 5, May I?": "March fifth, May I?",
    "5 May 2020": "fifth of May twenty twenty",
}
ABBREVIATIONS = {
    "Dr. Smith and Mr. Jones": "Doctor Smith and Mister Jones",
    "St. John St.": "Saint John Street.",
    "5 St. John St. in town": "five Saint John Street in town",
    "tea, etc. and cake, etc.": "tea, et cetera and cake, et cetera.",
    "e.g. this, i.e. that": "for example, this, that is, that",
    "No. 5 on p. 6": "number five on page six",
    "No. I will not.": "No. I will not.",
    "the U.S. Army of the U.S.": "the U S Army of the U S.",
    "J. R. R. Tolkien": "J R R Tolkien",
    "Ph.D. work": "P H D work",
    "NASA and BBC": "nasa and B B C",
    "TVs": "T V's",
    "I did NOT": "I did not",
    "ALL CAPS TEXT HERE": "all caps text here",
    "A dog has vitamin A": "a dog has vitamin A",
    "XIV": "X I V",
}
TYPOGRAPHY = {
    "he said “yes” ‘no’": "he said yes no",
    "don’t it's dogs' 'tis": "don't it's dogs tis",
    "wait — what": "wait, what",
    "well… no": "well, no",
    "well…": "well.",
    "one\ntwo": "one two",
    "one\n\ntwo": "one. two",
    "Really?!": "Really?",
    "No!!! Stop..": "No! Stop.",
    "(aside) [x]": "aside, x",
    'He said: "Go!" Then left.': "He said: Go! Then left.",
    "you & me @ home": "you and me at home",
    "C++ = x_y/z": "C plus plus equals x y slash z",
    "naïve café, straße": "naive cafe, strasse",
    "end.Start again.then": "end. Start again dot then",
    "a.b.c.d": "a. b. c. d",
    "C# and F#": "C sharp and F sharp",
    "well-known -- twenty-one": "well-known, twenty-one",
    "#winning": "hashtag winning",
    "\u200bzero\u200bwidth": "zerowidth",
}
ADDRESSES = {
    "see https://example.com/a?b=c now": "see example dot com slash a now",
    "see www.bbc.co.uk/news.": "see W W W dot B B C dot co dot uk slash news.",
    "mail me@example.com": "mail me at example dot com",
    "on example.com, too": "on example dot com, too",
}
NOTHING = ["", " \n ", "…", "!!!", "--", '"', "你好", "😀", "(*)"]


@pytest.mark.parametrize(("written", "spoken"), [*(NUMBERS | TIMES | PHONES | ROMAN).items()])
def test_numbers_and_times(written: str, spoken: str) -> None:
    pytest.importorskip("num2words", reason="num2words is not installed")
    assert normalise(written) == spoken


@pytest.mark.parametrize(("written", "spoken"), [*(ABBREVIATIONS | TYPOGRAPHY | ADDRESSES).items()])
def test_abbreviations_typography_and_addresses(written: str, spoken: str) -> None:
    if any(c.isdigit() for c in written):
        pytest.importorskip("num2words", reason="num2words is not installed")
    assert normalise(written) == spoken


@pytest.mark.parametrize("text", NOTHING)
def test_nothing_to_say_is_empty(text: str) -> None:
    assert normalise(text) == ""


def test_what_is_left_out_is_named_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert normalise("你好 Tokyo 👩\u200d👧 你") == "Tokyo"
    (record,) = caplog.records
    assert record.message == "Left out what cannot be spoken as English: 你 好 👩 👧"
    assert spoken_form("你好 Tokyo") == ("Tokyo", ["你", "好"])


def test_a_spoken_text_stays_as_it_is() -> None:
    text = "It's a well-known fact; who, me? Yes: A B C! The end."
    assert normalise(text) == text
    assert normalise(normalise("Dr. Lee, of the BBC & NASA...")) == normalise("Dr. Lee, of the BBC & NASA...")


@pytest.mark.parametrize(
    "piece",
    ["a.", "word ", "(", "?.", "\n", "a'", "a@b.", "1", "1/", "1-", "1:", "1 ", "0 ", "Part I", "A. ", "9°", "a-"],
)
def test_long_inputs_take_time_in_proportion(piece: str) -> None:
    if piece[0].isdigit():
        pytest.importorskip("num2words", reason="num2words is not installed")
    start = time.perf_counter()
    normalise(piece * (20_000 // len(piece)))
    assert time.perf_counter() - start < 5.0
