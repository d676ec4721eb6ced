"""The threshold rule against values worked out by hand and its promise on random scores."""

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.vision.crane.evaluation.calibration import find_threshold


def test_nineteen_pictures_give_the_largest_score_at_five_percent():
    scores = [i / 100 for i in range(19)]
    result = find_threshold(scores, 0.05)
    assert result.threshold == 0.18
    assert result.guaranteed
    assert result.reachable_rate == pytest.approx(0.05)


def test_one_picture_fewer_cannot_promise_five_percent():
    result = find_threshold([i / 100 for i in range(18)], 0.05)
    assert result.threshold == 0.17
    assert not result.guaranteed


def test_new_normal_pictures_exceed_the_threshold_no_more_often_than_asked():
    rng = np.random.default_rng(0)
    exceeded = [rng.normal() > find_threshold(rng.normal(size=39).tolist(), 0.1).threshold for _ in range(4000)]
    assert np.mean(exceeded) == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 7.0])
def test_a_rate_outside_zero_and_one_is_refused(rate: float):
    with pytest.raises(InputError, match="false-alarm rate"):
        find_threshold([0.1], rate)


def test_no_pictures_are_refused():
    with pytest.raises(InputError, match="no normal pictures"):
        find_threshold([])
