"""Alerts: runs, persistence, cooldown; the streaming form equals the whole curve."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.video.crash.stream.alerts import (
    AlertMonitor,
    AlertRule,
    FalseAlarms,
    find_alerts,
    sustained_risk,
    threshold_for_rate,
    upper_bound,
)


def times(count: int, fps: float = 10.0) -> np.ndarray:
    return np.arange(count) / fps


def frames(risk: list[float], **rule: float) -> list[int]:
    return [alert.frame for alert in find_alerts(risk, times(len(risk)), AlertRule(**rule))]


def test_with_persistence_one_the_first_frame_at_the_threshold_alerts():
    assert frames([0.1, 0.59, 0.6, 0.9], threshold=0.6, persistence=1) == [2]


def test_an_alert_comes_at_the_frame_that_completes_the_run_and_names_its_start():
    (alert,) = find_alerts([0.0, 0.7, 0.8, 0.9, 0.9], times(5), AlertRule(threshold=0.6, persistence=3))
    assert (alert.frame, alert.time, alert.start, alert.risk) == (3, 0.3, 0.1, 0.9)
    assert alert.to_json() == {"frame": 3, "time": 0.3, "start": 0.1, "risk": 0.9}


def test_a_long_run_raises_one_alert():
    assert frames([0.9] * 100, persistence=3, cooldown=0) == [2]


def test_a_frame_below_ends_a_run():
    assert frames([0.9, 0.9, 0.1, 0.9, 0.9], persistence=3) == []


def test_no_alert_comes_during_the_cooldown_and_a_run_that_outlasts_it_alerts_then():
    risk = [0.9] * 3 + [0.0] + [0.9] * 30
    assert frames(risk, persistence=3, cooldown=2.0) == [2, 22]
    assert frames([0.9] * 3 + [0.0] + [0.9] * 5 + [0.0] * 20, persistence=3, cooldown=2.0) == [2]


def test_a_risk_that_is_no_number_ends_a_run():
    assert frames([0.9, math.nan, 0.9, 0.9], persistence=2) == [3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": 1.2}, "alert_threshold is 1.2, expected a number in [0, 1]"),
        ({"threshold": math.nan}, "alert_threshold is nan"),
        ({"persistence": 0}, "persistence is 0, expected at least 1 frame"),
        ({"cooldown": -1.0}, "cooldown is -1.0, expected 0 or more seconds"),
        ({"cooldown": math.inf}, "cooldown is inf"),
    ],
)
def test_a_rule_out_of_range_is_refused(fields, message):
    with pytest.raises(InputError) as error:
        AlertRule(**fields)
    assert message in str(error.value)


def test_curve_and_times_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"risk has shape \(3,\), times \(2,\)"):
        find_alerts([1, 1, 1], [0, 1], AlertRule())


RISKS = st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.8, 1.0, math.nan]), max_size=60)
RULES = st.builds(
    AlertRule,
    threshold=st.sampled_from([0.0, 0.5, 0.6, 0.9]),
    persistence=st.integers(1, 5),
    cooldown=st.sampled_from([0.0, 0.1, 0.35, 2.0]),
)


@given(RISKS, RULES, st.sampled_from([10.0, 7.3, 20.0]))
def test_the_monitor_raises_what_the_whole_curve_has(risk, rule, fps):
    moments = times(len(risk), fps)
    monitor = AlertMonitor(rule)
    streamed = [monitor.update(value, moment) for value, moment in zip(risk, moments.tolist(), strict=True)]
    assert [alert for alert in streamed if alert] == find_alerts(risk, moments, rule)


@given(RISKS, RULES, st.integers(0, 60))
def test_a_monitor_goes_on_from_its_state(risk, rule, cut):
    moments = times(len(risk)).tolist()
    first, second = AlertMonitor(rule), AlertMonitor(rule)
    pairs = list(zip(risk, moments, strict=True))
    found = [first.update(*pair) for pair in pairs[:cut]]
    second.restore(first.state())
    found += [second.update(*pair) for pair in pairs[cut:]]
    assert [alert for alert in found if alert] == find_alerts(risk, moments, rule)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 4))
def test_the_sustained_risk_is_the_highest_threshold_that_alerts(risk, persistence):
    highest = sustained_risk(risk, persistence)
    assert len(risk) < persistence or frames(risk, threshold=highest, persistence=persistence)
    above = min(np.nextafter(highest, 2), 1.0)
    if above > highest:
        assert not frames(risk, threshold=float(above), persistence=persistence)


def test_false_alarms_are_counted_per_hour_of_footage():
    calm, alarmed = np.zeros(1800), np.zeros(1800)
    alarmed[100:110] = 0.9
    rate = FalseAlarms.count([(calm, times(1800)), (alarmed, times(1800))], AlertRule())
    assert (rate.alerts, rate.hours, rate.per_hour) == (1, pytest.approx(0.1), pytest.approx(10))
    assert rate.at_most == pytest.approx(47.4, abs=0.1)
    assert rate.to_json()["per_hour"] == pytest.approx(10)


def test_without_footage_a_rate_is_not_defined():
    rate = FalseAlarms.count([], AlertRule())
    assert math.isnan(rate.per_hour)
    assert rate.to_json()["per_hour"] is rate.to_json()["at_most"] is None


@pytest.mark.parametrize(("count", "bound"), [(0, 2.9957), (1, 4.7439), (10, 16.9622)])
def test_the_upper_bound_is_the_poisson_interval(count, bound):
    assert upper_bound(count) == pytest.approx(bound, abs=1e-4)  # tables of the one-sided 95 % limit


def test_the_lowest_threshold_within_the_rate_is_found():
    risk = np.full(36_000, 0.2)  # an hour
    for start, height in ((1000, 0.5), (9000, 0.7), (20_000, 0.9)):
        risk[start : start + 5] = height
    curves = [(risk, times(36_000))]
    rule = AlertRule(persistence=3, cooldown=2.0)
    assert threshold_for_rate(curves, 0, rule).threshold == pytest.approx(0.901)
    assert threshold_for_rate(curves, 1, rule).threshold == pytest.approx(0.701)
    found = threshold_for_rate(curves, 2.5, rule)
    assert (found.threshold, found.alerts) == (pytest.approx(0.501), 2)


def test_a_rate_that_no_threshold_keeps_is_refused():
    with pytest.raises(InputError, match="Even a threshold of 1"):
        threshold_for_rate([(np.ones(100), times(100))], 1.0, AlertRule())
    with pytest.raises(InputError, match="no normal driving"):
        threshold_for_rate([], 1.0, AlertRule())
    with pytest.raises(InputError, match="expected 0 or more per hour"):
        threshold_for_rate([(np.zeros(100), times(100))], -1.0, AlertRule())
