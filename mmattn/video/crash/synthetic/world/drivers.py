"""Roads, vehicles and drivers of the generated clips: what the scripts of conflicts are made of."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mmattn.video.crash.synthetic.world.physics import TIME, Agent, Array, Push, Road, Size, drive, steer

__all__ = ["Rng", "Wanted", "brake", "crossing_course", "draw_road", "draw_size", "ego_vehicle", "vehicle",
           "with_crossing"]  # fmt: skip

Rng = np.random.Generator
Wanted = Literal["collision", "near", "clear"]
"""The outcome that a script aims at."""

_VEHICLES, _VEHICLE_SHARES = ("car", "truck", "two_wheeler"), (0.76, 0.12, 0.12)


def draw_size(rng: Rng, kind: str) -> Size:
    """Draws the box of a road user."""
    if kind == "car":
        return Size(rng.uniform(3.8, 4.9), rng.uniform(1.7, 1.95), rng.uniform(1.4, 1.8))
    if kind == "truck":
        return Size(rng.uniform(6.5, 10.5), rng.uniform(2.2, 2.5), rng.uniform(2.6, 3.5))
    if kind == "two_wheeler":
        return Size(rng.uniform(1.7, 2.1), rng.uniform(0.55, 0.8), rng.uniform(1.5, 1.8))
    return Size(rng.uniform(0.4, 0.6), rng.uniform(0.5, 0.7), rng.uniform(1.5, 1.9))


def draw_road(rng: Rng, *, straight: bool = False, lanes: int = 1, two_way: bool = False) -> Road:
    """Draws a road with at least ``lanes`` lanes in the ego's direction."""
    curvature = 0.0 if straight or rng.random() < 0.35 else rng.uniform(-1, 1) / 120
    left = 0 if not two_way and rng.random() < 0.25 else int(rng.integers(1, 3))
    parking = 2.4 if rng.random() < 0.5 else 0.0
    right = int(rng.integers(lanes, 4)) if lanes > 1 else int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
    return Road(curvature, rng.uniform(3.2, 3.7), right, left, parking)


def with_crossing(road: Road, rng: Rng, s: float) -> Road:
    """Returns the road with an intersecting one at ``s``."""
    return Road(road.curvature, road.lane_width, road.right, road.left, road.parking, s, rng.uniform(6.5, 9.0))


def ego_vehicle(
    rng: Rng, road: Road, lane: int, speed: float, pushes: list[Push], across: Array | float = 0.0
) -> Agent:
    """Makes the vehicle that carries the camera, weaving a little in its lane, ``across`` (n,) metres beside it."""
    weave = rng.uniform(0.02, 0.12) * np.sin(2 * np.pi * (TIME / rng.uniform(3, 6) + rng.random()))
    size = Size(4.4, 1.82, 1.5)
    return steer(road, "car", size, (0.0, road.lane(lane)), 0.0, drive(speed, pushes), weave + across)


def vehicle(rng: Rng, kinds: tuple[str, ...] = _VEHICLES) -> tuple[str, Size]:
    """Draws a kind of vehicle and its box."""
    shares = np.array([_VEHICLE_SHARES[_VEHICLES.index(kind)] for kind in kinds])
    kind = str(rng.choice(kinds, p=shares / shares.sum()))
    return kind, draw_size(rng, kind)


def brake(rng: Rng, wanted: Wanted, impact: float, speed: float, *, extra: float = 0.0) -> list[Push]:
    """Draws how a driver brakes for a contact that is due at ``impact`` seconds.

    Args:
        rng: Source of randomness.
        wanted: "collision": not at all, or in the last 0.6 s. "near": to a stop shortly before the place of contact.
            "clear": to a stop well before it.
        impact: Time of the contact, s.
        speed: Speed of the driver, m/s.
        extra: Metres the obstacle still moves on after ``impact``.
    """
    if wanted == "collision":
        if rng.random() < 0.55:
            return []
        return [Push(impact - rng.uniform(0.15, 0.6), 9.0, -rng.uniform(3.5, 9.0))]
    near = wanted == "near"
    onset = max(impact - (rng.uniform(1.3, 2.7) if near else rng.uniform(2.2, 3.4)), 0.0)
    margin = rng.uniform(0.2, 2.2) if near else rng.uniform(3.0, 8.0)
    room = max(speed * (impact - onset) + extra - margin, 0.5)
    return [Push(onset, 9.0, -float(np.clip(speed**2 / (2 * room), 2.0, 9.5)))]


def crossing_course(
    rng: Rng, wanted: Wanted, impact: float, reach: float, *, yields: bool
) -> tuple[float, list[Push], float]:
    """Draws speed, braking and starting distance of a driver on the crossing road.

    Args:
        rng: Source of randomness.
        wanted: The outcome aimed at.
        impact: Time at which it should be at the place of contact, s.
        reach: Half a length plus the width to keep clear, m: where its centre stops if it stops in time.
        yields: Whether this driver is the one who avoids the contact.
    """
    late = rng.uniform(-0.3, 0.3) if wanted != "clear" or yields else rng.choice([-1, 1]) * rng.uniform(1.2, 2.6)
    if rng.random() < 0.3:  # waits at the line and pulls out
        pull, line = rng.uniform(2.0, 3.5), reach + rng.uniform(1.0, 4.0)
        go = impact + late - float(np.sqrt(2 * line / pull))
        pushes = [Push(go, 9.0, pull)]
        if yields:
            halt = go + rng.uniform(0.3, 0.9) * float(np.sqrt(line / pull))
            pushes = [Push(go, halt, pull), Push(halt, 9.0, -rng.uniform(4, 7))]
        return 0.0, pushes, line
    speed = rng.uniform(5, 13)
    distance = speed * (impact + late)
    if not yields:
        return speed, brake(rng, "collision", impact, speed) if wanted == "collision" else [], distance
    stop = brake(rng, wanted, impact - reach / speed, speed)
    return speed, stop, distance
