"""Word and character error rates, and which words of the reference were heard.

The error rate of a test set is the number of edits (substitutions, insertions, deletions; V. Levenshtein, 1966) over
all its sentences, divided by the length of all references: long sentences count more, and it may exceed 1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["ErrorCounts", "align", "character_error_rate", "count_errors", "find_heard", "word_error_rate"]

T = TypeVar("T")


@dataclass(frozen=True)
class ErrorCounts:
    """Edits, and the length of what they were counted against; they add up over sentences.

    Attributes:
        edits: Substitutions, insertions and deletions.
        length: Items of the reference.
    """

    edits: int = 0
    length: int = 0

    @property
    def rate(self) -> float:
        """Edits per item of the reference; NaN without a reference."""
        return self.edits / self.length if self.length else float("nan")

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(self.edits + other.edits, self.length + other.length)


def align(
    reference: Sequence[T], hypothesis: Sequence[T], same: Callable[[T, T], bool] = operator.eq
) -> list[tuple[T | None, T | None]]:
    """Returns the pairs of an alignment with the fewest edits; None stands where one side has nothing.

    Of several such alignments it is one with the most equal pairs. Time and memory O(R H) for lengths R and H.

    Args:
        reference: What should have been said.
        hypothesis: What was heard.
        same: Whether an item of the reference equals one of the hypothesis.

    >>> align("the cat sat".split(), "a cat sat down".split())
    [('the', 'a'), ('cat', 'cat'), ('sat', 'sat'), (None, 'down')]
    """
    # An edit costs more than all equal pairs together bring.
    edit = min(len(reference), len(hypothesis)) + 1
    costs = [[edit * column for column in range(len(hypothesis) + 1)]]
    for row, item in enumerate(reference, start=1):
        above, costs_of_row = costs[-1], [edit * row]
        for column, heard in enumerate(hypothesis, start=1):
            paired = above[column - 1] + (-1 if same(item, heard) else edit)
            costs_of_row.append(min(paired, above[column] + edit, costs_of_row[-1] + edit))
        costs.append(costs_of_row)
    pairs: list[tuple[T | None, T | None]] = []
    row, column = len(reference), len(hypothesis)
    while row or column:
        cost = costs[row][column]
        if row and cost == costs[row - 1][column] + edit:
            row -= 1
            pairs.append((reference[row], None))
        elif column and cost == costs[row][column - 1] + edit:
            column -= 1
            pairs.append((None, hypothesis[column]))
        else:
            row, column = row - 1, column - 1
            pairs.append((reference[row], hypothesis[column]))
    return pairs[::-1]


def count_errors(
    reference: Sequence[T], hypothesis: Sequence[T], same: Callable[[T, T], bool] = operator.eq
) -> ErrorCounts:
    """Returns the edits between two sequences.

    >>> count_errors("kitten", "sitting")
    ErrorCounts(edits=3, length=6)
    """
    above = list(range(len(hypothesis) + 1))
    for row, item in enumerate(reference, start=1):
        below = [row]
        for column, heard in enumerate(hypothesis, start=1):
            below.append(min(above[column - 1] + (not same(item, heard)), above[column] + 1, below[-1] + 1))
        above = below
    return ErrorCounts(above[-1], len(reference))


def find_heard(
    reference: Sequence[T], hypothesis: Sequence[T], same: Callable[[T, T], bool] = operator.eq
) -> list[bool]:
    """Returns for every item of the reference whether :func:`align` pairs it with its like.

    The share of True is the recall; what was heard too much does not lower it.

    >>> find_heard("the cat sat".split(), "a cat sat down".split())
    [False, True, True]
    """
    pairs = align(reference, hypothesis, same)
    return [heard is not None and same(item, heard) for item, heard in pairs if item is not None]


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Returns the word error rate of texts split at spaces.

    Raises:
        ValueError: If there are not as many hypotheses as references.

    >>> word_error_rate(["the cat sat", "yes"], ["the hat sat", "yes"])
    0.25
    """
    return _rate([text.split() for text in references], [text.split() for text in hypotheses])


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Returns the character error rate of texts; a space is a character.

    Raises:
        ValueError: If there are not as many hypotheses as references.

    >>> character_error_rate(["abcd"], ["abd"])
    0.25
    """
    return _rate(references, hypotheses)


def _rate(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> float:
    if len(references) != len(hypotheses):
        raise ValueError(
            f"Got {len(references)} references and {len(hypotheses)} hypotheses, expected as many of both."
        )
    return sum(map(count_errors, references, hypotheses), ErrorCounts()).rate
