"""What the actors of a generated clip try to do: one function per type of conflict.

A script draws a course that would end in contact at a chosen time and then what the drivers do about it. In a collision
nobody acts, or somebody acts in the last 0.6 s; in a near miss somebody brakes, stops or swerves one to two and a half
seconds ahead of the contact that would have been; otherwise the margins are wide. This is what can be seen beforehand:
whoever is committed shows neither brake lamps nor a change of speed. Scripts only propose. What happened is decided by
:mod:`mmattn.video.crash.synthetic.world.clips` from the driven rectangles, and draws that came out differently are
thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmattn.video.crash.synthetic.world.drivers import (
    Rng,
    Wanted,
    brake,
    crossing_course,
    draw_road,
    draw_size,
    ego_vehicle,
    vehicle,
    with_crossing,
)
from mmattn.video.crash.synthetic.world.physics import (
    STATES,
    STEP,
    TIME,
    Agent,
    Array,
    Push,
    Road,
    drive,
    sidestep,
    steer,
    turn_back,
)

__all__ = ["HELD_OUT", "OTHER_TYPES", "SCRIPTS", "Draft"]

OTHER_TYPES = ("crossing_others", "rear_end_others")
"""Collisions that the ego vehicle only watches."""
HELD_OUT = "head_on"
"""Occurs in the test split "test_head_on" alone."""

_RIGHT, _LEFT, _ONCOMING = np.pi / 2, -np.pi / 2, np.pi


@dataclass(frozen=True)
class Draft:
    """A proposed course of events.

    Attributes:
        road: The road.
        agents: The actors, the ego vehicle first.
        parties: Places in ``agents`` of the two that are in conflict.
    """

    road: Road
    agents: list[Agent]
    parties: tuple[int, int]


def rear_end(rng: Rng, wanted: Wanted) -> Draft:
    """Proposes that the ego runs into the vehicle ahead, or nearly."""
    road = draw_road(rng)
    lane, speed = int(rng.integers(road.right)), rng.uniform(7, 18)
    kind, size = vehicle(rng)
    if rng.random() < 0.3:
        gap, ahead = speed * rng.uniform(2.5, 4.7), drive(0.0)
    else:
        gap = rng.uniform(5, 24)
        start = rng.uniform(0.2, 2.4)
        ahead = drive(speed + rng.uniform(-2, 1), [Push(start, start + rng.uniform(1.4, 5), -rng.uniform(3, 8))])
    closing = gap + ahead[0] - drive(speed)[0] <= 0
    impact = float(TIME[closing.argmax()]) if closing.any() else 9.0
    still = ahead[1][min(int(impact / STEP), STATES - 1)] ** 2 / 10
    aside: Array | float = 0.0
    pushes = brake(rng, wanted, impact, speed, extra=still)
    if wanted == "near" and road.right > 1 and rng.random() < 0.15:
        sign = -1.0 if lane == road.right - 1 else 1.0
        aside, pushes = sign * sidestep(road.lane_width, impact - rng.uniform(1.4, 2.2), 1.8), []
    ego = ego_vehicle(rng, road, lane, speed, pushes, aside)
    lead = steer(road, kind, size, (gap + (size.length + 4.4) / 2, road.lane(lane)), 0.0, ahead)
    return Draft(road, [ego, lead], (0, 1))


def cut_in(rng: Rng, wanted: Wanted) -> Draft:
    """Proposes that a neighbour, or a parked car, pulls in front of the ego."""
    road = draw_road(rng, lanes=2)
    lane, speed = int(rng.integers(road.right)), rng.uniform(8, 18)
    beside = lane + 1 if lane + 1 < road.right and (lane == 0 or rng.random() < 0.5) else lane - 1
    kind, size = vehicle(rng)
    impact = rng.uniform(2.0, 4.8)
    slower = rng.uniform(2.5, 8.0) if wanted != "clear" else rng.uniform(-3.0, 2.5)
    gap = slower * impact if wanted != "clear" else rng.uniform(5, 18)
    duration = rng.uniform(1.4, 2.8)
    start = max(impact - duration * rng.uniform(0.7, 1.3) - rng.uniform(0.0, 0.8), -0.5)
    shift = sidestep((lane - beside) * road.lane_width, start, duration)
    pushes = brake(rng, wanted, impact, slower) if wanted != "clear" else []
    if wanted == "near" and rng.random() < 0.3:
        shift, pushes = turn_back(shift, start + duration * rng.uniform(0.35, 0.7), 1.2), []
    if pushes and wanted == "near":
        pushes = [Push(pushes[0].start, pushes[0].start + slower / -pushes[0].acceleration, pushes[0].acceleration)]
    ego = ego_vehicle(rng, road, lane, speed, pushes)
    start_s = gap + (size.length + 4.4) / 2
    cutter = steer(road, kind, size, (start_s, road.lane(beside)), 0.0, drive(max(speed - slower, 0.0)), shift)
    return Draft(road, [ego, cutter], (0, 1))


def crossing(rng: Rng, wanted: Wanted) -> Draft:
    """Proposes that the ego and a vehicle from the side meet on an intersection."""
    road = draw_road(rng, straight=True)
    lane, speed = int(rng.integers(road.right)), rng.uniform(6, 15)
    impact = rng.uniform(2.3, 4.6)
    place = speed * impact + 2.2
    road = with_crossing(road, rng, place)
    kind, size = vehicle(rng)
    yielder = rng.choice(["other", "ego"]) if wanted != "collision" else ""
    reach = size.length / 2 + 1.2
    other_speed, pushes, distance = crossing_course(rng, wanted, impact, reach, yields=yielder == "other")
    own = brake(rng, wanted, impact - 0.9 / speed, speed) if yielder == "ego" or wanted == "collision" else []
    side = rng.choice([-1.0, 1.0])
    start = (place + rng.uniform(-0.8, 0.8), road.lane(lane) + side * distance)
    direction = _LEFT if side > 0 else _RIGHT
    other = steer(road, kind, size, start, direction, drive(other_speed, pushes))
    return Draft(road, [ego_vehicle(rng, road, lane, speed, own), other], (0, 1))


def pedestrian(rng: Rng, wanted: Wanted) -> Draft:
    """Proposes that somebody on foot or on a bicycle crosses the ego's path."""
    road = draw_road(rng, straight=rng.random() < 0.5)
    lane, speed = int(rng.integers(road.right)), rng.uniform(6, 14)
    kind = "pedestrian" if rng.random() < 0.7 else "two_wheeler"
    size = draw_size(rng, kind)
    pace = rng.uniform(1.0, 2.6) if kind == "pedestrian" else rng.uniform(2.5, 5.0)
    impact = rng.uniform(2.2, 4.7)
    late = rng.uniform(-0.35, 0.35) if wanted != "clear" else rng.choice([-1, 1]) * rng.uniform(1.0, 2.5)
    side = 1.0 if rng.random() < 0.65 else -1.0
    distance = pace * (impact + late)
    own: list[Push] = []
    steps: list[Push] = []
    yielder = rng.choice(["ego", "walker", "runner"], p=[0.5, 0.35, 0.15])
    if wanted == "collision" or yielder == "ego":
        own = brake(rng, wanted, impact, speed)
    elif yielder == "walker":
        clear_by = 0.91 + size.length / 2 + (rng.uniform(0.2, 0.8) if wanted == "near" else rng.uniform(1.2, 2.5))
        steps = [Push(impact + late - clear_by / pace - pace / 8.0, 9.0, -4.0)]
    elif wanted == "near":
        onset = impact - rng.uniform(1.0, 1.8)
        steps = [Push(onset, onset + 0.8, rng.uniform(1.5, 3.0))]
    start = (speed * impact + 2.2 + rng.uniform(-0.2, 0.5), road.lane(lane) + side * distance)
    direction = _LEFT if side > 0 else _RIGHT
    other = steer(road, kind, size, start, direction, drive(pace, steps), stopped_lamps=False)
    return Draft(road, [ego_vehicle(rng, road, lane, speed, own), other], (0, 1))


def crossing_others(rng: Rng, wanted: Wanted) -> Draft:
    """Proposes that a vehicle ahead or oncoming meets one from the side while the ego watches from behind."""
    road = draw_road(rng, straight=True)
    lane, impact = int(rng.integers(road.right)), rng.uniform(2.3, 4.6)
    oncoming = road.left > 0 and rng.random() < 0.4
    own_lane = -1 - int(rng.integers(road.left)) if oncoming else int(rng.integers(road.right))
    kind, size = vehicle(rng, ("car", "truck") if oncoming else ("car", "two_wheeler"))
    speed, watch = rng.uniform(6, 13), rng.uniform(10, 24)
    ego_speed = rng.uniform(6, 12) if oncoming else speed + rng.uniform(-1.5, 1.5)
    place = ego_speed * impact + 2.2 + watch
    road = with_crossing(road, rng, place)
    yielder = rng.choice(["crossing", "main"]) if wanted != "collision" else ""
    kind_b, size_b = vehicle(rng)
    reach = size_b.length / 2 + 1.2
    side = rng.choice([-1.0, 1.0])
    speed_b, pushes_b, distance_b = crossing_course(rng, wanted, impact, reach, yields=yielder == "crossing")
    own = brake(rng, wanted, impact - 0.9 / speed, speed) if yielder == "main" or wanted == "collision" else []
    ahead = -1.0 if oncoming else 1.0
    start = place - ahead * speed * impact
    main = steer(road, kind, size, (start, road.lane(own_lane)), _ONCOMING if oncoming else 0.0, drive(speed, own))
    second = (place + rng.uniform(-0.8, 0.8), road.lane(own_lane) + side * distance_b)
    other = steer(road, kind_b, size_b, second, _LEFT if side > 0 else _RIGHT, drive(speed_b, pushes_b))
    calm = [Push(impact - rng.uniform(0.0, 1.2), 9.0, -rng.uniform(1.5, 5.0))]
    return Draft(road, [ego_vehicle(rng, road, lane, ego_speed, calm), main, other], (1, 2))


def rear_end_others(rng: Rng, wanted: Wanted) -> Draft:
    """Proposes that one vehicle ahead runs into another, in a lane beside the ego's."""
    road = draw_road(rng, lanes=2)
    lane = int(rng.integers(road.right))
    beside = lane + 1 if lane + 1 < road.right and (lane == 0 or rng.random() < 0.5) else lane - 1
    speed = rng.uniform(7, 15)
    kind, size = vehicle(rng, ("car", "two_wheeler"))
    kind_b, size_b = vehicle(rng)
    watch = rng.uniform(3, 14)
    gap, start = rng.uniform(5, 18), rng.uniform(0.2, 2.2)
    if rng.random() < 0.35:
        gap, ahead = speed * rng.uniform(2.5, 4.6), drive(0.0)
    else:
        ahead = drive(speed + rng.uniform(-2, 1), [Push(start, start + rng.uniform(1.4, 5), -rng.uniform(3, 8))])
    closing = gap + ahead[0] - drive(speed)[0] <= 0
    impact = float(TIME[closing.argmax()]) if closing.any() else 9.0
    still = ahead[1][min(int(impact / STEP), STATES - 1)] ** 2 / 10
    behind = drive(speed, brake(rng, wanted, impact, speed, extra=still))
    first_s = 2.2 + watch + size.length / 2
    follower = steer(road, kind, size, (first_s, road.lane(beside)), 0.0, behind)
    second_s = first_s + gap + (size.length + size_b.length) / 2
    leader = steer(road, kind_b, size_b, (second_s, road.lane(beside)), 0.0, ahead)
    calm = [Push(impact - rng.uniform(-0.2, 1.5), 9.0, -rng.uniform(0.5, 4.0))] if rng.random() < 0.7 else []
    ego = ego_vehicle(rng, road, lane, speed + rng.uniform(-1.5, 0.5), calm)
    return Draft(road, [ego, follower, leader], (1, 2))


def head_on(rng: Rng, wanted: Wanted) -> Draft:
    """Proposes that an oncoming vehicle drifts into the ego's lane."""
    road = draw_road(rng, two_way=True)
    speed, other_speed = rng.uniform(6, 15), rng.uniform(6, 15)
    kind, size = vehicle(rng)
    impact = rng.uniform(2.2, 4.6)
    gap = (speed + other_speed) * impact
    duration = rng.uniform(1.2, 2.6)
    start = impact - duration * rng.uniform(0.8, 1.4)
    # Right-hand traffic: an oncoming vehicle that leaves its lane moves to its own left.
    amount = -road.lane_width * (rng.uniform(0.75, 1.05) if wanted != "clear" else rng.uniform(0.1, 0.35))
    drift: Array = sidestep(amount, start, duration)
    own: list[Push] = []
    aside: Array | float = 0.0
    if wanted == "collision":
        own = brake(rng, wanted, impact, speed)
    elif wanted == "near" and rng.random() < 0.6:
        drift = turn_back(drift, impact - rng.uniform(0.9, 1.5), rng.uniform(0.8, 1.1))
    elif wanted == "near":
        aside = sidestep(rng.uniform(1.2, 2.4), impact - rng.uniform(1.0, 1.7), 1.1)
        own = [Push(impact - rng.uniform(0.9, 1.5), 9.0, -rng.uniform(3, 7))]
    start_at = (gap + (size.length + 4.4) / 2, road.lane(-1))
    other = steer(road, kind, size, start_at, _ONCOMING, drive(other_speed), drift)
    return Draft(road, [ego_vehicle(rng, road, 0, speed, own, aside), other], (0, 1))


def normal(rng: Rng, wanted: Wanted) -> Draft:
    """Proposes quiet traffic: following, soft braking, a vehicle waiting at the side."""
    road = draw_road(rng)
    lane, speed = int(rng.integers(road.right)), rng.uniform(0, 16)
    start = rng.uniform(0.0, 3.5)
    pushes = [Push(start, start + rng.uniform(0.8, 3.0), rng.choice([-1, 1]) * rng.uniform(0.5, 3.0))]
    kind, size = vehicle(rng)
    gap = rng.uniform(10, 35)
    react = rng.uniform(0.4, 0.9)
    lead = drive(speed + rng.uniform(-0.5, 1.5), pushes)
    own = [Push(pushes[0].start + react, pushes[0].end + react, pushes[0].acceleration * rng.uniform(0.9, 1.2))]
    other = steer(road, kind, size, (gap + (size.length + 4.4) / 2, road.lane(lane)), 0.0, lead)
    return Draft(road, [ego_vehicle(rng, road, lane, speed, own), other], (0, 1))


SCRIPTS: dict[str, Callable[[Rng, Wanted], Draft]] = {
    "rear_end": rear_end,
    "cut_in": cut_in,
    "crossing": crossing,
    "pedestrian": pedestrian,
    "crossing_others": crossing_others,
    "rear_end_others": rear_end_others,
    "head_on": head_on,
    "normal": normal,
}
