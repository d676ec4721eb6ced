"""Crane's metrics, preprocessing, overlay and dataset layouts against upstream's outputs."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.bench.peers.aupro import aupro_threshold_loop
from mmattn.metrics.aupro import aupro, aupro_quantile, label_regions
from mmattn.metrics.ranking import auroc, average_precision, f1_max, pixel_curve
from mmattn.vision.crane.datasets.layouts import LAYOUTS, read_layout
from mmattn.vision.crane.network.preprocess import Preprocess
from mmattn.viz.heatmap import overlay
from tests.golden.fixtures import check, golden_files, load_json, load_tensors

FOLDER = "crane"

_ROW_STRIDE = 11  # ``*_rowslice`` keeps every 11th row and column
_RESIZE_TOLERANCE = 2e-2  # of tensor resizing beside Pillow's


def expected_tolerance(file: str, key: str) -> float | None:
    """Says which entries of the three fixture families are outputs, and how closely they must be met."""
    if file.startswith("metrics") and file.endswith(".json"):
        return 0.0 if key == "n_regions" else 1e-5 if "aupro" in key else 1e-6
    if file.startswith("preprocess"):
        if key in {"image_u8", "mask_u8", "viz.image_u8", "viz.map"}:
            return None
        return 2.0 if key.startswith("viz.") else 1e-6
    if file.startswith("dataset_meta"):
        return 0.0 if re.fullmatch(r"[^.]+\.(class_names|meta)\..+", key) else None
    return None


def metric_cases() -> list[object]:
    paths = golden_files(FOLDER, "metrics*.json")
    return [pytest.param(path, key, id=f"{path.stem}-{key}") for path in paths for key in load_json(path)]


@pytest.mark.parametrize(("path", "key"), metric_cases())
def test_metric_equals_upstream(path: Path, key: str) -> None:
    tensors = load_tensors(path.with_suffix(".safetensors"))
    expected = torch.tensor(load_json(path)[key], dtype=torch.float64)
    for name, value in _metric(key, tensors).items():
        check(torch.tensor(value, dtype=torch.float64), expected, expected_tolerance(path.name, key), name=name)


def _metric(key: str, tensors: dict[str, Tensor]) -> dict[str, float]:
    """Returns the metric that ``key`` names, by every implementation that claims to compute it."""
    maps, masks = tensors["maps"].numpy(), tensors["masks"].numpy().astype(bool)
    option = re.fullmatch(r"aupro_(steps|fpr)_([\d.]+)", key)
    if option is not None:
        steps = int(option[2]) if option[1] == "steps" else 200
        limit = float(option[2]) if option[1] == "fpr" else 0.3
        return {
            "aupro": aupro(maps, masks, steps=steps, fpr_limit=limit),
            "threshold loop": aupro_threshold_loop(maps, masks, steps=steps, fpr_limit=limit),
        }
    level, _, metric = key.partition("-")
    if level == "image":
        function = {"auroc": auroc, "ap": average_precision, "f1": f1_max}[metric]
        return {metric: function(tensors["image_scores"].numpy(), tensors["image_gt"].numpy())}
    curve = pixel_curve(maps, masks)
    values = {
        "pixel-auroc": curve.auroc,
        "pixel-ap": curve.average_precision,
        "pixel-f1": curve.f1_max,
        "pixel-aupro": lambda: aupro(maps, masks),
        "aupro_openiad_variant": lambda: aupro_quantile(maps, masks),
        "n_regions": lambda: float(sum(label_regions(mask)[1] for mask in masks)),
    }
    return {key: values[key]()}


def preprocess_cases() -> list[object]:
    return [
        pytest.param(path, key, id=f"{path.stem}-{key}")
        for path in golden_files(FOLDER, "preprocess*.safetensors")
        for key in load_tensors(path)
        if expected_tolerance(path.name, key) is not None
    ]


@pytest.mark.parametrize(("path", "key"), preprocess_cases())
def test_preprocessing_equals_upstream(path: Path, key: str) -> None:
    tensors = load_tensors(path)
    tolerance = expected_tolerance(path.name, key)
    if key == "viz.overlay_u8":
        image, anomaly_map = tensors["viz.image_u8"].numpy(), tensors["viz.map"].numpy()
        blended = overlay(image, anomaly_map, vmin=None, vmax=None, alpha=0.5, colormap="jet")
        check(torch.from_numpy(blended), tensors[key], tolerance, name=key)
        return
    match = re.fullmatch(r"(image|mask)_(\d+)(|_rowslice|_raw|_bin)", key)
    assert match is not None, f"{key} is not understood"
    preprocess = Preprocess(int(match[2]))
    if match[1] == "mask":
        check(preprocess.mask(tensors["mask_u8"].numpy(), binary=match[3] == "_bin"), tensors[key], tolerance, name=key)
        return
    stride = _ROW_STRIDE if match[3] == "_rowslice" else 1
    picture = preprocess(tensors["image_u8"].numpy())
    check(picture[:, ::stride, ::stride], tensors[key], tolerance, name=key)
    resized = preprocess.tensor(tensors["image_u8"].permute(2, 0, 1)[None])[0]
    check(resized[:, ::stride, ::stride], tensors[key], _RESIZE_TOLERANCE, name=f"{key} by tensor")


def dataset_cases() -> list[object]:
    paths = golden_files(FOLDER, "dataset_meta*.json")
    return [pytest.param(path, name, id=f"{path.stem}-{name}") for path in paths for name in load_json(path)]


@pytest.mark.parametrize(("path", "name"), dataset_cases())
def test_classes_of_a_dataset_equal_upstreams(path: Path, name: str) -> None:
    assert list(LAYOUTS[name].classes or ()) == load_json(path)[name]["class_names"]  # type: ignore[index]


@pytest.mark.parametrize(("path", "name"), dataset_cases())
def test_records_of_a_dataset_equal_upstreams(path: Path, name: str, tmp_path: Path) -> None:
    entry = load_json(path)[name]
    assert isinstance(entry, dict)
    for file in entry.get("files", []):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    if "csv" in entry:
        (tmp_path / entry["csv"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / entry["csv"]).write_text(entry["csv_text"], encoding="utf-8")
    for split, expected in entry["meta"].items():
        records: dict[str, list[dict[str, object]]] = {}
        for record in read_layout(name, tmp_path, split, classes=list(expected)):
            records.setdefault(record.cls_name, []).append(asdict(record))
        assert records == expected
