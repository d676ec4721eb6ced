"""Results of Crane: their files, numbers and pictures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmattn.media.video import open_video
from mmattn.vision.crane.results import CraneResult, CraneVideoResult, resize_map


@pytest.fixture
def result() -> CraneResult:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[2:4, 5:7] = 0.9
    anomaly_map[2, 6] = 1.0
    return CraneResult(
        score=0.7, anomaly_map=anomaly_map, image=np.full((64, 128, 3), 90, np.uint8), image_size=(640, 1280)
    )


def test_the_label_follows_the_threshold(result: CraneResult):
    assert result.to_json()["label"] == "anomalous"
    assert replace(result, threshold=0.7).to_json()["label"] == "normal"


def test_json_holds_where_the_peak_is_as_a_share_of_the_picture(result: CraneResult):
    data = json.loads(json.dumps(result.to_json()))
    assert data["peak_xy"] == pytest.approx([6.5 / 8, 2.5 / 8], abs=0.02)
    assert data["area_above_threshold"] == pytest.approx(4 / 64)
    assert data["image_size"] == [640, 1280]


def test_the_sixteen_bit_map_reads_back_to_the_map_within_one_level(result: CraneResult, tmp_path: Path):
    paths = result.save(tmp_path, "part.png")
    assert sorted(p.name for p in paths) == ["part.png.map.png", "part.png.overlay.png", "part.png.picture.jpg"]
    stored = np.asarray(Image.open(tmp_path / "part.png.map.png")).astype(np.float64) / 65535
    assert stored.shape == (64, 128)
    assert np.abs(stored - resize_map(result.anomaly_map, (64, 128))).max() <= 0.5 / 65535 + 1e-7


def test_the_numpy_map_is_exact(result: CraneResult, tmp_path: Path):
    replace(result, map_format="npy").save(tmp_path, "part.png")
    stored = np.load(tmp_path / "part.png.map.npy")
    assert np.array_equal(stored, resize_map(result.anomaly_map, (64, 128)))


def test_a_flawless_picture_stays_dark_with_the_fixed_range_and_not_with_its_own(result: CraneResult):
    faint = replace(result, anomaly_map=result.anomaly_map * 0.05, image=np.zeros((64, 64, 3), np.uint8))
    assert faint.plot().max() < 40
    assert replace(faint, display_range="image").plot().max() > 100


def test_the_overlay_outlines_what_is_above_the_threshold(result: CraneResult):
    outlined = np.any(result.plot() != replace(result, pixel_threshold=1.0).plot(), axis=-1)
    rows, columns = np.nonzero(outlined)
    assert (columns.min() / 128, columns.max() / 128) == pytest.approx((0.64, 0.86), abs=0.05)
    assert (rows.min() / 64, rows.max() / 64) == pytest.approx((0.27, 0.48), abs=0.06)


def test_a_video_result_writes_a_playable_overlay_curve_and_worst_frame(tmp_path: Path):
    count = 5
    video = CraneVideoResult(
        times=np.arange(count) / 2.0,
        scores=np.array([0.1, 0.2, 0.9, 0.3, 0.1]),
        anomaly_maps=np.zeros((count, 8, 8), np.float16),
        frames=np.full((count, 64, 80, 3), 120, np.uint8),
        fps=2.0,
    )
    data = json.loads(json.dumps(video.to_json()))
    assert (data["worst_seconds"], data["anomalous_frames"], data["label"]) == (1.0, 1, "anomalous")
    paths = video.save(tmp_path, "line.mp4")
    assert all(p.stat().st_size > 0 for p in paths)
    with open_video(tmp_path / "line.mp4.overlay.mp4") as reader:
        assert len(reader) == count
        assert reader.size == (64, 80)
