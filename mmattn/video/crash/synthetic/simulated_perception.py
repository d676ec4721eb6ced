"""Perception without pictures: exact states, or exact states spoilt the way the embedded detector spoils them.

Drawing and detecting a clip takes a second, simulating it a tenth. Simulated clips can be trained on besides those the
detector really saw; the shipped model saw the latter only. The constants of :data:`FITTED` follow the errors of the
shipped detector on validation clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmattn.video.crash.perception.camera import FOCAL, HEIGHT, WIDTH
from mmattn.video.crash.perception.embedded import FrameWriter
from mmattn.video.crash.perception.protocol import FramePerception
from mmattn.video.crash.perception.tracking import KIND_NAMES, Detections
from mmattn.video.crash.synthetic.world.camera import Seen
from mmattn.video.crash.synthetic.world.physics import FPS, FRAMES

__all__ = ["EXACT", "FITTED", "DetectorNoise", "perceive"]

Array = npt.NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class DetectorNoise:
    """How a detector errs; standard deviations unless said otherwise.

    Attributes:
        miss: Share of road users that are missed however large they are.
        miss_small: Share that is missed on top of it as the smaller side goes to zero.
        small: Pixels at which that has fallen to 1/e.
        miss_hidden: Share missed on top of it as the visible part goes to zero.
        streak: Correlation of misses from frame to frame, 0 to 1.
        edge: Of a box's sides, pixels.
        edge_share: Of a box's sides, in its width or height.
        distance_bias: Of the log distance, constant for a road user in a clip.
        distance: Of the log distance, in each frame.
        bearing: Of right / forward.
        heading: Radians.
        turned: Share of road users whose heading is read the wrong way round throughout, and of single readings.
        aside_unseen: Whether it cannot be seen to which side somebody faces or moves: readings of both are zero.
        velocity: To the right, m/s.
        velocity_ahead: Forward, m/s: it can hardly be seen in two pictures.
        lamp: Share of lamps that are read wrongly.
        kind: Share of classes that are read wrongly.
        false: False boxes per frame.
        speed: Of the camera's speed in each frame, m/s.
        speed_bias: Of the camera's speed, constant in a clip, m/s.
    """

    miss: float = 0.0
    miss_small: float = 0.0
    small: float = 4.0
    miss_hidden: float = 0.0
    streak: float = 0.5
    edge: float = 0.0
    edge_share: float = 0.0
    distance_bias: float = 0.0
    distance: float = 0.0
    bearing: float = 0.0
    heading: float = 0.0
    turned: float = 0.0
    aside_unseen: bool = False
    velocity: float = 0.0
    velocity_ahead: float = 0.0
    lamp: float = 0.0
    kind: float = 0.0
    false: float = 0.0
    speed: float = 0.0
    speed_bias: float = 0.0


EXACT = DetectorNoise()
"""The ceiling: what the risk model could do if the detector never erred."""
FITTED = DetectorNoise(
    miss=0.015,
    miss_small=1.2,
    small=3.1,
    miss_hidden=1.1,
    edge=0.6,
    edge_share=0.03,
    distance_bias=0.065,
    distance=0.055,
    bearing=0.009,
    heading=0.06,
    turned=0.035,
    aside_unseen=True,
    velocity=0.1,
    velocity_ahead=3.0,
    lamp=0.02,
    kind=0.016,
    false=0.5,
    speed=1.9,
    speed_bias=1.5,
)


def perceive(seen: Seen, noise: DetectorNoise, rng: Rng, num_boxes: int) -> list[FramePerception]:
    """Returns what is perceived in every frame of a clip.

    Args:
        seen: Exact boxes and states.
        noise: How they are spoilt.
        rng: Source of randomness.
        num_boxes: Box slots N.
    """
    agents = int(seen.agent.max(initial=0)) + 1
    bias = np.exp(noise.distance_bias * rng.normal(size=agents))
    luck = rng.random(agents)
    turned = np.where(rng.random(agents) < noise.turned, np.pi, 0.0)
    offset = noise.speed_bias * rng.normal()
    writer = FrameWriter(num_boxes)
    frames = []
    for frame in range(FRAMES):
        fresh = rng.random(agents) > noise.streak
        luck = np.where(fresh, rng.random(agents), luck)
        detections = spoil(seen, seen.at(frame), noise, rng, Fate(bias, luck, turned))
        speed = float(seen.ego_speed[frame]) + offset + noise.speed * rng.normal()
        frames.append(writer.write(frame / FPS, detections, max(speed, 0.0)))
    return frames


class Fate(NamedTuple):
    """What stays with each of A road users of a clip, (A,) each.

    Attributes:
        bias: Factor on its distance.
        luck: A number in [0, 1]; low ones are missed.
        turned: Radians added to its heading.
    """

    bias: Array
    luck: Array
    turned: Array


def spoil(seen: Seen, rows: slice, noise: DetectorNoise, rng: Rng, fate: Fate) -> Detections:
    """Returns the detections of a frame.

    Args:
        seen: Exact boxes and states.
        rows: Rows of the frame.
        noise: How they are spoilt.
        rng: Source of randomness.
        fate: What stays with each road user.
    """
    box = seen.box[rows]
    side = (box[:, 2:] - box[:, :2]).min(1, initial=np.inf) if len(box) else np.zeros(0)
    agent = seen.agent[rows]
    missed = noise.miss + noise.miss_small * np.exp(-side / noise.small)
    missed = missed + noise.miss_hidden * np.square(1 - seen.visible[rows])
    keep = fate.luck[agent] >= missed
    box, side, agent = box[keep], side[keep], agent[keep]
    count = len(box)
    size = np.tile(box[:, 2:] - box[:, :2], 2)
    box = box + rng.normal(size=box.shape) * (noise.edge + noise.edge_share * size) * (noise.edge > 0)
    box[:, 2:] = np.maximum(box[:, 2:], box[:, :2] + 1.5)
    box = np.clip(box, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    place = seen.place[rows][keep]
    far = np.maximum(place[:, 1], 1.0) * fate.bias[agent] * np.exp(noise.distance * rng.normal(size=count))
    bearing = place[:, 0] / np.maximum(place[:, 1], 1.0) + noise.bearing * rng.normal(size=count)
    yaw = seen.heading[rows][keep] + fate.turned[agent] + noise.heading * rng.normal(size=count)
    yaw = yaw + np.where(rng.random(count) < noise.turned, np.pi, 0.0)
    spread = np.array([noise.velocity, noise.velocity_ahead])
    sees = np.array([0.0 if noise.aside_unseen else 1.0, 1.0])
    velocity = seen.velocity[rows][keep] * sees + spread * rng.normal(size=(count, 2))
    lamp = seen.braking[rows][keep] != (rng.random(count) < noise.lamp)
    kind = np.where(rng.random(count) < noise.kind, rng.integers(len(KIND_NAMES), size=count), seen.kind[rows][keep])
    found = Detections(
        box,
        np.clip(1 - 1.5 / np.maximum(side, 2.0) + 0.1 * rng.normal(size=count) * (noise.edge > 0), 0.3, 0.99),
        kind,
        np.stack([bearing * far, far], 1),
        np.stack([np.sin(yaw), np.cos(yaw)], 1) * sees,
        np.where(lamp, 0.9, 0.1),
        velocity,
        clipped_sides(box),
    )
    return with_false(found, int(rng.poisson(noise.false)), rng)


def with_false(found: Detections, count: int, rng: Rng) -> Detections:
    """Returns detections followed by ``count`` boxes of things that are not there."""
    if not count:
        return found
    far = np.exp(rng.uniform(np.log(8), np.log(60), count))
    bearing = rng.uniform(-0.85, 0.85, count)
    width, height = FOCAL * rng.uniform(0.6, 2.5, count) / far, FOCAL * rng.uniform(1.2, 1.8, count) / far
    u, v = WIDTH / 2 + FOCAL * bearing, 83.0 + FOCAL * 1.3 / far
    box = np.clip(np.stack([u - width / 2, v - height, u + width / 2, v], 1), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    yaw = rng.uniform(-np.pi, np.pi, count)
    extra = Detections(
        box,
        rng.uniform(0.3, 0.5, count),
        rng.integers(len(KIND_NAMES), size=count),
        np.stack([bearing * far, far], 1),
        np.stack([np.sin(yaw), np.cos(yaw)], 1),
        rng.uniform(0.0, 0.6, count),
        rng.normal(size=(count, 2)) * 4,
        clipped_sides(box),
    )
    parts = {name: np.concatenate([getattr(found, name), getattr(extra, name)]) for name in found.__dataclass_fields__}
    return Detections(**parts)


def clipped_sides(box: Array) -> npt.NDArray[np.bool_]:
    """Returns whether boxes touch the left, right and lower border, (n, 3)."""
    return np.stack([box[:, 0] <= 1, box[:, 2] >= WIDTH - 1, box[:, 3] >= HEIGHT - 1], 1)
