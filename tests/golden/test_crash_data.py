"""The accident metrics and the box selection of CRASH against the authors' outputs.

The convention is written in ``fixtures.py``. Network and losses have a module of their own.
"""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mmattn.bench.peers.accident_metrics import legacy_threshold_loop
from mmattn.metrics.accident import legacy_metrics, video_ap
from mmattn.video.crash.perception.box_sampling import select_boxes_upstream
from tests.golden.fixtures import check, golden_files, load_json

FOLDER = "crash"

_METRICS = {"AP": "ap", "mTTA": "mtta", "TTA_R80": "tta_r80", "P_R80": "p_r80"}
_INPUTS = ("scores", "labels", "toas", "fps")
# What upstream computes with an unstable sort depends on NumPy's sorting kernels; its README calls it informative.
_INFORMATIVE = ("raw", "f64")
_OVERFLOW = r"IndexError: index (\d+) is out of bounds for axis 0 with size (\d+)"


def expected_tolerance(file: str, key: str) -> float | None:
    """Says which entries of the two fixture families are outputs, and how closely they must be met."""
    if file.startswith("metrics"):
        parts = re.split(r"[/.]", key)
        if parts[1] in _INPUTS or parts[1] in _INFORMATIVE:
            return None
        return 0.0 if parts[-1] == "error" else 1e-6
    if file.startswith("bbox_sampling"):
        return 0.0 if ".out." in key else None
    return None


def expected_metrics(path: Path) -> dict[str, dict[str, object]]:
    """Returns per case every expected entry by its name, such as ``f64_stable/AP``, from an npz or a JSON file."""
    if path.suffix == ".json":
        entries = {f"{case}/{name}": value for case, rows in load_json(path).items() for name, value in rows.items()}  # type: ignore[attr-defined]
    else:
        with np.load(path) as arrays:
            entries = {key: float(arrays[key].item()) for key in arrays.files if key.split("/")[1] not in _INPUTS}
    cases: dict[str, dict[str, object]] = {}
    for key, value in entries.items():
        case, _, name = key.partition("/")
        if name.partition("/")[0] not in _INFORMATIVE:
            cases.setdefault(case, {})[name] = value
    return cases


def metric_cases() -> list[object]:
    return [
        pytest.param(path, case, name, id=f"{path.stem}-{case}-{name.replace('/', '-')}{path.suffix}")
        for path in [*golden_files(FOLDER, "metrics*.npz"), *golden_files(FOLDER, "metrics*.json")]
        for case, names in expected_metrics(path).items()
        for name in names
    ]


def load_case(path: Path, case: str) -> tuple[npt.NDArray[np.float32], npt.NDArray, npt.NDArray, float]:
    with np.load(path.with_suffix(".npz")) as arrays:
        scores, labels, toas, fps = (arrays[f"{case}/{name}"] for name in _INPUTS)
    return scores, labels, toas, float(fps.item())


@cache
def loop_metrics(path: Path, case: str) -> dict[str, float]:
    return dict(zip(_METRICS, legacy_threshold_loop(*load_case(path, case)), strict=True))


@pytest.mark.parametrize(("path", "case", "name"), metric_cases())
def test_metric_equals_upstream(path: Path, case: str, name: str) -> None:
    scores, labels, toas, fps = load_case(path, case)
    expected = expected_metrics(path)[case][name]
    if name.endswith("/error"):
        check_overflow(str(expected), scores, labels, toas, fps)
        return
    if name == "AP_video":
        found = {name: video_ap(scores, labels, toas)}
    else:
        variant, _, metric = name.partition("/")
        assert variant == "f64_stable", f"{name} is not understood"
        ours = getattr(legacy_metrics(scores, labels, toas, fps), _METRICS[metric])
        found = {metric: ours, f"{metric} by the loop": loop_metrics(path, case)[metric]}
    tolerance = expected_tolerance(path.name, f"{case}/{name}")
    for label, value in found.items():
        wanted = torch.tensor(expected, dtype=torch.float64)
        check(torch.tensor(value, dtype=torch.float64), wanted, tolerance, name=label)


def check_overflow(
    message: str, scores: npt.NDArray[np.float32], labels: npt.NDArray, toas: npt.NDArray, fps: float
) -> None:
    """Upstream's arrays have an entry per frame that counts; where thresholds outnumber them ours are large enough."""
    error = re.fullmatch(_OVERFLOW, message)
    assert error is not None, f"upstream's message {message!r} is not understood"
    counted = [int(toa) if label else scores.shape[1] for label, toa in zip(labels, toas, strict=True)]
    assert int(error[2]) == sum(counted)
    result = legacy_metrics(scores, labels, toas, fps)
    found = (result.ap, result.mtta, result.tta_r80, result.p_r80)
    assert found == pytest.approx(legacy_threshold_loop(scores, labels, toas, fps), abs=1e-9)


def box_cases() -> list[object]:
    return [
        pytest.param(path, index, id=f"{path.stem}-{index}-{sum(map(len, entry['per_class']))}_boxes")
        for path in golden_files(FOLDER, "bbox_sampling*.json")
        for index, entry in enumerate(json.loads(path.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize(("path", "index"), box_cases())
def test_selected_boxes_equal_upstreams(path: Path, index: int) -> None:
    entry = json.loads(path.read_text(encoding="utf-8"))[index]
    unknown = set(entry) - {"n_det", "numpy_legacy_seed", "imsize_hw", "per_class", "out"}
    assert not unknown, f"options {unknown} are not understood"
    expected = torch.tensor(entry["out"])
    boxes = select_boxes_upstream(
        entry["per_class"],
        tuple(entry["imsize_hw"]),
        np.random.RandomState(entry["numpy_legacy_seed"]),
        num_boxes=len(expected),
    )
    check(torch.from_numpy(boxes), expected, expected_tolerance(path.name, f"{index}.out.0.0"), name="out")
