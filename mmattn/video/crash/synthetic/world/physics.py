"""The physics of the generated dashcam clips: a road, road users on it, and the tests that decide what happened.

The ground is a plane with x to the right and z forward of where the ego vehicle starts; yaw turns clockwise from z
to x. A road is a circular arc with road coordinates s (along) and d (to the right of its middle), both in metres.
Whether a clip shows an accident is decided by :func:`overlap` of the driven rectangles, never by the script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "FPS",
    "FRAMES",
    "KINDS",
    "STATES",
    "STEP",
    "TIME",
    "Agent",
    "Push",
    "Road",
    "Size",
    "drive",
    "overlap",
    "sidestep",
    "steer",
    "time_to_contact",
    "turn_back",
]

Array = npt.NDArray[np.float64]

STEP = 0.05
"""Seconds between simulated states."""
STATES = 101
FPS = 10
FRAMES = 50
"""A clip has 50 frames, every second of its first hundred states."""

KINDS = ("car", "truck", "two_wheeler", "pedestrian")
HORIZON = 3.5
"""Longest time to collision that is looked for, in seconds."""

_LAMP = -0.8
TIME: Array = np.asarray(np.arange(STATES) * STEP, np.float64)
"""Seconds since the start at every state."""


class Size(NamedTuple):
    """Length, width and height of a road user, in metres."""

    length: float
    width: float
    height: float


class Push(NamedTuple):
    """A constant acceleration (m/s2) between two times (s)."""

    start: float
    end: float
    acceleration: float


@dataclass(frozen=True)
class Road:
    """A road of constant curvature.

    Attributes:
        curvature: 1/m, positive bends to the right.
        lane_width: Metres.
        right: Lanes in the ego's direction.
        left: Oncoming lanes; 0 is a one-way road.
        parking: Width of a parking strip on the right, metres; 0 for none.
        crossing: s of the middle of an intersecting road, or None.
        crossing_width: Metres.
    """

    curvature: float
    lane_width: float
    right: int
    left: int
    parking: float = 0.0
    crossing: float | None = None
    crossing_width: float = 0.0

    @property
    def edge_right(self) -> float:
        """Returns d of the right kerb."""
        return self.right * self.lane_width + self.parking

    @property
    def edge_left(self) -> float:
        """Returns d of the left kerb."""
        return -self.left * self.lane_width

    def lane(self, index: int) -> float:
        """Returns d of the middle of a lane: 0, 1, ... in the ego's direction, -1, -2, ... oncoming."""
        return (index + 0.5) * self.lane_width

    def to_ground(self, s: Array, d: Array) -> Array:
        """Returns x, z and the road's yaw at road coordinates, (..., 3)."""
        turn = self.curvature * s
        if abs(self.curvature) < 1e-9:
            return np.stack(np.broadcast_arrays(d, s, turn), -1)
        x = (1 - np.cos(turn)) / self.curvature + d * np.cos(turn)
        z = np.sin(turn) / self.curvature - d * np.sin(turn)
        return np.stack(np.broadcast_arrays(x, z, turn), -1)

    def progress(self, x: float, z: float) -> float:
        """Returns s of a ground point near the road."""
        if abs(self.curvature) < 1e-9:
            return z
        side = float(np.sign(self.curvature))
        return float(np.arctan2(side * z, side * (1 / self.curvature - x))) / self.curvature


@dataclass(frozen=True)
class Agent:
    """A road user and all it does in a clip.

    Attributes:
        kind: One of :data:`KINDS`.
        size: Its box.
        pose: x, z, yaw of its centre at every state, (STATES, 3).
        speed: Forward speed, m/s, (STATES,).
        braking: Whether its brake lamps are lit, (STATES,).
        parked: Never moves.
        colour: Seed of its looks.
    """

    kind: str
    size: Size
    pose: Array
    speed: Array
    braking: npt.NDArray[np.bool_]
    parked: bool = False
    colour: int = 0

    @property
    def velocity(self) -> Array:
        """Returns the velocity on the ground by backward differences, m/s, (STATES, 2); the first equals the second."""
        difference = np.diff(self.pose[:, :2], axis=0) / STEP
        return np.concatenate([difference[:1], difference])


def drive(speed: float, pushes: Sequence[Push] = ()) -> tuple[Array, Array, Array]:
    """Returns distance (m), speed (m/s) and acceleration (m/s2) at every state, (STATES,) each.

    The speed never falls below zero: a vehicle that brakes to a stop stays.

    >>> distance, speed, _ = drive(5.0, [Push(0.0, 9.0, -5.0)])
    >>> float(distance[-1].round(1)), float(speed[-1])
    (2.5, 0.0)
    """
    wanted = np.zeros(STATES)
    for push in pushes:
        wanted[(push.start <= TIME) & (push.end > TIME)] += push.acceleration
    free = speed + np.concatenate([[0.0], np.cumsum(wanted[:-1])]) * STEP
    actual = free - np.minimum(0.0, np.minimum.accumulate(free))
    distance = np.concatenate([[0.0], np.cumsum((actual[1:] + actual[:-1]) / 2)]) * STEP
    return distance, actual, np.where((actual <= 0) & (wanted < 0), 0.0, wanted)


def sidestep(amount: float, start: float, duration: float) -> Array:
    """Returns a smooth sideways move of ``amount`` metres, (STATES,)."""
    share = np.clip((TIME - start) / duration, 0.0, 1.0)
    return amount * share**2 * (3 - 2 * share)


def turn_back(move: Array, at: float, duration: float) -> Array:
    """Returns a sideways move that is given up at a time and undone within ``duration`` seconds, (STATES,)."""
    reached = float(np.interp(at, TIME, move))
    return np.where(at < TIME, reached, move) - sidestep(reached, at, duration)


def steer(
    road: Road,
    kind: str,
    size: Size,
    start: tuple[float, float],
    direction: float,
    motion: tuple[Array, Array, Array],
    across: Array | float = 0.0,
    *,
    stopped_lamps: bool = True,
    colour: int = 0,
) -> Agent:
    """Makes an agent that drives along a direction of the road.

    Args:
        road: Where it drives.
        kind: One of :data:`KINDS`.
        size: Its box.
        start: s and d at the first state.
        direction: 0 with the ego, pi against it, pi/2 to the right, -pi/2 to the left.
        motion: What :func:`drive` returned, (n,) each.
        across: Metres to the right of its own direction, at every state.
        stopped_lamps: Whether its brake lamps stay lit while it stands.
        colour: Seed of its looks.
    """
    distance, speed, acceleration = motion
    side = np.broadcast_to(np.asarray(across, float), (STATES,))
    forward_s, forward_d = np.cos(direction), np.sin(direction)
    s = start[0] + distance * forward_s - side * forward_d
    d = start[1] + distance * forward_d + side * forward_s
    pose = road.to_ground(s, d)
    drift = np.gradient(side, STEP)
    pose[:, 2] += direction + np.where(speed > 0.3, np.arctan2(drift, np.maximum(speed, 2.0)), 0.0)
    lit = (acceleration < _LAMP) | ((speed < 0.2) & stopped_lamps)
    return Agent(kind, size, pose, speed, lit, colour=colour)


def overlap(first: Array, first_size: Size, second: Array, second_size: Size) -> npt.NDArray[np.bool_]:
    """Returns whether two oriented rectangles overlap, by the separating-axis test.

    Args:
        first: x, z, yaw of their centres, (..., 3).
        first_size: Length and width count.
        second: As ``first``, broadcast against it.
        second_size: As ``first_size``.
    """
    dx, dz = second[..., 0] - first[..., 0], second[..., 1] - first[..., 1]
    turn = second[..., 2] - first[..., 2]
    along, aside = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    apart = np.zeros(np.broadcast_shapes(dx.shape, turn.shape), bool)
    for yaw, own, other in ((first[..., 2], first_size, second_size), (second[..., 2], second_size, first_size)):
        ahead = np.abs(dx * np.sin(yaw) + dz * np.cos(yaw))
        beside = np.abs(dx * np.cos(yaw) - dz * np.sin(yaw))
        apart |= ahead > (own.length + other.length * along + other.width * aside) / 2
        apart |= beside > (own.width + other.length * aside + other.width * along) / 2
    return ~apart


_AHEAD: Array = np.arange(0.0, HORIZON + 0.05, 0.1)


def time_to_contact(first: Agent, second: Agent) -> Array:
    """Returns the time until two agents would touch if both kept their velocity, in seconds, at every frame.

    Steps of 0.1 s up to 3.5 s; infinity when they would not touch. (FRAMES,).
    """
    times = np.full(FRAMES, np.inf)
    frames = np.arange(FRAMES) * 2
    a, b = first.pose[frames], second.pose[frames]
    va, vb = first.velocity[frames], second.velocity[frames]
    # Only frames that could touch at all are worth the test of 36 future rectangles.
    gap, closing = b[:, :2] - a[:, :2], vb - va
    reach = (np.hypot(*first.size[:2]) + np.hypot(*second.size[:2])) / 2
    square = np.maximum((closing**2).sum(1), 1e-9)
    nearest = np.clip(-(gap * closing).sum(1) / square, 0.0, HORIZON)
    near = np.linalg.norm(gap + nearest[:, None] * closing, axis=1) < reach
    if not near.any():
        return times
    a, b, va, vb = a[near], b[near], va[near], vb[near]
    later_a = np.repeat(a[:, None], len(_AHEAD), 1)
    later_b = np.repeat(b[:, None], len(_AHEAD), 1)
    later_a[..., :2] += va[:, None] * _AHEAD[:, None]
    later_b[..., :2] += vb[:, None] * _AHEAD[:, None]
    touch = overlap(later_a, first.size, later_b, second.size)
    times[near] = np.where(touch.any(1), _AHEAD[touch.argmax(1)], np.inf)
    return times
