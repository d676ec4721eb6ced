"""The embedded perception: causal, the same in any pieces, and at home with pictures of any size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.errors import CheckpointError, InputError
from mmattn.video.crash.perception.detector import CrashDetector, DetectorOutput
from mmattn.video.crash.perception.embedded import EmbeddedPerception, letterbox
from mmattn.video.crash.perception.features import BOX_FEATURES, FEATURES
from mmattn.video.crash.perception.protocol import Perception
from mmattn.video.crash.synthetic.simulated_perception import EXACT, FITTED, perceive
from mmattn.video.crash.synthetic.world.clips import draw_clip
from mmattn.video.crash.synthetic.world.physics import FRAMES
from mmattn.video.crash.training.detector_data import targets

WIDTHS = [4, 6, 8, 8, 8]


class Oracle(CrashDetector):
    """A detector that knows the clip: the first pixel says which frame it is shown."""

    def __init__(self, clip):
        super().__init__(WIDTHS, 8)
        self.clip = clip

    def forward(self, pictures):
        frame = round(float(pictures[0, 0, 0, 0] + 0.5) * 255)
        target = targets(self.clip.seen, frame, motion=True)
        values = target["values"].clone()
        values[8] = 20 * (values[8] - 0.5)
        return DetectorOutput(
            torch.logit(target["heat"].clamp(1e-4, 1 - 1e-4))[None], values[None], target["speed"][None]
        )


@pytest.fixture(scope="module")
def clip():
    return draw_clip("val", 0)


@pytest.fixture
def random_perception():
    torch.manual_seed(0)
    detector = CrashDetector(WIDTHS, 8)
    torch.nn.init.constant_(detector.heat[-1].bias, 0.0)
    return EmbeddedPerception(detector, threshold=0.5)


def pictures(count: int, height: int = 180, width: int = 320):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def same(first, second):
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(first.valid, second.valid)
    assert first.classes == second.classes


def test_embedded_perception_keeps_the_protocol(random_perception):
    assert isinstance(random_perception, Perception)
    assert (random_perception.fps, random_perception.feature_dim, random_perception.num_boxes) == (10.0, FEATURES, 12)


def test_pushing_in_pieces_changes_nothing(random_perception):
    frames, times = pictures(7), [t / 10 for t in range(7)]
    whole = random_perception.open().push(frames, times)
    session = random_perception.open()
    pieces = (
        session.push(frames[:3], times[:3])
        + session.push(frames[3:4], times[3:4])
        + session.push(frames[4:], times[4:])
    )
    assert any(len(seen.boxes) for seen in whole)
    for a, b in zip(whole, pieces, strict=True):
        same(a, b)


def test_later_frames_change_nothing_that_was_returned(random_perception):
    frames, times = pictures(5), [t / 10 for t in range(5)]
    session = random_perception.open()
    early = session.push(frames[:3], times[:3])
    kept = [seen.features.copy() for seen in early]
    session.push(frames[3:], times[3:])
    for seen, features in zip(early, kept, strict=True):
        np.testing.assert_array_equal(seen.features, features)


def test_slots_follow_the_boxes_and_the_rest_is_empty(random_perception):
    for seen in random_perception.open().push(pictures(3), [0.0, 0.1, 0.2]):
        n = len(seen.boxes)
        assert seen.features.shape == (13, FEATURES)
        assert seen.valid.tolist() == [True] * (n + 1) + [False] * (12 - n)
        assert not seen.features[n + 1 :].any()
        assert len(seen.scores) == len(seen.classes) == n


@pytest.mark.parametrize(("height", "width"), [(640, 360), (2160, 3840), (90, 160), (1, 1)])
def test_boxes_lie_in_the_frame_whatever_its_shape(random_perception, height, width):
    (seen,) = random_perception.open().push(pictures(1, height, width), [0.0])
    assert (seen.boxes >= 0).all()
    assert (seen.boxes[:, [0, 2]] <= width).all()
    assert (seen.boxes[:, [1, 3]] <= height).all()


def test_letterbox_keeps_the_shape_of_things():
    frame = np.zeros((360, 360, 3), np.uint8)
    picture, scale, offset = letterbox(frame)
    assert picture.shape == (180, 320, 3)
    assert scale == 0.5
    assert offset.tolist() == [70, 0]
    assert (picture[:, :70] == 110).all()
    assert (picture[:, 70:250] == 0).all()


def test_a_bad_frame_is_refused_and_the_session_goes_on(random_perception):
    session, frames = random_perception.open(), pictures(3)
    session.push(frames[:1], [0.0])
    with pytest.raises(InputError, match="expected uint8 RGB"):
        session.push([frames[1].astype(np.float32)], [0.1])
    with pytest.raises(InputError, match=r"A frame at 0 s came after one at 0 s"):
        session.push(frames[1:2], [0.0])
    with pytest.raises(InputError, match="2 frames came with 1 times"):
        session.push(frames[:2], [0.1])
    (seen,) = session.push(frames[1:2], [0.1])
    same(seen, random_perception.open().push(frames[:2], [0.0, 0.1])[1])


def test_a_perfect_detector_gives_the_features_of_exact_states(clip):
    perception = EmbeddedPerception(Oracle(clip))
    marked = [np.full((180, 320, 3), frame, np.uint8) for frame in range(30)]
    seen = perception.open().push(marked, [t / 10 for t in range(30)])
    exact = perceive(clip.seen, EXACT, np.random.default_rng(0), 12)
    z = BOX_FEATURES.index("z")
    for ours, truth in zip(seen[20:], exact[20:30], strict=True):
        found = sorted(ours.features[1:, z][ours.valid[1:]])
        expected = truth.features[1:, z][truth.valid[1:]]
        assert all(np.abs(expected - value).min() < 0.02 for value in found)


def test_simulated_noise_changes_features_and_is_the_same_for_the_same_seed(clip):
    first, again = (perceive(clip.seen, FITTED, np.random.default_rng(1), 12) for _ in range(2))
    exact = perceive(clip.seen, EXACT, np.random.default_rng(1), 12)
    assert len(first) == FRAMES
    for a, b in zip(first, again, strict=True):
        same(a, b)
    assert any(not np.array_equal(a.features, c.features) for a, c in zip(first, exact, strict=True))
    assert all(np.isfinite(seen.features).all() for seen in first)


def test_a_stored_detector_is_the_same_perception(random_perception, tmp_path: Path):
    state = random_perception.detector.state_dict()
    save_checkpoint(tmp_path / "detector", state, system="crash", config={"widths": WIDTHS, "neck": 8}, card="# Test\n")
    stored = EmbeddedPerception.from_folder(tmp_path / "detector")
    stored.threshold = 0.5
    same(stored.open().push(pictures(1), [0.0])[0], random_perception.open().push(pictures(1), [0.0])[0])
    with pytest.raises(CheckpointError, match="fit"):
        EmbeddedPerception.from_tensors(state, {"widths": [4, 6, 8, 8, 12], "neck": 8})
