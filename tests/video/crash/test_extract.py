"""Features of a folder of videos: half precision, resumed, and a failed clip does not stop the others."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.media.video_writer import VideoWriter
from mmattn.video.crash.datasets.feature_folder import FeatureFolder
from mmattn.video.crash.extract import extract_clip, extract_features
from mmattn.video.crash.perception.box_table import FileDetector
from mmattn.video.crash.perception.road_detectors import NoDetector
from tests.video.crash.perception.crop_parts import pictures, small_perception


def write_video(path: Path, count: int = 20, fps: float = 20.0) -> Path:
    with VideoWriter(path, fps=fps) as writer:
        for picture in pictures(count):
            writer.write(picture)
    return path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("day/a.mp4", "night/a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "videos" / name)
    (tmp_path / "videos" / "torn.mp4").write_bytes(b"no video at all")
    return tmp_path / "videos"


def test_a_clip_is_sampled_at_the_perceptions_rate(tmp_path: Path):
    clip = extract_clip(write_video(tmp_path / "a.mp4"), small_perception())
    assert clip.features.shape == (10, 6, 6)
    assert clip.features.dtype == np.float16
    np.testing.assert_allclose(clip.times, np.arange(10) / 10)
    assert clip.boxes.shape == (10, 5, 6)
    assert clip.valid.all()


def test_slow_videos_do_not_repeat_frames(tmp_path: Path):
    clip = extract_clip(write_video(tmp_path / "a.mp4", count=4, fps=5.0), small_perception())
    np.testing.assert_allclose(clip.times, np.arange(4) / 5)


def test_empty_slots_are_marked(tmp_path: Path):
    clip = extract_clip(write_video(tmp_path / "a.mp4"), small_perception(fill="empty"))
    assert clip.valid[0].tolist() == [True] + [False] * 5
    assert clip.valid[1].tolist() == [True] * 4 + [False] * 2
    assert not clip.boxes[1, 3:].any()
    assert clip.boxes[1, :3, 4].min() > 0


def test_a_folder_of_videos_is_written_and_failures_are_reported(videos: Path, tmp_path: Path):
    perception = small_perception()
    done = extract_features([videos], tmp_path / "features", perception, settings=perception.settings())
    assert (done.made, done.kept) == (3, 0)
    (failed,) = done.errors
    assert failed["id"] == "torn"
    report = [json.loads(line) for line in (tmp_path / "features" / "errors.jsonl").read_text().splitlines()]
    assert report == done.errors
    folder = FeatureFolder.open(tmp_path / "features")
    assert folder.manifest.source["crops"]["size"] == 28
    stored = folder.load("night/a", with_boxes=True)
    fresh = extract_clip(videos / "night" / "a.mp4", perception)
    np.testing.assert_array_equal(stored.features, fresh.features)
    np.testing.assert_array_equal(stored.boxes, fresh.boxes)


def test_a_second_run_keeps_what_is_there(videos: Path, tmp_path: Path):
    perception = small_perception()
    first = extract_features([videos], tmp_path / "features", perception, settings=perception.settings(), limit=1)
    assert first.made == 1
    perception.backbone.calls.clear()
    again = extract_features([videos], tmp_path / "features", perception, settings=perception.settings())
    assert (again.made, again.kept, len(again.errors)) == (2, 1, 1)
    assert sum(perception.backbone.calls) > 0
    write_video(videos / "torn.mp4")
    mended = extract_features([videos], tmp_path / "features", perception, settings=perception.settings())
    assert (mended.made, mended.kept, mended.errors) == (1, 3, [])
    assert not (tmp_path / "features" / "errors.jsonl").exists()


def test_other_settings_do_not_mix_with_what_is_there(videos: Path, tmp_path: Path):
    perception = small_perception()
    extract_features([videos], tmp_path / "features", perception, settings=perception.settings(), limit=1)
    other = small_perception(fill="empty")
    with pytest.raises(InputError, match="features made in another way"):
        extract_features([videos], tmp_path / "features", other, settings=other.settings())


def test_boxes_come_from_the_file_of_each_video(videos: Path, tmp_path: Path):
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    (boxes / "b.csv").write_text("frame,x1,y1,x2,y2,class\n" + "".join(f"{t},{t},5,60,50,bus\n" for t in range(20)))
    perception = small_perception().with_detector(NoDetector())
    done = extract_features(
        [videos / "b.mp4", videos / "day" / "a.mp4"],
        tmp_path / "features",
        perception,
        settings=perception.settings(),
        boxes=boxes,
    )
    assert done.made == 1
    assert "no boxes for the video 'a.mp4'" in done.errors[0]["error"]
    clip = FeatureFolder.open(tmp_path / "features").load("b", with_boxes=True)
    assert clip.boxes[:, 0, 0].tolist() == list(range(0, 20, 2))
    assert clip.boxes[:, 0, 5].tolist() == [1] * 10
    assert not isinstance(perception.detector, FileDetector)


def test_a_perception_that_finds_boxes_itself_refuses_others(tmp_path: Path):
    class Own:
        fps, feature_dim, num_boxes = 10.0, 6, 5

        def open(self):
            raise AssertionError

    with pytest.raises(InputError, match="finds road users itself"):
        extract_clip(write_video(tmp_path / "a.mp4"), Own(), boxes=tmp_path)


def test_two_videos_of_one_name_are_refused(tmp_path: Path):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "a.avi").write_bytes((tmp_path / "a.mp4").read_bytes())
    perception = small_perception()
    with pytest.raises(InputError, match="would both be the clip 'a'"):
        extract_features([tmp_path], tmp_path / "features", perception, settings={})
