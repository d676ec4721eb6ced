"""Pictures of the generated clips, and the boxes that belong to them."""

from pathlib import Path

import numpy as np
import pytest

from mmattn.video.crash.perception.camera import FOCAL, HEIGHT, HORIZON_ROW, WIDTH
from mmattn.video.crash.synthetic.drawing.render import decode, render
from mmattn.video.crash.synthetic.drawing.shapes import near_clip
from mmattn.video.crash.synthetic.drawing.weather import draw_weather, mist
from mmattn.video.crash.synthetic.files import clip_path, read_clip, write_clips
from mmattn.video.crash.synthetic.world.camera import Camera, project_box, uncovered
from mmattn.video.crash.synthetic.world.clips import draw_clip
from mmattn.video.crash.synthetic.world.physics import FRAMES, Road, Size, drive, steer


def camera() -> Camera:
    return Camera(FOCAL, 1.3, HORIZON_ROW, np.zeros((FRAMES, 3)), np.zeros((FRAMES, 2)))


def test_a_box_has_the_size_that_focal_length_and_distance_give():
    size = Size(4.0, 2.0, 1.5)
    car = steer(Road(0.0, 3.5, 1, 1), "car", size, (22.0, 0.0), 0.0, drive(0.0))
    right, forward, heading = np.zeros(FRAMES), np.full(FRAMES, 22.0), np.zeros(FRAMES)
    box, counts = project_box(camera(), right, forward, heading, car)
    x1, y1, x2, y2 = box[0]
    assert counts.all()
    assert x2 - x1 == pytest.approx(FOCAL * 2.0 / 20.0)
    assert (x1 + x2) / 2 == WIDTH / 2
    assert y2 == pytest.approx(HORIZON_ROW + FOCAL * 1.3 / 20.0)
    assert y1 == pytest.approx(HORIZON_ROW + FOCAL * (1.3 - 1.5) / 20.0)


def test_what_is_behind_the_camera_has_no_box():
    car = steer(Road(0.0, 3.5, 1, 1), "car", Size(4.0, 2.0, 1.5), (0.0, 0.0), 0.0, drive(0.0))
    _, counts = project_box(camera(), np.zeros(FRAMES), np.full(FRAMES, -10.0), np.zeros(FRAMES), car)
    assert not counts.any()


def test_a_nearer_box_covers_what_is_behind_it():
    box = np.array([[100.0, 50, 140, 90], [120, 50, 160, 90], [200, 50, 220, 60]])
    share = uncovered(np.zeros(3, int), box, np.array([30.0, 10.0, 20.0]))
    np.testing.assert_allclose(share, [0.5, 1.0, 1.0])


def test_a_polygon_is_cut_where_it_passes_the_camera():
    square = np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 3], [-1, 0, 3]])
    cut = near_clip(square)
    assert cut[:, 2].min() == pytest.approx(0.4)
    assert len(cut) == 4
    assert len(near_clip(square - [0, 0, 10])) == 0


def test_mist_takes_colours_towards_the_air():
    weather = draw_weather(np.random.default_rng(0))
    colour = np.array([10.0, 200.0, 30.0])
    np.testing.assert_allclose(mist(weather, colour, 0.0), colour)
    np.testing.assert_allclose(mist(weather, colour, 1e6), weather.air)


@pytest.mark.slow
def test_the_same_clip_is_drawn_the_same_way_and_road_users_stand_out():
    clip = draw_clip("val", 3)
    first, again = render(clip), render(clip)
    assert first == again
    pictures = decode(first)
    assert pictures.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert pictures.std() > 5
    moved = np.abs(pictures[1:].astype(int) - pictures[:-1].astype(int)).mean()
    assert moved > 0.5


@pytest.mark.slow
def test_a_stored_clip_comes_back_as_it_was(tmp_path: Path):
    write_clips(tmp_path, "val", [6])
    stored, clip = read_clip(clip_path(tmp_path, "val", 6)), draw_clip("val", 6)
    assert (stored.label, stored.toa, stored.ref, stored.type) == (clip.label, clip.toa, clip.ref, clip.type)
    np.testing.assert_array_equal(stored.seen.box, clip.seen.box)
    assert decode(stored.pictures).shape == (FRAMES, HEIGHT, WIDTH, 3)
    before = clip_path(tmp_path, "val", 6).stat().st_mtime_ns
    write_clips(tmp_path, "val", [6])
    assert clip_path(tmp_path, "val", 6).stat().st_mtime_ns == before
