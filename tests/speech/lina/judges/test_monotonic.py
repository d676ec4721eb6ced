"""Monotonic alignments and the choice among candidates."""

import pytest
import torch

from mmattn.speech.lina.judges.alignment import best_candidates, monotonic_penalty, text_progress


def steps(*positions: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(positions), 5).double()


def test_progress_is_the_expected_position() -> None:
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert text_progress(weights).tolist() == [0.125, 0.75]


def test_going_back_and_standing_still_cost() -> None:
    assert monotonic_penalty(steps(0, 1, 2, 3)) == 0.0
    assert monotonic_penalty(steps(0, 1, 1, 3)) == pytest.approx(0.01 / 4)
    assert monotonic_penalty(steps(0, 3, 1, 4)) == pytest.approx(0.4 + 0.01 / 4)


def test_the_worst_aligned_go_first_then_the_shortest() -> None:
    candidates = [steps(0, 4, 0), steps(0, 1, 2), steps(0, 1, 2, 3, 4), steps(4, 0, 4, 0)]
    assert best_candidates(candidates) == [2]
    assert best_candidates(candidates, frac=0.4) == [1, 2]
    assert best_candidates(candidates, frac=0.0) == [1, 2, 0, 3]
    assert best_candidates(candidates[:1]) == [0]
