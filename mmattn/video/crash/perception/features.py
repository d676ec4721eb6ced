"""Features of tracked road users and of pairs of them: what the risk model reads of a frame.

Every road user is a capsule on the ground. Its future is looked at under two hypotheses, constant velocity and constant
acceleration: the gap to the ego vehicle at a few moments ahead, and the gap to the other road user it comes closest to.
A collision between two others ahead is thus as visible as one with the ego. Lamps, headings and speeds over ground say
whether somebody is about to give way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmattn.video.crash.perception.tracking import KIND_NAMES, Tracks

__all__ = ["BOX_FEATURES", "FEATURES", "FRAME_FEATURES", "View", "describe"]

Array = npt.NDArray[np.float64]

_AHEAD: Array = np.array([0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.6])
_LENGTH, _WIDTH = np.array([4.3, 8.5, 1.9, 0.6]), np.array([1.8, 2.35, 0.75, 0.6])
_EGO_LENGTH, _EGO_WIDTH, _EGO_BACK = 4.4, 1.82, 0.5
_GAP_SCALE = 4.0
_FAR = 30.0

_GEOMETRY = (
    "u",
    "bottom",
    "log_width",
    "log_height",
    "clip_left",
    "clip_right",
    "clip_bottom",
    "score",
    "age",
    "missed",
)
_STATE = (
    "x",
    "z",
    "log_z",
    "vx",
    "vz",
    "ax",
    "az",
    "sin",
    "cos",
    "speed",
    "speed_change",
    "lamp",
    "lamp_on",
    "lamp_before",
)
_IMAGE = ("u_rate", "v_rate", "width_rate", "height_rate", "approach")


def _profile(name: str) -> tuple[str, ...]:
    return (*(f"{name}_{t:.1f}" for t in _AHEAD), f"{name}_least", f"{name}_when", f"{name}_danger")


_PARTNER = ("partner", "partner_distance", "partner_closing", "partner_speed", "partner_change", "partner_lamp",
            "partner_az", "partner_z")  # fmt: skip
BOX_FEATURES = (
    *_GEOMETRY,
    *KIND_NAMES,
    *_STATE,
    *_IMAGE,
    *_profile("ego_steady"),
    *_profile("ego_accelerated"),
    *_profile("pair_steady"),
    *_profile("pair_accelerated"),
    *_PARTNER,
)
"""Names of the features of a box."""
FRAME_FEATURES = ("frame", "count", "ego_speed", "ego_change", "ego_danger", "pair_danger")
"""Names of the features of the frame; they follow those of the boxes, which are zero for the frame and the reverse."""
FEATURES = len(BOX_FEATURES) + len(FRAME_FEATURES)


@dataclass(frozen=True)
class View:
    """The picture boxes are given in: width, height and the row of the horizon, pixels."""

    width: float
    height: float
    horizon: float


def describe(
    tracks: Tracks, ego_speed: float, ego_change: float, view: View, slots: int
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Returns the features of a frame and the tracks that have a slot in it.

    The most endangered road users get the slots.

    Args:
        tracks: Road users followed at this moment.
        ego_speed: Speed of the camera, m/s.
        ego_change: Its change in the last half second, m/s2.
        view: The picture.
        slots: Number of boxes N.

    Returns:
        Features (n + 1, F), n <= N, the frame first; places in ``tracks`` of the n boxes, (n,).
    """
    count = len(tracks)
    features = np.zeros((count + 1, FEATURES))
    frame = features[0, len(BOX_FEATURES) :]
    frame[:] = [1.0, count / 10, ego_speed / 10, ego_change / 5, 0.0, 0.0]
    if not count:
        return features, np.zeros(0, int)
    steady, accelerated = futures(tracks)
    kind = tracks.kind.argmax(1)
    ends = capsules(tracks.heading, kind)
    ego = [profile(ego_gap(path, ends, kind)) for path in (steady, accelerated)]
    gaps = [pair_gaps(path, ends, kind) for path in (steady, accelerated)]
    partner = partners(gaps[0], gaps[1])
    rows = np.arange(count)
    pair = [profile(gap[rows, partner]) if count > 1 else profile(np.full((count, len(_AHEAD)), _FAR)) for gap in gaps]
    speed, change = over_ground(tracks, ego_speed, ego_change)
    blocks = [
        geometry(tracks, view),
        tracks.kind,
        state(tracks, speed, change),
        image(tracks),
        *ego,
        *pair,
        partner_features(tracks, partner, speed, change),
    ]
    features[1:, : len(BOX_FEATURES)] = np.concatenate(blocks, 1)
    danger = np.stack([np.maximum(ego[0][:, -1], ego[1][:, -1]), np.maximum(pair[0][:, -1], pair[1][:, -1])], 1)
    frame[4:] = danger.max(0)
    order = np.argsort(-danger.max(1) - 1e-3 / np.maximum(tracks.position[:, 1], 1.0), kind="stable")[:slots]
    return features[np.concatenate([[0], order + 1])], order


def futures(tracks: Tracks) -> tuple[Array, Array]:
    """Returns where the road users will be relative to the camera, steady and accelerated, (n, A, 2) each."""
    steady = tracks.position[:, None] + tracks.velocity[:, None] * _AHEAD[:, None]
    # An acceleration does not last: it is taken to fade within about a second and a half.
    lasting = np.where(_AHEAD < 1.5, _AHEAD**2 / 2, 1.125 + 1.5 * (_AHEAD - 1.5))
    return steady, steady + tracks.acceleration[:, None] * lasting[:, None]


def capsules(heading: Array, kind: npt.NDArray[np.int64]) -> Array:
    """Returns the two points of each capsule's axis relative to its middle, (n, 2, 2)."""
    reach = np.maximum(_LENGTH[kind] - _WIDTH[kind], 0.0) / 2
    return reach[:, None, None] * np.stack([heading, -heading], 1)


def ego_gap(path: Array, ends: Array, kind: npt.NDArray[np.int64]) -> Array:
    """Returns the gap between each road user and the ego vehicle along a path (n, A, 2), metres, (n, A)."""
    points = path[:, :, None] + ends[:, None]  # (n, A, 2 ends, 2)
    points = np.concatenate([points, path[:, :, None]], 2)
    aside = np.maximum(np.abs(points[..., 0]) - _EGO_WIDTH / 2, 0.0)
    ahead = np.maximum(np.abs(points[..., 1] + _EGO_BACK) - _EGO_LENGTH / 2, 0.0)
    gap: Array = np.hypot(aside, ahead).min(2) - _WIDTH[kind][:, None] / 2
    return np.clip(gap, -1.0, _FAR)


def pair_gaps(path: Array, ends: Array, kind: npt.NDArray[np.int64]) -> Array:
    """Returns the gaps between all pairs along their paths, metres, (n, n, A); a road user is far from itself."""
    points = np.concatenate([path[:, :, None] + ends[:, None], path[:, :, None]], 2)  # (n, A, 3, 2)
    difference = points[:, None, :, :, None] - points[None, :, :, None]
    distance = np.linalg.norm(difference, axis=-1).min((-1, -2))
    gap: Array = distance - (_WIDTH[kind][:, None] + _WIDTH[kind][None])[..., None] / 2
    gap[np.arange(len(path)), np.arange(len(path))] = _FAR
    return np.clip(gap, -1.0, _FAR)


def danger_of(gap: Array) -> Array:
    """Returns how near and how soon two paths come, in [0, 1], from gaps (..., A).

    exp(-gap / 1.5 m - t / 1.5 s) at the worst moment; a tenth of it where the gap does not shrink, because parked
    vehicles and queues are close without getting closer.
    """
    worst = np.exp(-np.maximum(gap, 0.0) / 1.5 - _AHEAD / 1.5).max(-1)
    nearing = np.clip((gap[..., 0] - gap.min(-1)) / 2.0, 0.0, 1.0)
    danger: Array = worst * (0.1 + 0.9 * nearing)
    return danger


def profile(gap: Array) -> Array:
    """Returns gaps (n, A) as features: squashed gaps, the least, when, and the danger, (n, A + 3)."""
    least = gap.argmin(1)
    smallest = np.tanh(gap.min(1) / _GAP_SCALE)
    return np.concatenate([np.tanh(gap / _GAP_SCALE), np.stack([smallest, _AHEAD[least] / 2, danger_of(gap)], 1)], 1)


def partners(steady: Array, accelerated: Array) -> npt.NDArray[np.int64]:
    """Returns the other road user that each one endangers most, (n,), from gaps (n, n, A)."""
    found: npt.NDArray[np.int64] = np.maximum(danger_of(steady), danger_of(accelerated)).argmax(1)
    return found


def over_ground(tracks: Tracks, ego_speed: float, ego_change: float) -> tuple[Array, Array]:
    """Returns speed over ground and its change along each road user's own heading, m/s and m/s2, (n,) each."""
    velocity = tracks.velocity + np.array([0.0, ego_speed])
    acceleration = tracks.acceleration + np.array([0.0, ego_change])
    return (velocity * tracks.heading).sum(1), (acceleration * tracks.heading).sum(1)


def geometry(tracks: Tracks, view: View) -> Array:
    """Returns place and size of K boxes in the picture, and how well the track is known, (K, F)."""
    x1, y1, x2, y2 = tracks.box.T
    columns = [
        (x1 + x2) / view.width - 1,
        (y2 - view.horizon) / (view.height - view.horizon),
        np.log(np.maximum(x2 - x1, 1.0) / view.width) / 2 + 1,
        np.log(np.maximum(y2 - y1, 1.0) / view.height) / 2 + 1,
        *tracks.clipped.T.astype(float),
        tracks.score,
        np.minimum(tracks.age, 1.5),
        tracks.missed / 0.35,
    ]
    return np.stack(columns, 1)


def state(tracks: Tracks, speed: Array, change: Array) -> Array:
    """Returns the kinematic state (K, F) of K road users; speed and its change are (K, 2) over ground, m/s and m/s2."""
    x, z = tracks.position.T
    columns = [
        np.tanh(x / 10) * 2,
        z / 30,
        np.log(np.maximum(z, 1.0)) / 3,
        np.clip(tracks.velocity[:, 0] / 8, -3, 3),
        np.clip(tracks.velocity[:, 1] / 8, -3, 3),
        np.clip(tracks.acceleration[:, 0] / 4, -2, 2),
        np.clip(tracks.acceleration[:, 1] / 4, -2, 2),
        *tracks.heading.T,
        np.clip(speed / 8, -3, 3),
        np.clip(change / 4, -2, 2),
        *tracks.lamp.T,
    ]
    return np.stack(columns, 1)


def image(tracks: Tracks) -> Array:
    """Returns movement in the picture, and the inverse of the time to collision along the road, (K, F)."""
    approach = np.clip(-tracks.velocity[:, 1] / np.maximum(tracks.position[:, 1] - 1.7, 0.5), -2, 3)
    return np.concatenate([np.clip(tracks.image, -3, 3), approach[:, None]], 1)


def partner_features(tracks: Tracks, partner: npt.NDArray[np.int64], speed: Array, change: Array) -> Array:
    """Returns what each road user's partner does, (K, F); zero when it is alone.

    Args:
        tracks: K road users.
        partner: (K,) number of the other one.
        speed: (K, 2) over ground, m/s.
        change: (K, 2) its change, m/s2.
    """
    if len(tracks) < 2:
        return np.zeros((len(tracks), len(_PARTNER)))
    offset = tracks.position[partner] - tracks.position
    moving = tracks.velocity[partner] - tracks.velocity
    distance = np.maximum(np.linalg.norm(offset, axis=1), 0.5)
    closing = -(offset * moving).sum(1) / distance
    columns = [
        np.ones(len(tracks)),
        np.tanh(distance / 10),
        np.clip(closing / 8, -2, 2),
        np.clip(speed[partner] / 8, -3, 3),
        np.clip(change[partner] / 4, -2, 2),
        tracks.lamp[partner, 1],
        np.clip(tracks.acceleration[partner, 1] / 4, -2, 2),
        tracks.position[partner, 1] / 30,
    ]
    return np.stack(columns, 1)
