"""From any number of detections in a frame to exactly N boxes (19 in the released recipe).

Two rules. The default keeps the best scores and fills up by repeating the best few, the same way every time. The
other one reproduces Cogito2012/UString's demo, whose features the released weights were trained on: it keeps boxes in
the order of their classes, not of their scores, fills up at random, and loses the scores to rounding.

Boxes are ``[x1, y1, x2, y2]`` in pixels. Shapes: n detections, N boxes that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError

__all__ = ["SelectedBoxes", "select_boxes", "select_boxes_upstream"]

NUM_BOXES = 19
NUM_REPEATED = 5
"""Only so many boxes, the first ones, are repeated to fill up."""


class SelectedBoxes(NamedTuple):
    """The boxes of one frame.

    Attributes:
        boxes: (N, 6) float32 x1, y1, x2, y2 (whole pixels inside the picture), score, class.
        indices: (N,) which detection each row is; -1 for the whole frame, which stands in where there is none.
        distinct: Rows that are detections of their own; those after them repeat earlier ones. 0 for the whole frame.
    """

    boxes: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    distinct: int


def select_boxes(
    boxes: npt.ArrayLike,
    scores: npt.ArrayLike,
    classes: npt.ArrayLike,
    image_size: tuple[int, int],
    *,
    num_boxes: int = NUM_BOXES,
) -> SelectedBoxes:
    """Returns the ``num_boxes`` best detections of a frame, of equal scores the earlier ones.

    Boxes are cut to whole pixels inside the picture, and those of less than 2 pixels are dropped. If fewer are left
    than asked for, the best 5 are repeated in turn; if none is, the whole frame is taken with score 1 and class 0.

    Args:
        boxes: (n, 4) pixels, n may be 0.
        scores: (n,) detection scores.
        classes: (n,) class numbers.
        image_size: Height and width of the picture in pixels.
        num_boxes: N.

    Raises:
        InputError: If shapes do not fit, or a number is not finite.

    >>> found = select_boxes([[0, 0, 9, 9], [5, 5, 30, 30]], [0.2, 0.7], [3, 1], (20, 20), num_boxes=3)
    >>> found.boxes[:, :4].tolist(), found.indices.tolist(), found.distinct
    ([[5.0, 5.0, 20.0, 20.0], [0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 20.0, 20.0]], [1, 0, 1], 2)
    """
    corners, values, kinds = _checked_boxes(boxes, scores, classes)
    pixels, kept = _to_pixels(corners, image_size)
    order = kept[np.argsort(-values[kept], kind="stable")][:num_boxes]
    if len(order) == 0:
        frame = np.append(_whole_frame(image_size), (1.0, 0.0)).astype(np.float32)
        return SelectedBoxes(np.tile(frame, (num_boxes, 1)), np.full(num_boxes, -1), 0)
    filling = np.arange(num_boxes - len(order)) % min(NUM_REPEATED, len(order))
    rows = np.concatenate([order, order[filling]])
    selected = np.column_stack([pixels[rows], values[rows], kinds[rows]]).astype(np.float32)
    return SelectedBoxes(selected, rows, len(order))


def select_boxes_upstream(
    per_class: Sequence[npt.ArrayLike],
    image_size: tuple[int, int],
    rng: np.random.RandomState,
    *,
    num_boxes: int = NUM_BOXES,
) -> npt.NDArray[np.int64]:
    """Returns the boxes that UString's demo selects, drawn from NumPy's legacy generator.

    Above ``num_boxes`` detections these are the first ones in the order of their classes. Everything is rounded down
    to integers, so a score is 0 (1 for the stand-in of an empty frame).

    Args:
        per_class: For each class (n_c, 5) x1, y1, x2, y2, score.
        image_size: Height and width of the picture in pixels.
        rng: Generator the filling is drawn from; ``numpy.random.RandomState(seed)`` draws what the demo draws after
            ``numpy.random.seed(seed)``.
        num_boxes: N.

    Returns:
        (N, 6) int64 x1, y1, x2, y2, 0, class.

    Raises:
        InputError: If an array does not have 5 columns, or a number is not finite.
    """
    lists = [_rows(rows, 5) for rows in per_class]
    if any(rows.ndim != 2 or rows.shape[1] != 5 for rows in lists):
        raise InputError(f"Boxes per class have shapes {[rows.shape for rows in lists]}, expected (n, 5) for each.")
    stacked = np.concatenate(lists) if lists else np.empty((0, 5))
    kinds = np.repeat(np.arange(len(lists)), [len(rows) for rows in lists])
    corners, scores, classes = _checked_boxes(stacked[:, :4], stacked[:, 4], kinds)
    pixels, kept = _to_pixels(corners, image_size)
    found = np.column_stack([pixels, scores, classes])[kept].astype(np.int64)
    if len(found) == 0:
        found = np.append(_whole_frame(image_size), (1, 0))[None]
    candidates = min(NUM_REPEATED, len(found))
    missing = num_boxes - len(found)
    if missing < 0:
        return found[:num_boxes]
    drawn = rng.choice(candidates, missing, replace=missing >= candidates)
    return np.concatenate([found, found[drawn]])


def _to_pixels(
    corners: npt.NDArray[np.float64], image_size: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns (n, 4) corners cut to whole pixels of the picture, and the rows that are large enough to keep."""
    height, width = image_size
    # Far outside the picture is as good as just outside, and fits an integer.
    whole = np.trunc(np.clip(corners, -1e9, 1e9)).astype(np.int64)
    x1, y1 = np.clip(whole[:, 0], 0, width), np.clip(whole[:, 1], 0, height)
    x2, y2 = np.minimum(np.maximum(whole[:, 2], x1 + 1), width), np.minimum(np.maximum(whole[:, 3], y1 + 1), height)
    kept = np.flatnonzero((x2 - x1 >= 2) & (y2 - y1 >= 2))
    return np.stack([x1, y1, x2, y2], axis=1), kept


def _whole_frame(image_size: tuple[int, int]) -> npt.NDArray[np.int64]:
    height, width = image_size
    return np.array([0, 0, width - 1, height - 1])


def _checked_boxes(
    boxes: npt.ArrayLike, scores: npt.ArrayLike, classes: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    values, kinds = np.asarray(scores, np.float64), np.asarray(classes, np.float64)
    corners = _rows(boxes, 4)
    if corners.ndim != 2 or corners.shape[1] != 4 or values.shape != (len(corners),) or kinds.shape != values.shape:
        raise InputError(
            f"Boxes have shape {corners.shape}, scores {values.shape}, classes {kinds.shape}; expected (n, 4), (n,) "
            "and (n,)."
        )
    if not (np.isfinite(corners).all() and np.isfinite(values).all() and np.isfinite(kinds).all()):
        raise InputError("A detection has a box, score or class that is not a finite number.")
    return corners, values, kinds


def _rows(values: npt.ArrayLike, columns: int) -> npt.NDArray[np.float64]:
    """Returns an array of rows; an empty list has none."""
    array = np.asarray(values, np.float64)
    return array.reshape(0, columns) if array.size == 0 else array
