"""Curves of normal driving: the same after storing, and counted under any rule."""

from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.video.crash.stream.alerts import AlertRule
from mmattn.video.crash.stream.normal_driving import FILE_NAME, NormalDriving

RULE = AlertRule(threshold=0.5, persistence=2, cooldown=0.0)


def hour_with(peaks: int) -> NormalDriving:
    """Two curves of half an hour at 10 steps a second, with peaks of three steps in the first."""
    first = np.full(18_000, 0.1)
    for peak in range(peaks):
        first[100 * peak + 50 : 100 * peak + 53] = 0.7
    return NormalDriving([first, np.full(18_000, 0.2)], 10.0, "two drives")


def test_alerts_per_hour_are_counted_under_the_rule():
    driving = hour_with(6)
    assert driving.false_alarms(RULE).alerts == 6
    assert driving.false_alarms(RULE).per_hour == pytest.approx(6.0)
    assert driving.false_alarms(AlertRule(0.5, 4, 0.0)).alerts == 0
    assert driving.false_alarms(AlertRule(0.8, 1, 0.0)).alerts == 0
    assert driving.false_alarms(AlertRule(0.5, 1, 15.0)).alerts == 3


def test_what_was_saved_counts_the_same(tmp_path: Path):
    driving = hour_with(6)
    driving.save(tmp_path)
    loaded = NormalDriving.load(tmp_path)
    assert loaded is not None
    assert (loaded.fps, loaded.source) == (10.0, "two drives")
    assert [len(curve) for curve in loaded.curves] == [18_000, 18_000]
    assert loaded.false_alarms(RULE) == driving.false_alarms(RULE)


def test_a_folder_without_the_file_has_no_curves(tmp_path: Path):
    assert NormalDriving.load(tmp_path) is None


def test_a_damaged_file_is_named(tmp_path: Path):
    (tmp_path / FILE_NAME).write_bytes(b"PK and nothing")
    with pytest.raises(InputError, match=r"normal_driving\.npz' is damaged"):
        NormalDriving.load(tmp_path)
    np.savez(tmp_path / FILE_NAME, risk=np.zeros(3), lengths=np.array([2]), fps=10.0, source="x")
    with pytest.raises(InputError, match="other lengths"):
        NormalDriving.load(tmp_path)
