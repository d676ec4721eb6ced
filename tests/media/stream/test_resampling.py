"""Steps of the model from the times of frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.media.stream.resampling import Resampler


def read(times, fps=10.0):
    """Returns (moment, number of the frame read) of all steps."""
    clock, last, steps = Resampler(fps), 0, []
    for number, time in enumerate(times):
        for moment in clock.push(float(time)):
            last = number if moment.is_new else last
            steps.append((moment.time, last))
    return steps


@pytest.mark.parametrize("rate", [10.0, 12.5, 20.0, 25.0, 29.97, 30.0, 60.0, 240.0])
def test_of_a_faster_camera_the_nearest_frames_are_read(rate):
    times = np.arange(int(3 * rate)) / rate
    steps = read(times)
    moments = np.array([moment for moment, _ in steps])
    np.testing.assert_allclose(moments, np.arange(len(steps)) / 10, atol=1e-9)
    assert len(steps) in (29, 30)
    away = np.abs(times[[number for _, number in steps]] - moments)
    assert away.max() <= 0.5 / rate + 1e-6


def test_of_a_slower_camera_frames_are_read_again():
    assert [number for _, number in read([0.0, 0.25, 0.5, 0.75])] == [0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_a_late_frame_is_stood_in_for_by_the_one_before():
    assert [number for _, number in read([0.0, 0.1, 0.2, 0.6, 0.7])] == [0, 1, 2, 2, 2, 3, 3, 4]


def test_time_need_not_start_at_zero():
    assert [round(moment, 6) for moment, _ in read([7.33, 7.43, 7.53])] == [7.33, 7.43, 7.53]


@given(st.lists(st.floats(0.004, 0.9), min_size=1, max_size=80), st.sampled_from([10.0, 20.0]))
def test_steps_are_regular_whatever_the_camera_does(intervals, fps):
    times = np.cumsum(intervals)
    moments = [moment for moment, _ in read(times, fps)]
    np.testing.assert_allclose(moments, times[0] + np.arange(len(moments)) / fps, atol=1e-9)
    # nothing is said of a future farther than half a step, and at the end at most a step is owed
    assert times[-1] - 1 / fps <= moments[-1] + 1e-6 <= times[-1] + 0.5 / fps + 2e-6


def test_time_that_stands_still_and_rates_that_are_none_are_refused():
    clock = Resampler(10.0)
    clock.push(1.0)
    with pytest.raises(InputError, match=r"A frame at 1 s came after one at 1 s"):
        clock.push(1.0)
    with pytest.raises(InputError, match="fps is 0"):
        Resampler(0)


def test_more_than_a_second_is_a_gap():
    clock = Resampler(10.0)
    assert not clock.is_gap(5.0)
    clock.push(0.0)
    assert not clock.is_gap(1.0)
    assert clock.is_gap(1.01)
