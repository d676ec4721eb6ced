from __future__ import annotations

import math
import random

import pytest

from mmattn.metrics.error_rate import (
    ErrorCounts,
    align,
    character_error_rate,
    count_errors,
    find_heard,
    word_error_rate,
)


def brute_force(reference: str, hypothesis: str) -> int:
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    return min(
        brute_force(reference[1:], hypothesis[1:]) + (reference[0] != hypothesis[0]),
        brute_force(reference[1:], hypothesis) + 1,
        brute_force(reference, hypothesis[1:]) + 1,
    )


def test_edits_are_the_fewest_possible_and_the_alignment_has_as_many() -> None:
    generator = random.Random(0)
    for _ in range(60):
        one, other = ("".join(generator.choices("abc", k=generator.randint(0, 5))) for _ in range(2))
        edits = brute_force(one, other)
        pairs = align(one, other)
        assert count_errors(one, other) == ErrorCounts(edits, len(one))
        assert sum(left != right for left, right in pairs) == edits
        assert "".join(left for left, _ in pairs if left is not None) == one
        assert "".join(right for _, right in pairs if right is not None) == other


def test_rates_are_of_the_whole_set_and_not_means_of_sentences() -> None:
    references, hypotheses = ["a b c d e f g h i", "j"], ["a b c d e f g h i", "k"]
    assert word_error_rate(references, hypotheses) == pytest.approx(1 / 10)
    assert character_error_rate(references, hypotheses) == pytest.approx(1 / 18)


def test_rates_exceed_one_when_much_is_inserted() -> None:
    assert word_error_rate(["a"], ["b c d"]) == 3.0


def test_nothing_heard_is_an_error_per_item_and_an_empty_reference_has_no_rate() -> None:
    assert word_error_rate(["a b"], [""]) == 1.0
    assert count_errors("", "ab") == ErrorCounts(2, 0)
    assert math.isnan(ErrorCounts(2, 0).rate)


def test_unequal_numbers_of_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        word_error_rate(["a", "b"], ["a"])


def test_words_heard_are_found_between_insertions_and_deletions() -> None:
    reference = ["the", "old", "cat", "sat"]
    # As many edits as pairing "the" with "oh", but one more word is heard.
    assert find_heard(reference, ["oh", "the", "cat", "sad"]) == [True, False, True, False]
    assert find_heard(["a"], []) == [False]


def test_a_relation_may_say_what_is_the_same() -> None:
    def alike(one: str, other: str) -> bool:
        return {one, other} <= {"two", "too"} or one == other

    assert count_errors(["two", "cats"], ["too", "cats"], alike).edits == 0
    assert find_heard(["two", "cats"], ["too", "bats"], alike) == [True, False]
