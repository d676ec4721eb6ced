"""The rest of the traffic of a generated clip: parked, oncoming and neighbouring vehicles, people on the pavement."""

from __future__ import annotations

import numpy as np

from mmattn.video.crash.synthetic.world.drivers import draw_size
from mmattn.video.crash.synthetic.world.physics import (
    TIME,
    Agent,
    Array,
    Road,
    Size,
    drive,
    overlap,
    steer,
    time_to_contact,
)

__all__ = ["add_background"]

Rng = np.random.Generator
_KINDS, _SHARES = ("car", "truck", "two_wheeler"), (0.78, 0.12, 0.1)
_ROOM = 0.4
_QUIET = 1.6
_STILL = drive(0.0)


def add_background(rng: Rng, road: Road, actors: list[Agent], until: int) -> list[Agent]:
    """Returns the actors followed by bystanders that stay out of their way.

    A bystander is left out when it touches anybody (with 0.4 m of room) or, unless it is parked, comes within 1.6 s of
    a collision with an actor.

    Args:
        rng: Source of randomness.
        road: The road.
        actors: Those in the script, the ego vehicle first.
        until: States that count.
    """
    agents = list(actors)
    for bystander in candidates(rng, road, actors[0]):
        wide = Size(bystander.size.length + 2 * _ROOM, bystander.size.width + _ROOM, bystander.size.height)
        touches = (overlap(bystander.pose[:until], wide, other.pose[:until], other.size).any() for other in agents)
        if any(touches):
            continue
        moving = not bystander.parked
        if moving and min(time_to_contact(bystander, actor)[: until // 2].min() for actor in actors) < _QUIET:
            continue
        agents.append(bystander)
    return agents


def candidates(rng: Rng, road: Road, ego: Agent) -> list[Agent]:
    """Draws bystanders that have not been checked yet."""
    flow = float(np.clip(ego.speed[0] + rng.uniform(-2, 2), 3.0, 16.0))
    found = [*parked(rng, road), *walkers(rng, road)]
    for lane in range(road.right):
        if rng.random() < 0.6:
            found.append(moving(rng, road, lane, rng.uniform(-6, 45), flow + rng.uniform(-3, 3), 0.0))
    for lane in range(-1, -road.left - 1, -1):
        for _ in range(int(rng.integers(0, 3))):
            found.append(moving(rng, road, lane, rng.uniform(15, 130), flow + rng.uniform(-2, 4), np.pi))
    if road.crossing is not None and rng.random() < 0.5:
        found.append(waiting(rng, road, road.crossing))
    return found


def pick(rng: Rng) -> tuple[str, Size]:
    """Draws a kind of vehicle and its box."""
    kind = str(rng.choice(_KINDS, p=_SHARES))
    return kind, draw_size(rng, kind)


def moving(rng: Rng, road: Road, lane: int, s: float, speed: float, direction: float) -> Agent:
    """Draws a vehicle that keeps its lane and speed."""
    kind, size = pick(rng)
    weave: Array = rng.uniform(0.0, 0.12) * np.sin(2 * np.pi * (TIME / rng.uniform(3, 6) + rng.random()))
    return steer(road, kind, size, (s, road.lane(lane)), direction, drive(max(speed, 1.0)), weave)


def waiting(rng: Rng, road: Road, crossing: float) -> Agent:
    """Draws a vehicle that waits on the intersecting road."""
    kind, size = pick(rng)
    right = rng.random() < 0.5
    edge = road.edge_right if right else road.edge_left
    sign = 1.0 if right else -1.0
    start = (crossing + sign * 1.8, edge + sign * (size.length / 2 + rng.uniform(0.8, 3.0)))
    return steer(road, kind, size, start, -np.pi / 2 if right else np.pi / 2, _STILL)


def parked(rng: Rng, road: Road) -> list[Agent]:
    """Draws a row of parked vehicles where the road has a strip for them."""
    found: list[Agent] = []
    if not road.parking or rng.random() < 0.15:
        return found
    side, s = road.right * road.lane_width + road.parking / 2, rng.uniform(-4, 8)
    while s < 75:
        at_crossing = road.crossing is not None and abs(s - road.crossing) < road.crossing_width / 2 + 6
        if rng.random() < 0.6 and not at_crossing:
            kind = "car" if rng.random() < 0.92 else "truck"
            agent = steer(road, kind, draw_size(rng, kind), (s, side), 0.0, _STILL, stopped_lamps=False)
            found.append(Agent(agent.kind, agent.size, agent.pose, agent.speed, agent.braking, True, agent.colour))
        s += rng.uniform(6.5, 13)
    return found


def walkers(rng: Rng, road: Road) -> list[Agent]:
    """Draws people on the pavements, most of them walking along."""
    found = []
    for _ in range(int(rng.integers(0, 4))):
        right = rng.random() < 0.6
        d = road.edge_right + rng.uniform(0.8, 2.5) if right else road.edge_left - rng.uniform(0.8, 2.5)
        pace = 0.0 if rng.random() < 0.25 else rng.uniform(0.8, 1.6)
        direction = rng.choice([0.0, np.pi])
        start = (rng.uniform(4, 60), d)
        size = draw_size(rng, "pedestrian")
        found.append(steer(road, "pedestrian", size, start, direction, drive(pace), stopped_lamps=False))
    return found
