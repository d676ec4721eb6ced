import numpy as np
import pytest
import torch

from mmattn.speech.lina.judges.alignment import alignment_report

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
