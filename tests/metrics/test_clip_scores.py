"""The checks every accident metric starts from, and which frames count."""

import numpy as np
import pytest

from mmattn.metrics.clip_scores import ClipScores

SCORES = np.array([[0.1, 0.9, 0.2, 0.3], [0.4, 0.1, 0.2, 0.8], [0.5, 0.5, 0.5, 0.6]])


def test_frames_from_the_accident_on_do_not_count() -> None:
    clips = ClipScores.check(SCORES, [1, 0, 1], [1, 5, 3.9])
    assert clips.lengths().tolist() == [1, 4, 3]
    assert clips.counted().sum(axis=1).tolist() == [1, 4, 3]
    assert clips.maxima().tolist() == [0.1, 0.8, 0.5]


def test_the_toa_of_a_clip_without_accident_does_not_matter() -> None:
    assert ClipScores.check(SCORES, [0, 0, 0], [np.nan, 0, -3]).maxima().tolist() == [0.9, 0.8, 0.6]


def test_an_accident_beyond_the_end_counts_all_frames_and_is_marked() -> None:
    clips = ClipScores.check(SCORES, [1, 1, 0], [4, 5, 5])
    assert clips.lengths().tolist() == [4, 4, 4]
    assert clips.ends_beyond.tolist() == [False, True, False]


def test_clips_of_one_frame_are_fine() -> None:
    assert ClipScores.check([[0.2], [0.7]], [1, 0], [1, 2]).maxima().tolist() == [0.2, 0.7]


@pytest.mark.parametrize(
    ("scores", "labels", "toas", "message"),
    [
        ([0.1, 0.2], [1, 0], [1, 1], r"scores have shape \(2,\); expected \(clips, frames\)"),
        (np.zeros((2, 0)), [1, 0], [1, 1], "at least one frame"),
        (SCORES, [1, 0], [1, 1, 1], r"labels have shape \(2,\); expected \(3,\)"),
        (SCORES, [1, 0, 0], [[1], [1], [1]], r"toas have shape \(3, 1\)"),
        (np.where(SCORES == 0.8, np.nan, SCORES), [1, 0, 0], [1, 1, 1], "clip 1 has a score that is not a finite"),
        (SCORES, [1, 0, 2], [1, 1, 1], "clip 2 has a label that is neither 0 nor 1"),
        (SCORES, [0, 1, 1], [1, 0, 0], r"clip 1 has an accident, and its toa is below 1 frame \(2 of 3 clips\)"),
        (SCORES, [1, 0, 0], [np.nan, 1, 1], "clip 0 has an accident, and its toa is below 1"),
    ],
    ids=["flat scores", "no frames", "labels too few", "toa as columns", "nan", "label 2", "toa 0", "toa nan"],
)
def test_what_does_not_fit_is_named(scores: object, labels: object, toas: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipScores.check(scores, labels, toas)  # type: ignore[arg-type]
