"""Pictures of risk: boxes, gauge, curve, overlay."""

import numpy as np
import pytest

from mmattn.viz.risk import ALERT, CALM, attention_color, draw_boxes, gauge, overlay_risk, risk_strip


def grey(height: int = 120, width: int = 400) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def near(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 8) -> np.ndarray:
    return (np.abs(picture.astype(int) - color) <= tolerance).all(-1)


def luminance(color: tuple[int, int, int]) -> float:
    return float(np.dot(color, (0.2126, 0.7152, 0.0722)))


def test_more_attention_is_a_brighter_and_wider_line():
    drawn = draw_boxes(grey(360, 640), [[20, 20, 120, 120], [220, 20, 320, 120]], [0.1, 0.9])
    weak, strong = attention_color(0.1 / 0.9), attention_color(1.0)
    assert luminance(strong) > luminance(weak) + 60
    assert near(drawn[:, 200:], strong).sum() > 2 * near(drawn[:, :200], weak).sum() > 0
    assert not near(drawn[:, :180], strong).any()


def test_the_box_of_most_attention_lies_on_top():
    drawn = draw_boxes(grey(360, 640), [[20, 20, 120, 120], [20, 20, 120, 120]], [0.9, 0.1])
    assert near(drawn, attention_color(1.0)).sum() > 200


def test_the_picture_given_is_not_changed_and_boxes_may_reach_outside():
    picture = grey()
    draw_boxes(picture, [[-50, -50, 900, 900]], [1.0], ["car"])
    assert (picture == 128).all()
    assert (draw_boxes(picture, np.zeros((0, 4)), []) == picture).all()


@pytest.mark.parametrize(
    ("boxes", "weights", "captions", "message"),
    [
        ([[0, 0, 1, 1]], [1, 2], (), "1 boxes, 2 weights"),
        ([[0, 0, 1, 1]], [1], ("a", "b"), "2 captions"),
        ([[0, 0, 1, 1]], [-1], (), "not negative"),
        ([[0, 0, np.nan, 1]], [1], (), "boxes finite"),
    ],
)
def test_boxes_that_cannot_be_drawn_are_refused(boxes, weights, captions, message):
    with pytest.raises(ValueError, match=message):
        draw_boxes(grey(), boxes, weights, captions)


def test_the_gauge_fills_with_the_risk_and_takes_the_colour_of_an_alert():
    filled = [near(gauge(risk), CALM).sum() for risk in (0.0, 0.25, 0.5, 1.0)]
    assert filled[0] == 0
    assert filled[1] < filled[2] < filled[3]
    assert filled[2] == pytest.approx(filled[3] / 2, rel=0.15)
    assert near(gauge(0.5, is_alert=True), ALERT).sum() == pytest.approx(filled[2], rel=0.1)
    assert gauge(0.3, size=(80, 100)).shape == (80, 100, 3)
    with pytest.raises(ValueError, match=r"risk must be in \[0, 1\], got 1.5"):
        gauge(1.5)


def test_the_strip_shows_the_last_seconds_and_nothing_of_the_future():
    times = np.arange(200) / 10
    risks = np.where(times > 12, 1.0, 0.0)
    early = risk_strip(times, risks, now=10.0)
    assert (early == risk_strip(times[:101], risks[:101], now=10.0)).all()
    late = risk_strip(times, risks, now=15.0)
    rows = np.flatnonzero(near(late, CALM, 40).any(1))
    assert rows.min() < 22
    assert np.flatnonzero(near(early, CALM, 40).any(1)).min() > 80


def test_an_alert_and_a_threshold_are_lines_in_the_strip():
    times = np.arange(100) / 10
    plain = risk_strip(times, np.zeros(100), now=9.9)
    marked = risk_strip(times, np.zeros(100), now=9.9, alerts=[5.0, 50.0], threshold=0.5)
    assert not near(plain, ALERT, 20).any()
    columns = np.flatnonzero(near(marked, ALERT, 60).sum(0) > 40)
    assert len(columns) in (1, 2, 3)
    assert columns.mean() == pytest.approx(472 - 4.9 / 10 * 464, abs=2)
    assert (marked[54] != plain[54]).any()
    with pytest.raises(ValueError, match="window of 0 s"):
        risk_strip(times, times, now=1.0, seconds=0)


def test_the_overlay_says_alert_for_a_second():
    common = {"times": [0.0, 0.1], "risks": [0.1, 0.9], "risk": 0.9, "threshold": 0.6}
    during = overlay_risk(grey(), [[10, 10, 60, 60]], [1.0], now=1.4, alerts=[0.5], **common)
    after = overlay_risk(grey(), [[10, 10, 60, 60]], [1.0], now=1.6, alerts=[0.5], **common)
    assert during.shape == after.shape == (232, 400, 3)
    assert near(during[:6, 100:], ALERT).all()
    assert not near(after[:120], ALERT).any()
    with pytest.raises(ValueError, match="300 pixels wide, expected at least 320"):
        overlay_risk(grey(100, 300), [], [], now=0.0, **common)


def test_calm_and_alert_differ_in_lightness_too():
    assert abs(luminance(CALM) - luminance(ALERT)) > 30
