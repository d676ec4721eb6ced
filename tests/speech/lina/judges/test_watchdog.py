"""How a text was read, which candidate read it best, and what is wrong with a sentence."""

import numpy as np
import pytest
import torch

from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.judges.watchdog import (
    SECONDS_PER_TOKEN,
    AlignmentReport,
    Watchdog,
    alignment_report,
    best_candidates,
    monotonic_penalty,
    text_progress,
)
from tests.speech.lina.tiny import tiny_config

# Start, three words of 2, 1 and 3 tokens with a pause before the last, end.
WORDS = [-1, 0, 0, 1, -1, 2, 2, 2, -1]


def path(*tokens: int, frames: int = 3) -> np.ndarray:
    """Weights that rest on each of the tokens for some frames."""
    return np.eye(len(WORDS))[np.repeat(tokens, frames)]


def test_a_text_that_is_read_once_and_in_order_is_faithful() -> None:
    report = alignment_report(path(*range(9)), WORDS)
    assert report.is_faithful
    assert (report.monotonic, report.coverage, report.skipped, report.repeated) == (1.0, 1.0, (), ())


def test_a_word_that_is_never_looked_at_is_skipped() -> None:
    report = alignment_report(path(0, 1, 2, 4, 5, 6, 7, 8), WORDS)
    assert report.skipped == (1,)
    assert report.coverage == pytest.approx(5 / 6)
    assert report.reached_end
    assert not report.is_faithful


def test_a_word_that_is_second_everywhere_but_long_enough_is_read() -> None:
    weights = path(0, 1, 2, 4, 5, 6, 7, 8)
    weights[6:12] *= 0.6
    weights[6:12, 3] = 0.4
    assert alignment_report(weights, WORDS).skipped == ()


def test_a_word_that_is_returned_to_is_repeated() -> None:
    report = alignment_report(path(0, 1, 2, 3, 5, 1, 2, 3, 5, 6, 7, 8), WORDS)
    assert report.repeated == (0, 1)
    assert report.monotonic == pytest.approx(1 - 1 / 35)
    assert report.skipped == ()


def test_a_single_frame_back_is_a_flicker_and_no_repetition() -> None:
    weights = np.eye(9)[[0, 1, 1, 2, 2, 3, 3, 2, 3, 3, 5, 5, 6, 7, 8]]
    report = alignment_report(weights, WORDS)
    assert report.repeated == ()
    assert report.monotonic == 1.0


def test_an_utterance_that_breaks_off_did_not_reach_the_end() -> None:
    report = alignment_report(path(0, 1, 2, 3, 4, 5), WORDS)
    assert not report.reached_end
    assert alignment_report(path(0, 1, 2, 3, 4, 5, 6), WORDS).reached_end


def test_no_frames_read_nothing() -> None:
    report = alignment_report(np.zeros((0, 9)), WORDS)
    assert report.skipped == (0, 1, 2)
    assert not report.reached_end
    assert report.coverage == 0.0


def test_a_text_without_words_has_nothing_to_skip() -> None:
    report = alignment_report(np.eye(3), [-1, -1, -1])
    assert report.is_faithful
    assert report.coverage == 1.0


def test_a_tensor_is_read_and_the_json_is_plain() -> None:
    report = alignment_report(torch.eye(3), [-1, 0, -1])
    assert report.to_json() == {
        "monotonic": 1.0, "coverage": 1.0, "skipped": [], "repeated": [], "reached_end": True,
    }  # fmt: skip


def test_shapes_and_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match=r"weights \(3, 3\) and 2 words"):
        alignment_report(np.eye(3), [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        alignment_report(np.full((2, 3), np.nan), [-1, 0, -1])


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


DOG = Watchdog(frame_rate=50.0, seconds_per_token=0.1, ratio=2.0, max_seconds=5.0)
FAITHFUL = AlignmentReport(1.0, 1.0, (), (), True)


@pytest.mark.parametrize(("tokens", "frames"), [(0, 50), (1, 60), (10, 150), (20, 250), (1000, 250)])
def test_a_sentence_is_cut_at_a_multiple_of_what_is_expected(tokens: int, frames: int) -> None:
    assert DOG.limit(tokens) == frames


def test_a_limit_is_never_below_a_frame() -> None:
    assert Watchdog(50.0, 0.1, 2.0, max_seconds=1e-3).limit(5) == 1


def test_the_tokenizer_says_what_is_expected_unless_the_run_does() -> None:
    config = tiny_config(tokenizer="gruut")
    assert Watchdog.of(LinaInferOptions(), config, 75.0).seconds_per_token == SECONDS_PER_TOKEN["gruut"]
    assert Watchdog.of(LinaInferOptions(seconds_per_token=0.5), config, 75.0).seconds_per_token == 0.5


def test_one_head_of_several_says_nothing_about_words() -> None:
    watchdog = Watchdog.of(LinaInferOptions(), tiny_config(cross_attention="plain"), 50.0)
    lost = AlignmentReport(0.5, 0.5, (0,), (1,), False)
    assert watchdog.problems(10, 2, 50, finished=True, report=lost) == ()


def test_each_problem_is_named() -> None:
    def problems(frames: int = 50, tokens: int = 10, finished: bool = True, **report: object) -> tuple[str, ...]:
        fields = {**vars(FAITHFUL), **report}
        return DOG.problems(tokens, 2, frames, finished=finished, report=AlignmentReport(**fields))

    assert problems() == ()
    assert problems(finished=False) == ("did not stop",)
    assert problems(frames=24) == ("too short",)
    assert problems(frames=10, tokens=3) == ()
    assert problems(frames=9, tokens=3) == ("too short",)
    assert problems(frames=9, tokens=3, finished=False) == ("did not stop",)
    assert problems(reached_end=False) == ("did not reach the end",)
    assert problems(skipped=(2,), repeated=(1,)) == ("skipped words", "repeated words")
