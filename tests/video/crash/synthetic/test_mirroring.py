"""A mirrored scene gives the mirrored features, whatever is in it."""

import numpy as np
import torch

from mmattn.video.crash.perception.camera import HEIGHT, WIDTH
from mmattn.video.crash.perception.features import describe
from mmattn.video.crash.perception.tracking import Detections, Tracker
from mmattn.video.crash.synthetic.mirroring import WithMirrored, mirrored
from tests.video.crash.perception.test_features import VIEW


def scene(rng, count=5):
    """Returns the detections of one random frame."""
    corner = rng.uniform(0, [WIDTH - 60, HEIGHT - 60], (count, 2))
    box = np.concatenate([corner, corner + rng.uniform(5, 50, (count, 2))], 1)
    yaw = rng.uniform(-np.pi, np.pi, count)
    return Detections(
        box, rng.uniform(0.3, 1, count), rng.integers(4, size=count),
        np.stack([rng.uniform(-8, 8, count), rng.uniform(4, 50, count)], 1), np.stack([np.sin(yaw), np.cos(yaw)], 1),
        rng.uniform(0, 1, count), rng.normal(size=(count, 2)) * 4, rng.random((count, 3)) < 0.3,
    )  # fmt: skip


def in_a_mirror(seen):
    """Returns the detections of the mirrored frame."""
    turn = np.array([-1.0, 1.0])
    box = np.stack([WIDTH - seen.box[:, 2], seen.box[:, 1], WIDTH - seen.box[:, 0], seen.box[:, 3]], 1)
    return Detections(
        box, seen.score, seen.kind, seen.place * turn, seen.heading * turn, seen.lamp, seen.velocity * turn,
        seen.clipped[:, [1, 0, 2]],
    )  # fmt: skip


def test_features_of_the_mirrored_scene_are_the_mirrored_features():
    rng = np.random.default_rng(0)
    ours, theirs = Tracker(), Tracker()
    for frame in range(8):
        seen = scene(rng)
        features, order = describe(ours.update(frame / 10, seen), 9.0, -1.0, VIEW, 12)
        expected, other = describe(theirs.update(frame / 10, in_a_mirror(seen)), 9.0, -1.0, VIEW, 12)
        np.testing.assert_array_equal(order, other)
        np.testing.assert_allclose(mirrored(features), expected, atol=1e-9)
    assert np.abs(mirrored(features) - features).max() > 0.1


def test_a_mirror_before_a_mirror_shows_the_scene():
    features = np.random.default_rng(1).normal(size=(3, 87)).astype(np.float32)
    twice = mirrored(mirrored(features))
    assert twice.dtype == np.float32
    np.testing.assert_array_equal(twice, features)


def test_a_dataset_is_followed_by_its_mirror_images():
    items = [{"features": torch.randn(2, 3, 87), "label": i} for i in range(3)]
    data = WithMirrored(items)
    assert len(data) == 6
    assert torch.equal(data[1]["features"], items[1]["features"])
    np.testing.assert_array_equal(data[4]["features"].numpy(), mirrored(items[1]["features"].numpy()))
    assert [item["label"] for item in data] == [0, 1, 2, 0, 1, 2]
