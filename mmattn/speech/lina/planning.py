"""A text as sentences of text tokens, whole or while it arrives; what nobody can pronounce is left out and named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mmattn.core.errors import InputError
from mmattn.speech.lina.long_text import Break, Sentence, SentenceReader
from mmattn.speech.lina.text_tokens import TextTokens, Tokenizer

__all__ = ["MAX_TOKENS", "PlannedSentence", "TextPlanner"]

MAX_TOKENS = 800
"""Text tokens of a sentence; positions are learned for 2000 at most."""

_WIDTH: dict[Break, int] = {"start": 0, "part": 1, "sentence": 2, "paragraph": 3}


@dataclass(frozen=True)
class PlannedSentence:
    """One sentence to speak.

    Attributes:
        place: Its number, counted from 0.
        text: As written.
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
        max_characters: Longest sentence.

    Attributes:
        skipped: Pieces of the text that cannot be spoken, as a row of stars.
    """

    def __init__(self, tokenizer: Tokenizer, max_characters: int) -> None:
        self.skipped: list[str] = []
        self._tokenizer = tokenizer
        self._reader = SentenceReader(max_characters)
        self._place = 0
        self._after: Break = "start"  # the widest break since the last sentence that can be spoken
        self._reason: InputError | None = None

    def push(self, text: str) -> list[PlannedSentence]:
        """Takes the next portion of the text and returns the sentences that are complete."""
        return self._planned(self._reader.push(text))

    def finish(self) -> list[PlannedSentence]:
        """Returns the rest: the text ends here."""
        return self._planned(self._reader.finish())

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
            tokens = self._tokenizer.encode(text)
        except InputError as error:
            self.skipped.append(text)
            self._reason = error
            return
        if all(word < 0 for word in tokens.words):
            self.skipped.append(text)
        elif len(tokens.ids) <= MAX_TOKENS or len(text) < 2:
            yield text, tokens
        else:
            middle = len(text) // 2
            cut = text.rfind(" ", 1, middle)
            for part in (text[: cut if cut > 0 else middle], text[cut if cut > 0 else middle :]):
                if part.strip():
                    yield from self._encoded(part.strip())
