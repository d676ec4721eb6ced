"""The generated dashcam clips that the embedded CRASH model is trained and tested on.

A clip is 5 s at 10 frames/s, 320 x 180. It follows from a split and a number alone. Every third clip shows an accident;
of the others 45 % come within one second of a collision, 30 % are the same situations with wide margins, 25 % quiet
traffic. The label is decided by the driven rectangles. Seeds of the splits never meet, and collisions with oncoming
vehicles occur in one test split only.

Numbers measured on these clips are numbers on generated data: a simulator is not the road.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmattn.video.crash.synthetic.world.background import add_background
from mmattn.video.crash.synthetic.world.camera import Camera, Seen, draw_camera, look
from mmattn.video.crash.synthetic.world.drivers import Wanted
from mmattn.video.crash.synthetic.world.physics import FRAMES, STATES, STEP, Agent, Road, overlap, time_to_contact
from mmattn.video.crash.synthetic.world.scenarios import HELD_OUT, SCRIPTS, Draft

__all__ = ["SPLITS", "TYPES", "DrawnClip", "Split", "draw_clip", "plan"]

TYPES: dict[str, float] = {
    "rear_end": 0.18,
    "cut_in": 0.16,
    "crossing": 0.19,
    "pedestrian": 0.15,
    "crossing_others": 0.18,
    "rear_end_others": 0.14,
}
"""Types of conflict in training and the main test, with their shares."""

NEAR = (0.3, 1.0)
"""Shortest time to collision of a near miss, seconds."""

_FIRST, _LAST = 20, 48
_COMMITTED = 12
_SLOWEST = 1.5
_TRIES = 4000


class Split(NamedTuple):
    """First seed of a split, and whether it shows the held-out type alone."""

    first_seed: int
    held_out: bool = False


SPLITS: dict[str, Split] = {
    "train": Split(10_000_000),
    "detector": Split(20_000_000),
    "val": Split(30_000_000),
    "test": Split(40_000_000),
    "test_head_on": Split(50_000_000, held_out=True),
}
"""Clips of the risk model, frames of the detector, validation (thresholds, epochs), the main test, the unseen type."""


@dataclass(frozen=True)
class DrawnClip:
    """A generated clip, not yet drawn.

    Attributes:
        seed: Seed it follows from.
        type: Key of SCRIPTS.
        outcome: "collision", "near" or "clear".
        road: The road.
        agents: All road users, the ego vehicle first; a place in this list is an identity.
        parties: The two in conflict.
        accident: Frame of first contact, or None.
        ref: Frame of the accident, else of the shortest time to collision (a random one without any).
        ttc: Shortest time to collision over the clip, s; 0 for accidents.
        camera: The camera.
        seen: Exact boxes and states of what is visible; agent numbers are places in ``agents``.
    """

    seed: int
    type: str
    outcome: str
    road: Road
    agents: list[Agent]
    parties: tuple[int, int]
    accident: int | None
    ref: int
    ttc: float
    camera: Camera
    seen: Seen

    @property
    def label(self) -> int:
        """Returns 1 for an accident, else 0."""
        return int(self.accident is not None)

    @property
    def toa(self) -> float:
        """Returns the number of frames before the accident, or FRAMES + 1."""
        return float(FRAMES + 1 if self.accident is None else self.accident)


def plan(split: str, number: int) -> tuple[int, str, Wanted]:
    """Returns seed, type and outcome of a clip of a split.

    >>> plan("val", 0)[0], [plan("val", i)[2] for i in (0, 1, 2, 3)]
    (30000000, ['collision', 'near', 'clear', 'collision'])

    Raises:
        ValueError: If the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}.")
    seed = SPLITS[split].first_seed + number
    rng = np.random.default_rng([seed, 1])
    negative = number - number // 3 - 1
    turn = negative * 9 % 20
    outcome: Wanted = "collision" if number % 3 == 0 else "near" if turn < 9 else "clear"
    if outcome == "clear" and turn >= 15:
        return seed, "normal", "clear"
    if SPLITS[split].held_out:
        return seed, HELD_OUT, outcome
    return seed, str(rng.choice(list(TYPES), p=list(TYPES.values()))), outcome


def draw_clip(split: str, number: int) -> DrawnClip:
    """Draws a clip without its pictures: what everybody does, and what the camera sees of it.

    Raises:
        ValueError: If the split is unknown.
        RuntimeError: If no draw of its seed came out as wanted.
    """
    seed, kind, wanted = plan(split, number)
    rng = np.random.default_rng([seed, 0])
    for _ in range(_TRIES):
        draft = SCRIPTS[kind](rng, wanted)
        verdict = judge(draft, wanted, quiet=kind == "normal")
        if verdict is None:
            continue
        contact, ref, ttc = verdict
        agents = add_background(rng, draft.road, draft.agents, STATES if contact is None else contact + 2)
        accident = None
        if contact is not None:
            accident = contact // 2
            agents = wreck(agents, draft.parties, contact)
        camera = draw_camera(rng, agents[0])
        seen = look(camera, agents)
        if wanted != "clear" and not both_visible(seen, draft.parties, ref):
            continue
        if ref < 0:
            ref = int(rng.integers(_FIRST, _LAST + 1))
        return DrawnClip(seed, kind, wanted, draft.road, agents, draft.parties, accident, ref, ttc, camera, seen)
    raise RuntimeError(f"No {wanted} clip of type {kind} came out in {_TRIES} draws of seed {seed}.")


def judge(draft: Draft, wanted: Wanted, *, quiet: bool) -> tuple[int | None, int, float] | None:
    """Returns first state of contact, reference frame (-1: none), shortest time to collision; None if not wanted.

    Args:
        draft: The driven proposal.
        wanted: The outcome asked for.
        quiet: Whether even a second and a half to a collision is too close.
    """
    agents = draft.agents
    first = STATES
    for i, j in combinations(range(len(agents)), 2):
        touch = overlap(agents[i].pose, agents[i].size, agents[j].pose, agents[j].size)
        if touch.any():
            if wanted != "collision":
                return None
            state = int(touch.argmax())
            if (i, j) != draft.parties and state <= first + 4:
                return None
            first = state if (i, j) == draft.parties else first
    times = time_to_contact(agents[draft.parties[0]], agents[draft.parties[1]])
    if wanted == "collision":
        return committed(draft, first, times)
    for i, j in combinations(range(len(agents)), 2):
        if (i, j) != draft.parties:
            times = np.minimum(times, time_to_contact(agents[i], agents[j]))
    closest, ttc = int(times.argmin()), float(times.min())
    if wanted == "near":
        good = NEAR[0] <= ttc < NEAR[1] and _FIRST <= closest <= _LAST
        return (None, closest, ttc) if good else None
    if ttc < (1.5 if quiet else NEAR[1]):
        return None
    return None, closest if np.isfinite(ttc) and _FIRST <= closest <= _LAST else -1, ttc


def committed(draft: Draft, state: int, times: npt.NDArray[np.float64]) -> tuple[int, int, float] | None:
    """Returns the verdict on a collision; None unless it is fast enough and the course to it was set 1.2 s before.

    Args:
        draft: What everybody does.
        state: Of the contact.
        times: (n,) times to collision, s.
    """
    frame = state // 2
    if not _FIRST <= frame <= _LAST:
        return None
    a, b = (draft.agents[i] for i in draft.parties)
    if np.linalg.norm(a.velocity[state] - b.velocity[state]) < _SLOWEST:
        return None
    course = np.isfinite(times[max(frame - _COMMITTED, 0) : frame])
    return (state, frame, 0.0) if course.mean() >= 0.8 else None


def wreck(agents: list[Agent], parties: tuple[int, int], state: int) -> list[Agent]:
    """Returns the agents with the two that collided sliding on together and stopping within a second."""
    a, b = (agents[i] for i in parties)
    common = (a.velocity[state] + b.velocity[state]) / 2
    later = np.arange(1, STATES - state) * STEP
    slide = 0.3 * (1 - np.exp(-later / 0.3))
    changed = list(agents)
    for place in parties:
        agent = agents[place]
        pose, speed = agent.pose.copy(), agent.speed.copy()
        pose[state + 1 :, :2] = pose[state, :2] + slide[:, None] * common
        pose[state + 1 :, 2] = pose[state, 2]
        speed[state + 1 :] = np.linalg.norm(common) * np.exp(-later / 0.3)
        changed[place] = replace(agent, pose=pose, speed=speed)
    return changed


def both_visible(seen: Seen, parties: tuple[int, int], ref: int) -> bool:
    """Returns whether the parties (but the ego) are seen in 80 % of the 1.2 s before ``ref``."""
    window = (seen.frame >= ref - _COMMITTED) & (seen.frame < ref)
    counts = [int((window & (seen.agent == party) & (seen.visible > 0.25)).sum()) for party in parties if party != 0]
    return min(counts) >= 0.8 * _COMMITTED
