"""Doubts are raised by what was seen, each for its own reason, and by nothing in good footage."""

import numpy as np
import pytest

from mmattn.video.crash.stream.frame_risk import Sight
from mmattn.video.crash.stream.trust import doubts


def sight(count: int, score: float = 0.7) -> Sight:
    boxes = np.tile(np.array([[10, 10, 30, 40]], np.float32), (count, 1))
    return Sight(boxes, np.full(count, score, np.float32), ("car",) * count, np.full(count, 1 / max(count, 1)))


def codes(sights: list[Sight], **changes) -> list[str]:
    count = len(sights)
    facts = {"sources": np.arange(count), "is_settled": np.arange(count) >= 10, "fps": 10.0, "slots": 12}
    facts |= changes
    sources, settled = facts.pop("sources"), facts.pop("is_settled")
    return [doubt.code for doubt in doubts(sights, sources, settled, **facts)]


@pytest.mark.parametrize(("sights", "changes", "expected"), [
    ([sight(3)] * 50, {}, []),
    ([sight(3)] * 8, {"is_settled": np.zeros(8, bool)}, ["too_short"]),
    ([sight(3)] * 50, {"sources": np.arange(50) // 10}, ["slow_video"]),
    ([sight(3)] * 50, {"sources": np.arange(50) * 3}, []),
    ([sight(0)] * 46 + [sight(1)] * 4, {}, ["no_road_users"]),
    ([sight(0)] * 40 + [sight(1)] * 10, {}, []),
    ([sight(12)] * 30 + [sight(2)] * 20, {}, ["too_many_road_users"]),
    ([sight(12)] * 20 + [sight(2)] * 30, {}, []),
    ([sight(3, 0.4)] * 50, {}, ["unsure_road_users"]),
    ([sight(0)] * 50, {"has_boxes": False}, []),
])  # fmt: skip
def test_each_reason(sights: list[Sight], changes: dict, expected: list[str]):
    assert codes(sights, **changes) == expected


def test_they_are_said_in_numbers():
    found = doubts([sight(12)] * 4, np.array([0, 0, 0, 1]), np.zeros(4, bool), fps=10.0, slots=12)
    said = " ".join(doubt.message for doubt in found)
    assert "Only 0.4 s can be scored" in said
    assert "about 5.0 frames a second, the model was trained on 10" in said
    assert "12 or more, as many as the model takes in, in 100% of the frames" in said
    assert found[0].to_json() == {"code": "too_short", "message": found[0].message}
