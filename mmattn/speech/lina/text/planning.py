"""A text as sentences of text tokens, whole or while it arrives; what nobody can pronounce is left out and named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mmattn.errors import InputError
from mmattn.speech.lina.text.normalise import spoken_form, warn_of_dropped
from mmattn.speech.lina.text.sentences import Break, Sentence, SentenceReader
from mmattn.speech.lina.text.tokens import TextTokens, Tokenizer

__all__ = ["MAX_TOKENS", "PlannedSentence", "TextPlanner"]

MAX_TOKENS = 800
"""Text tokens of a single word; positions are learned for 2000 at most."""

_TOKENS_PER_CHARACTER = 1.25
"""What the longest sentence may have: English words without digits stay below it with every tokenizer."""

_WIDTH: dict[Break, int] = {"start": 0, "part": 1, "sentence": 2, "paragraph": 3}


@dataclass(frozen=True)
class PlannedSentence:
    """One sentence to speak.

    Attributes:
        place: Its number, counted from 0.
        text: As written; in words only where a sentence of numbers or addresses was too long to be spoken at one go.
        after: What lies between it and the sentence before.
        tokens: Its text tokens.
    """

    place: int
    text: str
    after: Break
    tokens: TextTokens


class TextPlanner:
    """Plans one text.

    Args:
        tokenizer: Of the model.
        max_characters: Longest sentence. Its text tokens are limited, too: "$1,234,567.89" is eleven words.

    Attributes:
        skipped: Pieces of the text that cannot be spoken, as a row of stars, each once.
    """

    def __init__(self, tokenizer: Tokenizer, max_characters: int) -> None:
        self.skipped: list[str] = []
        self._tokenizer = tokenizer
        self._reader = SentenceReader(max_characters)
        self._max_tokens = min(MAX_TOKENS, round(_TOKENS_PER_CHARACTER * max_characters))
        self._known: set[str] = set()  # of what was skipped
        self._warned = 0
        self._place = 0
        self._after: Break = "start"  # the widest break since the last sentence that can be spoken
        self._reason: InputError | None = None

    def push(self, text: str) -> list[PlannedSentence]:
        """Takes the next portion of the text and returns the sentences that are complete."""
        return self._planned(self._reader.push(text))

    def finish(self) -> list[PlannedSentence]:
        """Returns the rest: the text ends here. One warning names what was left out."""
        planned = self._planned(self._reader.finish())
        warn_of_dropped(self.skipped[self._warned :])
        self._warned = len(self.skipped)
        return planned

    def whole(self, text: str, name: str = "The text") -> list[PlannedSentence]:
        """Returns the sentences of a whole text, at least one.

        Args:
            text: All of it.
            name: What it is called in messages.

        Raises:
            InputError: If nothing in it can be spoken.
        """
        if not text.strip():
            raise InputError(f"{name} is empty.", "Write at least one word to speak.")
        sentences = [*self.push(text), *self.finish()]
        if not sentences:
            hint = "" if self._reason is None else self._reason.hint
            shown = text.strip()[:40]
            raise InputError(f"{name} has nothing that can be spoken: {shown!r}.", hint or "Write words in letters.")
        return sentences

    def _planned(self, sentences: Iterable[Sentence]) -> list[PlannedSentence]:
        planned: list[PlannedSentence] = []
        for text, after in sentences:
            if self._place and _WIDTH[after] > _WIDTH[self._after]:
                self._after = after
            parts = list(self._encoded(text))
            for number, (part, tokens) in enumerate(parts):
                planned.append(PlannedSentence(self._place, part, "part" if number else self._after, tokens))
                self._place += 1
            if parts:
                self._after = "start"
        return planned

    def _encoded(self, text: str) -> Iterator[tuple[str, TextTokens]]:
        """Yields a sentence with its tokens, in parts if these are too many, as those of long numbers are."""
        try:
            dropped = spoken_form(text)[1]
            # Named here, not by the tokenizer once more for every sentence.
            tokens = self._tokenizer.encode(text.translate({ord(character): " " for character in dropped}))
        except InputError as error:
            self._skip(text)
            self._reason = error
            return
        if all(word < 0 for word in tokens.words):
            self._skip(text)
            return
        for character in dropped:
            self._skip(character)
        if len(tokens.ids) <= self._max_tokens:
            yield text, tokens
        else:
            yield from self._parts(spoken_form(text)[0])

    def _parts(self, spoken: str) -> Iterator[tuple[str, TextTokens]]:
        """Yields words without digits in parts that are short enough, each with its tokens."""
        try:
            tokens = self._tokenizer.encode(spoken)
        except InputError:
            self._skip(spoken)  # a part of a word may be nothing to the tokenizer
            return
        is_word = " " not in spoken
        if len(tokens.ids) <= (MAX_TOKENS if is_word else self._max_tokens) or len(spoken) < 2:
            yield spoken, tokens
            return
        cut = _middle(spoken)
        for part in (spoken[:cut].strip(), spoken[cut:].strip()):
            if part:
                yield from self._parts(part)

    def _skip(self, piece: str) -> None:
        if piece not in self._known:
            self._known.add(piece)
            self.skipped.append(piece)


def _middle(text: str) -> int:
    """Returns where to cut in two: at the comma nearest to the middle if one is near, else between words if there are.

    >>> _middle("one thousand, two hundred"), _middle("nine nine nine"), _middle("aaaa")
    (13, 9, 2)
    """
    half = len(text) // 2
    commas = [found.end() for found in re.finditer(r"[,;:](?= )", text)]
    near = [place for place in commas if len(text) <= 4 * place <= 3 * len(text)]
    places = near or [found.start() for found in re.finditer(" ", text)] or [half]
    return min(places, key=lambda place: abs(place - half))
