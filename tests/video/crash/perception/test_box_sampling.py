"""Exactly N boxes of any number of detections; upstream's own choice is held to the golden fixtures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.video.crash.perception.box_sampling import select_boxes, select_boxes_upstream

SIZE = (360, 640)


def detections(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 250, (count, 2))
    return np.hstack([corners, corners + rng.uniform(5, 90, (count, 2))]), rng.random(count), rng.integers(0, 3, count)


def test_the_best_scores_are_kept_in_their_order() -> None:
    boxes, scores, classes = detections(300)
    found = select_boxes(boxes, scores, classes, SIZE)
    best = np.argsort(-scores)[:19]
    assert found.indices.tolist() == best.tolist()
    assert found.boxes[:, 4] == pytest.approx(scores[best])
    assert found.boxes[:, 5].tolist() == classes[best].tolist()
    assert np.array_equal(found.boxes[:, :4], np.trunc(boxes[best]))
    assert found.distinct == 19


def test_of_equal_scores_the_earlier_detection_comes_first() -> None:
    boxes, _, classes = detections(30)
    assert select_boxes(boxes, np.full(30, 0.5), classes, SIZE).indices.tolist() == list(range(19))


def test_missing_boxes_are_filled_by_the_best_five_in_turn() -> None:
    boxes, _, classes = detections(8)
    found = select_boxes(boxes, np.arange(8), classes, SIZE)
    assert found.indices.tolist() == [7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 7, 6, 5, 4, 3, 7]
    assert found.distinct == 8


def test_without_a_detection_the_whole_frame_stands_in() -> None:
    for boxes in ([], [[10, 10, 11, 40]], [[700, 10, 800, 40]], [[5, -80, 60, -20]]):
        found = select_boxes(boxes, [0.9] * len(boxes), [2] * len(boxes), SIZE)
        assert found.boxes.tolist() == [[0, 0, 639, 359, 1, 0]] * 19
        assert (set(found.indices.tolist()), found.distinct) == ({-1}, 0)


def test_boxes_are_cut_to_the_picture() -> None:
    found = select_boxes([[-10.5, -3.2, 900.0, 1e12]], [0.5], [1], SIZE, num_boxes=1)
    assert found.boxes[0, :4].tolist() == [0, 0, 640, 360]


def test_other_numbers_of_boxes_are_possible() -> None:
    assert select_boxes(*detections(4), SIZE, num_boxes=1).boxes.shape == (1, 6)
    assert select_boxes(*detections(4), SIZE, num_boxes=0).boxes.shape == (0, 6)


@given(st.integers(0, 40), st.integers(0, 5), st.integers(1, 25))
@settings(max_examples=60, deadline=None)
def test_every_box_lies_in_the_picture_and_is_large_enough_to_crop(count: int, seed: int, num_boxes: int) -> None:
    boxes, scores, classes = detections(count, seed)
    boxes = (boxes - 60) * 4
    found = select_boxes(boxes, scores, classes, (200, 300), num_boxes=num_boxes)
    x1, y1, x2, y2 = found.boxes[:, :4].T
    assert found.boxes.shape == (num_boxes, 6)
    assert ((x1 >= 0) & (y1 >= 0) & (x2 <= 300) & (y2 <= 200)).all()
    assert ((x2 - x1 >= 2) & (y2 - y1 >= 2)).all()
    again = select_boxes(boxes, scores, classes, (200, 300), num_boxes=num_boxes)
    assert np.array_equal(found.boxes, again.boxes)


@given(st.integers(1, 40), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_detections_does_not_matter_when_scores_differ(count: int, seed: int, random: object) -> None:
    boxes, scores, classes = detections(count, seed)
    order = np.arange(count)
    random.shuffle(order)  # type: ignore[attr-defined]
    one = select_boxes(boxes, scores, classes, SIZE)
    two = select_boxes(boxes[order], scores[order], classes[order], SIZE)
    assert np.array_equal(one.boxes, two.boxes)


def test_upstream_keeps_the_order_of_classes_and_rounds_scores_to_zero() -> None:
    boxes, scores, _ = detections(25)
    rows = np.hstack([boxes, scores[:, None]])
    found = select_boxes_upstream([rows[:10], [], rows[10:]], SIZE, np.random.RandomState(0))
    assert np.array_equal(found[:, :4], np.trunc(boxes[:19]))
    assert found[:, 4].tolist() == [0] * 19
    assert found[:, 5].tolist() == [0] * 10 + [2] * 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2, 3]], [0.5], [0]), r"Boxes have shape \(1, 3\)"),
        (([[1, 2, 3, 4]], [0.5, 0.6], [0]), r"scores \(2,\)"),
        (([[1, 2, 3, 4]], [0.5], [0, 1]), r"classes \(2,\)"),
        (([[1, 2, np.nan, 4]], [0.5], [0]), "not a finite number"),
        (([[1, 2, 3, 4]], [np.inf], [0]), "not a finite number"),
    ],
)
def test_detections_that_do_not_fit_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_boxes(*arguments, SIZE)  # type: ignore[arg-type,call-arg]
    with pytest.raises(InputError, match=r"expected \(n, 5\) for each"):
        select_boxes_upstream([[[1, 2, 3, 4]]], SIZE, np.random.RandomState(0))
