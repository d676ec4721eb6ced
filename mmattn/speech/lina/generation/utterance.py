"""One utterance while it is generated: the columns it has, and what the delay pattern leaves to be drawn of the next.

Codebook i of column c belongs to frame c - i: before the first frame it is the start token, inside the prompt it is the
prompt's code, after the last frame the end token, and only otherwise is it drawn. The first codebook's end token fixes
the length. A free-running utterance has nothing of this put in: it is what the model says, as in the published code,
and ends when all codebooks say so in the same column.

Shapes: M text tokens, Q codebooks, P frames of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmattn.speech.lina.network.batch import END, START, to_codes, undelay
from mmattn.speech.lina.network.decoder import DecoderState

__all__ = ["Utterance"]


@dataclass
class Utterance:
    """What there is of one utterance.

    Attributes:
        prompt: (Q, P) tokens.
        limit: Frames, prompt included, at which it is cut.
        generator: Its random numbers.
        text_length: Text tokens M.
        free_running: Leave delay pattern and special tokens to the model.
        columns: Generated columns, each (Q,), those of the prompt included.
        rows: Weights of the text tokens, each (M,), one for each column.
        end: Frames, prompt included, once the first codebook has ended.
        closed: Whether there are no more columns to come.
        state: Of the decoder at the end.
    """

    prompt: Tensor
    limit: int
    generator: torch.Generator
    text_length: int
    free_running: bool
    columns: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    end: int | None = None
    closed: bool = False
    state: DecoderState | None = None

    @property
    def frames(self) -> int:
        """How many frames are complete, the prompt's not counted."""
        complete = max(0, len(self.columns) - self.prompt.shape[0] + 1)
        if self.closed and not self.free_running:
            complete = min(complete, self.limit if self.end is None else self.end)
        elif self.end is not None:
            complete = min(complete, self.end)
        return max(0, complete - self.prompt.shape[1])

    def codes(self, start: int = 0) -> Tensor:
        """Returns the codec ids (Q, n) of the complete frames from ``start`` on, the prompt's not counted."""
        first, count = self.prompt.shape[1] + start, max(0, self.frames - start)
        rows = len(self.prompt)
        if count == 0:
            return self.prompt.new_empty(rows, 0)
        return to_codes(undelay(torch.stack(self.columns[first : first + count + rows - 1], dim=1), count, first=0))

    def may_end(self, min_frames: int) -> bool:
        """Tells whether the first codebook may end in the next column, the new frames being ``min_frames`` at least."""
        return len(self.columns) >= max(self.prompt.shape[1] + min_frames, 1)

    def put_in(self, column: Tensor) -> None:
        """Writes what is known of the next column into what was drawn for it (Q,): starts, the prompt, ends."""
        if self.free_running:
            return
        place = len(self.columns)
        stop = self.limit if self.end is None else self.end
        for codebook in range(len(self.prompt)):
            frame = place - codebook
            if frame < 0:
                column[codebook] = START
            elif frame < self.prompt.shape[1]:
                column[codebook] = self.prompt[codebook, frame]
            elif frame >= stop:
                column[codebook] = END

    def append(self, column: Tensor, tokens: Sequence[int], weights: Tensor) -> None:
        """Adds a column, and closes the utterance if that was its last.

        Args:
            column: (Q,).
            tokens: The same as numbers.
            weights: (M,) of the text tokens.
        """
        place, codebooks = len(self.columns), len(tokens)
        self.columns.append(column)
        self.rows.append(weights)
        if self.free_running:
            if all(token == END for token in tokens):
                self.end = max(0, place - codebooks + 1)
            self.closed = self.end is not None or place + 1 >= self.limit + codebooks - 1
            return
        if self.end is None and place < self.limit and tokens[0] == END:
            self.end = place
        self.closed = place + 1 >= (self.limit if self.end is None else self.end) + codebooks - 1
