"""Words of capitals, and words without a vowel: which are read as words, and which letter by letter.

Letters to be spelled out stand alone as capitals: "BBC" becomes "B B C".
"""

from __future__ import annotations

import re

from mmattn.speech.lina.text.roman import is_roman

__all__ = ["spell_out"]

# Capitals of two or three letters are spelled out, but for these, which are written so for emphasis.
_EMPHASISED = frozenset(
    re.findall(
        r"\w+",
        """
        ADD ALL AND ANY ARE ASK BAD BIG BUT BUY BY CAN DAY DID DO END FOR GET GO GOT HAD HAS HE HER HEY HIM HIS HOT
        HOW IF IN IS ITS LET MAN ME MY NEW NO NOT NOW OF OFF OH OK OLD ON ONE OR OUR OUT PUT RED RUN SAY SEE SET SHE
        SIT SO THE TO TOO TRY TWO UP USE WAS WAY WE WET WHY WIN YES YET YOU
        """,
    )
)
# In a line of capitals, where every word looks like an acronym, only these and words without a vowel are.
_KNOWN = frozenset(
    re.findall(
        r"\w+",
        """
        AI API ATM CEO CIA COO CPU DIY DNA EU FAQ FBI GPU HIV ICU IEEE IMF IOC IQ IRS ISP MRI NBA NGO OECD RNA UAE UFO
        UI UK UN URL USA USB USSR VIP
        """,
    )
)
# Degrees and the like, whose small letters belong to them.
_SPELLED = {"PhD": "P H D", "PhDs": "P H D's", "BSc": "B S C", "MSc": "M S C", "MPhil": "M Phil", "DPhil": "D Phil"}
_DEGREE = re.compile(r"\b(Ph\. ?D|B\. ?Sc|M\. ?Sc|M\. ?Phil|D\. ?Phil)\b\.?")
_MIXED = re.compile(rf"\b(?:{'|'.join(sorted(_SPELLED, key=len, reverse=True))})\b")
_VOWELS = frozenset("AEIOUY")
# Sounds that have no vowel, and names: said by who reads them.
_SOUNDS = re.compile(r"(?:h+m+|m+|s+h+|p?s+t+|p+f+t*|b+r+|g+r+|t+s+k+|p+h+|z+|nth|ng)s?", re.I)
_HEAP = re.compile(r"(?<![\w'])[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{2,}(?![\w'])")


def spell_out(text: str) -> str:
    """Returns the text with words in capitals made small where they are words, and spelled out where they are not.

    Words without a vowel are spelled out in small letters, too: nobody can say "kwh".

    >>> spell_out("NASA, the BBC, her PhD, iOS and kwh"), spell_out("BREAKING NEWS FROM THE BBC")
    ('nasa, the B B C, her P H D, I O S and K W H', 'breaking news from the B B C')
    """
    text = _DEGREE.sub(_degree, text)
    text = _MIXED.sub(lambda match: _SPELLED[match[0]], text)
    words = re.findall(r"[A-Za-z']+", text)
    if len(words) > 2 and not any(c.islower() for c in text) and any(len(word) > 4 for word in words):
        text = re.sub(r"[A-Z']+", _in_line_of_capitals, text)
    # Small letters and an acronym in one word: "iOS", "macOS", "mRNA".
    text = re.sub(r"\b([a-z]{1,9})(?=[A-Z]{2,}\b)", _small_letters, text)
    text = re.sub(r"\b([A-Z]{2,})('?s)?\b", _acronym, text)
    text = _HEAP.sub(lambda match: match[0] if _SOUNDS.fullmatch(match[0]) else " ".join(match[0].upper()), text)
    # The article, which is no letter to be spelled: "A dog", not "vitamin A" or "A B C".
    return re.sub(r"(?<![A-Za-z'] )\bA(?= [a-z])", "a", text)


def _degree(match: re.Match[str]) -> str:
    ends = match[0].endswith(".") and re.compile(r"\s*$").match(match.string, match.end()) is not None
    return _SPELLED[re.sub(r"[. ]", "", match[1])] + "." * ends


def _small_letters(match: re.Match[str]) -> str:
    return f"{match[1].upper() if len(match[1]) == 1 else match[1]} "


def _in_line_of_capitals(match: re.Match[str]) -> str:
    word = match[0]
    is_acronym = word in _KNOWN or (len(word) > 1 and word.isalpha() and not _VOWELS & set(word))
    return word if is_acronym and not _SOUNDS.fullmatch(word) else word.lower()


def _acronym(match: re.Match[str]) -> str:
    letters, plural = match[1], match[2] or ""
    if len(letters) > 3:
        is_word = bool(_VOWELS & set(letters)) and re.search("[^AEIOUY]{4}", letters) is None and not is_roman(letters)
    else:
        is_word = letters in _EMPHASISED
    return letters.lower() + plural if is_word else " ".join(letters) + ("'s" if plural else "")
