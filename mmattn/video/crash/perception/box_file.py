"""Boxes of any detector, from a file: CSV, JSON or npz, one video a file.

The forms, with class names of COCO, KITTI or our own, or numbers into car, truck, two_wheeler, pedestrian:

* CSV with a header; columns ``frame`` (0 is the first frame of the video) or ``time`` (seconds), ``x1, y1, x2, y2``
  or ``x, y, width, height`` (pixels), and optionally ``score`` and ``class``, in any order.
* JSON: a list of objects with the same names; or a list of frames ``{"frame": 0, "boxes": [[x1, y1, x2, y2, score,
  class], ...]}`` of which score and class may be left out; or COCO's list of detections ``{"image_id": 0, "bbox": [x,
  y, width, height], "score": 0.9, "category_id": 3}`` with COCO's category numbers and frame numbers as image ids.
* npz: ``det`` (T, N, 6) x1, y1, x2, y2, score, class for every frame of the video, rows without area being empty, as
  in the public feature files; or flat ``frame`` or ``time`` (n,), ``boxes`` (n, 4), ``scores`` (n,), ``classes`` (n,).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmattn.errors import InputError
from mmattn.media.npz import array_names, read_any
from mmattn.media.regular import check_regular, expanded, read_regular
from mmattn.video.crash.perception.box_table import BoxTable
from mmattn.video.crash.perception.road_detectors import COCO_KINDS, kind_number
from mmattn.video.crash.perception.tracking import KIND_NAMES

__all__ = ["SUFFIXES", "find_box_file", "read_box_file"]

SUFFIXES = (".csv", ".json", ".npz")
_MOST_BYTES = 1 << 26
_MOST_FRAMES = 1 << 31
_CORNERS, _SIZES = ("x1", "y1", "x2", "y2"), ("x", "y", "width", "height")


class _Row(NamedTuple):
    """One box: frame number or seconds, corners, score, kind."""

    moment: float
    corners: tuple[float, float, float, float]
    score: float
    kind: int


def find_box_file(source: str | Path, video: str | Path) -> Path:
    """Returns the file with the boxes of a video: ``source`` itself, or the one of the video's name in that folder.

    Raises:
        InputError: If there is none.
    """
    place = expanded(source)
    if place.is_file():
        return place
    if not place.is_dir():
        raise InputError(f"The boxes '{place}' do not exist.", "Give a file, or a folder with one file per video.")
    stem = Path(video).stem
    candidates = [place / f"{stem}{suffix}" for suffix in SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"'{place}' has no boxes for the video '{Path(video).name}'.",
        f"Expected {', '.join(c.name for c in candidates[:-1])} or {candidates[-1].name}.",
    )


def read_box_file(path: str | Path, timestamps: npt.ArrayLike) -> BoxTable:
    """Reads a file of boxes.

    Args:
        path: The file.
        timestamps: Seconds of every frame of its video, (T,), which frame numbers are turned into.

    Raises:
        InputError: If the file is missing, of another form, or a number in it makes no sense; the message names the
            line or entry.
    """
    file = expanded(path)
    readers: dict[str, Callable[[Path], tuple[bool, list[_Row]]]] = {
        ".csv": _read_csv, ".json": _read_json, ".npz": _read_npz,
    }  # fmt: skip
    if file.suffix.lower() not in readers:
        raise InputError(f"'{file}' is no file of boxes, expected {', '.join(SUFFIXES)}.")
    check_regular(file, _MOST_BYTES, error=InputError)
    in_frames, rows = readers[file.suffix.lower()](file)
    moments = np.array([row.moment for row in rows], np.float64)
    if in_frames:
        moments = _moments(moments, np.asarray(timestamps, np.float64), file)
    return BoxTable(
        moments,
        np.array([row.corners for row in rows], np.float64).reshape(-1, 4),
        np.array([row.score for row in rows], np.float64),
        np.array([row.kind for row in rows], np.int64),
    )


def _moments(frames: npt.NDArray[np.float64], timestamps: npt.NDArray[np.float64], file: Path) -> npt.NDArray[Any]:
    if len(frames) and frames.max() >= len(timestamps):
        raise InputError(
            f"'{file}' has boxes for frame {frames.max():.0f}; its video has {len(timestamps)} frames, counted from 0.",
            "The file may belong to another video, or count from 1.",
        )
    return timestamps[frames.astype(np.int64)]


def _read_csv(file: Path) -> tuple[bool, list[_Row]]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True)
        try:
            header = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            in_frames = _check_names(set(header), f"'{file}', line 1")
            rows = []
            for entry in reader:
                where = f"'{file}', line {reader.line_num}"
                if None in entry or None in entry.values():
                    raise InputError(f"{where}: expected {len(header)} values, as in the header.")
                rows.append(_row_of(entry, in_frames, where))
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"'{file}', line {reader.line_num + 1}: {error}.", "Save it as CSV in UTF-8.") from error
    return in_frames, rows


def _read_json(file: Path) -> tuple[bool, list[_Row]]:
    try:
        content = json.loads(read_regular(file, _MOST_BYTES, error=InputError).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"'{file}', line {error.lineno}: {error.msg}.", "The file is damaged or no JSON.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"'{file}' is no text in UTF-8.", "Save it as JSON in UTF-8.") from error
    except (RecursionError, ValueError) as error:  # lists in lists, numbers of thousands of digits
        raise InputError(f"'{file}' is damaged or no JSON of boxes.") from error
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise InputError(
            f"'{file}' holds no list of objects.", "Expected boxes, frames with boxes, or COCO detections."
        )
    if not content:
        return False, []
    entries = list(_json_entries(content, file))
    if not entries:  # frames without any box
        return False, []
    in_frames = _check_names(set(entries[0][1]), entries[0][0])
    return in_frames, [_row_of(entry, in_frames, where) for where, entry in entries]


def _json_entries(content: Sequence[Mapping[str, Any]], file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each box under the names of the CSV columns, with where it stands in the file."""
    for number, entry in enumerate(content):
        where = f"'{file}', entry {number}"
        if "bbox" in entry:
            box = _numbers(entry["bbox"], 4, where)
            frame = entry.get("image_id", entry.get("frame"))
            category = entry.get("category_id", 0)
            if not isinstance(category, int):
                raise InputError(f"{where}: category_id is {category!r}, expected one of COCO's whole numbers.")
            kind = entry.get("class", COCO_KINDS.get(category, "other"))
            yield where, {"frame": frame, **dict(zip(_SIZES, box, strict=True)), "score": entry.get("score", 1.0),
                          "class": kind}  # fmt: skip
        elif "boxes" in entry:
            moment = {name: entry[name] for name in ("frame", "time") if name in entry}
            if not isinstance(entry["boxes"], list):
                raise InputError(f"{where}: boxes is {entry['boxes']!r}, expected a list.")
            for row, box in enumerate(entry["boxes"]):
                if not isinstance(box, list) or not 4 <= len(box) <= 6:
                    raise InputError(f"{where}, box {row}: expected [x1, y1, x2, y2, score, class], got {box!r}.")
                yield f"{where}, box {row}", {**moment, **dict(zip((*_CORNERS, "score", "class"), box, strict=False))}
        else:
            yield where, {name.lower(): value for name, value in entry.items()}


def _read_npz(file: Path) -> tuple[bool, list[_Row]]:
    arrays = {name: read_any(file, name, _MOST_BYTES) for name in array_names(file) if name in _ARRAYS}
    if "det" in arrays:
        det = arrays["det"]
        if det.ndim != 3 or det.shape[2] != 6 or det.dtype.kind not in "iuf":
            raise InputError(f"'{file}': det is {det.dtype} {det.shape}, expected numbers (T, N, 6).")
        frames, slots = np.nonzero((det[..., 2] > det[..., 0]) & (det[..., 3] > det[..., 1]))
        table = np.column_stack([frames, det[frames, slots]])
        return True, list(_rows_of(table, [f"'{file}', det[{t}, {n}]" for t, n in zip(frames, slots, strict=True)]))
    in_frames = "frame" in arrays
    moment = arrays.get("frame", arrays.get("time"))
    boxes = arrays.get("boxes")
    if moment is None or boxes is None or moment.ndim != 1 or boxes.shape != (len(moment), 4):
        present = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none of them"
        raise InputError(f"'{file}' has {present}; expected det (T, N, 6), or frame or time (n,) and boxes (n, 4).")
    scores = arrays.get("scores", np.ones(len(boxes)))
    classes = arrays.get("classes", np.full(len(boxes), -1))
    if scores.shape != (len(boxes),) or classes.shape != (len(boxes),):
        raise InputError(f"'{file}': scores {scores.shape} and classes {classes.shape}, expected ({len(boxes)},).")
    if classes.dtype.kind in "SU":
        names = np.char.decode(classes, "utf-8", "replace") if classes.dtype.kind == "S" else classes
        classes = np.array([kind_number(str(name)) for name in names], np.int64)
    for name, array in (("frame" if in_frames else "time", moment), ("boxes", boxes), ("scores", scores),
                        ("classes", classes)):  # fmt: skip
        if array.dtype.kind not in "iuf":
            raise InputError(f"'{file}': {name} holds {array.dtype}, expected numbers.")
    table = np.column_stack([moment, boxes, scores, classes]).astype(np.float64)
    places = [f"'{file}', row {row}" for row in range(len(table))]
    return in_frames, list(_rows_of(table, places, in_frames=in_frames))


_ARRAYS = ("det", "frame", "time", "boxes", "scores", "classes")


def _rows_of(table: npt.NDArray[Any], places: Iterable[str], *, in_frames: bool = True) -> Iterator[_Row]:
    for values, where in zip(np.asarray(table, np.float64).tolist(), places, strict=True):
        _check_moment(values[0], in_frames, where)
        yield _checked(_Row(values[0], tuple(values[1:5]), values[5], _kind(values[6], where)), where)


def _check_names(names: set[str], where: str) -> bool:
    """Says whether moments are frame numbers; raises unless a moment and a box are named."""
    if not names & {"frame", "time"}:
        raise InputError(f"{where}: there is neither frame nor time among {', '.join(sorted(names)) or 'no names'}.")
    if not (names >= set(_CORNERS) or names >= set(_SIZES)):
        raise InputError(
            f"{where}: expected {', '.join(_CORNERS)} or {', '.join(_SIZES)}, got {', '.join(sorted(names))}."
        )
    return "frame" in names


def _row_of(entry: Mapping[str, Any], in_frames: bool, where: str) -> _Row:
    moment = _number(entry, "frame" if in_frames else "time", where)
    _check_moment(moment, in_frames, where)
    if "x1" in entry:
        x1, y1, x2, y2 = (_number(entry, name, where) for name in _CORNERS)
    else:
        x1, y1, width, height = (_number(entry, name, where) for name in _SIZES)
        x2, y2 = x1 + width, y1 + height
    score = _number(entry, "score", where) if entry.get("score") not in (None, "") else 1.0
    kind = entry.get("class")
    return _checked(_Row(moment, (x1, y1, x2, y2), score, -1 if kind in (None, "") else _kind(kind, where)), where)


def _check_moment(moment: float, in_frames: bool, where: str) -> None:
    if in_frames and not (0 <= moment < _MOST_FRAMES and moment == int(moment)):
        raise InputError(f"{where}: frame is {moment:g}, expected a whole number from 0.")
    if not math.isfinite(moment):
        raise InputError(f"{where}: time is {moment:g}, expected seconds.")


def _checked(row: _Row, where: str) -> _Row:
    if not np.isfinite([row.moment, *row.corners, row.score]).all():
        raise InputError(f"{where}: a number is not finite.")
    x1, y1, x2, y2 = row.corners
    if x2 <= x1 or y2 <= y1:
        raise InputError(
            f"{where}: the box {x1:g}, {y1:g}, {x2:g}, {y2:g} has no area.", "Expected x1 < x2 and y1 < y2."
        )
    if not 0.0 <= row.score <= 1.0:
        raise InputError(f"{where}: score is {row.score:g}, expected a number in [0, 1].")
    return row


def _number(entry: Mapping[str, Any], name: str, where: str) -> float:
    value = entry.get(name)
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: {name} is {repr(value)[:80]}, expected a number.") from error


def _numbers(values: Any, count: int, where: str) -> list[Any]:
    if not isinstance(values, list) or len(values) != count:
        raise InputError(f"{where}: bbox is {values!r}, expected {count} numbers.")
    return values


def _kind(value: Any, where: str) -> int:
    """Returns the number of a kind given by number or name; -1 for names we do not have."""
    if isinstance(value, str) and not value.strip().lstrip("-").replace(".", "", 1).isdigit():
        return kind_number(value)
    number = _number({"class": value}, "class", where)
    if not math.isfinite(number) or number != int(number) or not -1 <= number < len(KIND_NAMES):
        raise InputError(
            f"{where}: class is {number:g}, expected a name or a number from 0 to {len(KIND_NAMES) - 1}.",
            f"The numbers mean {', '.join(KIND_NAMES)}.",
        )
    return int(number)
