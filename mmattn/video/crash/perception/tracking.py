"""Tracks of road users: which box of this frame continues which track, and how each road user moves on the ground.

A detection carries a box, a distance and a few more measurements; a track fits position, velocity and acceleration
relative to the camera to those of the last 1.4 s, as the mode of a Gaussian posterior:

    a ~ N(0, 3 m/s2)    v ~ N(0, 15 m/s)    position_k ~ N(p + v t_k + a t_k^2 / 2, s_k)    velocity_k ~ N(v + a t_k, r)

with t_k <= 0 the age of a measurement. Everything is causal and takes constant time per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["HISTORY", "KIND_NAMES", "Detections", "Tracker", "Tracks"]

Array = npt.NDArray[np.float64]

KIND_NAMES = ("car", "truck", "two_wheeler", "pedestrian")
HISTORY = 14
"""Measurements a track remembers; 1.4 s at 10 frames/s."""

_CAPACITY = 48
_MISSED = 0.35
_ACCEPT = -0.45
_ASIDE = np.array([2.0, 1.7, 0.95, np.inf])
"""A box wider than this many heights shows its road user from the side, by class; one on foot looks alike all round."""
_PRIOR_VELOCITY, _PRIOR_ACCELERATION = 15.0, 3.0
_NEAREST = 1.0


@dataclass(frozen=True)
class Detections:
    """What was detected in one frame of W x H pixels.

    Attributes:
        box: x1, y1, x2, y2, pixels, (n, 4).
        score: Confidence in [0, 1], (n,).
        kind: Index into KIND_NAMES, (n,).
        place: Right and forward of the camera, metres, (n, 2).
        heading: Sine and cosine of the yaw relative to the camera, shorter than 1 where it is uncertain, (n, 2).
        lamp: Probability that brake lamps are lit, (n,).
        velocity: Relative to the camera, right and forward, m/s, (n, 2).
        clipped: Whether the box touches the left, right and lower border, (n, 3).
    """

    box: Array
    score: Array
    kind: npt.NDArray[np.int64]
    place: Array
    heading: Array
    lamp: Array
    velocity: Array
    clipped: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Tracks:
    """The road users followed at one moment, at most 0.35 s after their last detection.

    Attributes:
        number: Identity, (n,).
        box: Last box, moved on to this moment, pixels, (n, 4).
        score: Of the last detection, (n,).
        kind: Class shares over the life of the track, (n, 4).
        position: Right and forward of the camera, m, (n, 2).
        velocity: Relative, m/s, (n, 2).
        acceleration: Relative, m/s2, (n, 2).
        heading: Sine and cosine of the mean yaw, (n, 2).
        lamp: Brake lamps now, in the last half second and in the half second before, (n, 3).
        image: Rates over the last 0.4 s: centre u, bottom v (box widths/s), log width, log height (1/s), (n, 4).
        clipped: (n, 3).
        age: Seconds since the first detection, (n,).
        missed: Seconds since the last detection, (n,).
    """

    number: npt.NDArray[np.int64]
    box: Array
    score: Array
    kind: Array
    position: Array
    velocity: Array
    acceleration: Array
    heading: Array
    lamp: Array
    image: Array
    clipped: npt.NDArray[np.bool_]
    age: Array
    missed: Array

    def __len__(self) -> int:
        return len(self.number)


class Tracker:
    """Follows road users from frame to frame; greedy association by overlap, distance and class.

    Args:
        velocity_noise: Standard deviations of a detection's own velocity, right and forward, m/s.
    """

    def __init__(self, velocity_noise: tuple[float, float] = (5.0, 5.0)) -> None:
        self.velocity_noise = velocity_noise
        self._next = 0
        self._number = np.full(_CAPACITY, -1)
        self._time = np.full((_CAPACITY, HISTORY), -np.inf)
        self._box = np.zeros((_CAPACITY, HISTORY, 4))
        self._place = np.zeros((_CAPACITY, HISTORY, 2))
        self._velocity = np.zeros((_CAPACITY, HISTORY, 2))
        self._heading = np.zeros((_CAPACITY, HISTORY, 2))
        self._aside = np.zeros((_CAPACITY, HISTORY))
        self._lamp = np.zeros((_CAPACITY, HISTORY))
        self._kind = np.zeros((_CAPACITY, len(KIND_NAMES)))
        self._log_size = np.zeros((_CAPACITY, 2))
        self._score = np.zeros(_CAPACITY)
        self._clipped = np.zeros((_CAPACITY, 3), bool)
        self._born = np.zeros(_CAPACITY)

    def update(self, time: float, detections: Detections) -> Tracks:
        """Takes the detections of the next frame and returns the tracks at its time.

        Args:
            time: Seconds; never goes back.
            detections: What was detected.
        """
        alive = np.flatnonzero((self._number >= 0) & (time - self._time[:, -1] <= _MISSED))
        self._number[np.setdiff1d(np.arange(_CAPACITY), alive)] = -1
        pairs = self._associate(alive, time, detections)
        matched = np.array([slot for slot, _ in pairs], int)
        rows = np.array([row for _, row in pairs], int)
        new = np.setdiff1d(np.arange(len(detections.box)), rows)
        free = np.flatnonzero(self._number < 0)[: len(new)]
        new = new[np.argsort(-detections.score[new], kind="stable")][: len(free)]
        self._start(free[: len(new)], time)
        slots = np.concatenate([matched, free[: len(new)]])
        self._append(slots, np.concatenate([rows, new]), time, detections)
        return self._describe(np.sort(np.concatenate([alive, free[: len(new)]])), time)

    def _associate(self, alive: npt.NDArray[np.int64], time: float, d: Detections) -> list[tuple[int, int]]:
        if not len(alive) or not len(d.box):
            return []
        ahead = self._predicted_box(alive, time)
        score = affinity(ahead, d.box)
        score -= 0.15 * (self._kind[alive].argmax(1)[:, None] != d.kind)
        far = np.maximum(self._place[alive, -1, 1], _NEAREST)[:, None], np.maximum(d.place[:, 1], _NEAREST)
        score -= 0.3 * np.abs(np.log(far[0] / far[1]))
        pairs = []
        for flat in np.argsort(-score, axis=None, kind="stable"):
            track, row = divmod(int(flat), score.shape[1])
            if score[track, row] < _ACCEPT:
                break
            if not np.isfinite(score[track, row]):
                continue
            pairs.append((int(alive[track]), row))
            score[track], score[:, row] = -np.inf, -np.inf
        return pairs

    def _predicted_box(self, slots: npt.NDArray[np.int64], time: float) -> Array:
        last, before = self._box[slots, -1], self._box[slots, -2]
        step = self._time[slots, -1] - self._time[slots, -2]
        known = np.isfinite(step) & (step > 0)
        share = np.where(known, (time - self._time[slots, -1]) / np.where(known, step, 1.0), 0.0)
        return last + np.clip(share, 0.0, 2.0)[:, None] * (last - before)

    def _start(self, slots: npt.NDArray[np.int64], time: float) -> None:
        self._number[slots] = self._next + np.arange(len(slots))
        self._next += len(slots)
        self._time[slots] = -np.inf
        self._kind[slots] = 0.0
        self._log_size[slots] = 0.0
        self._born[slots] = time

    def _append(self, slots: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], time: float, d: Detections) -> None:
        for store in (self._time, self._box, self._place, self._velocity, self._heading, self._aside, self._lamp):
            store[slots, :-1] = store[slots, 1:]
        whole = ~d.clipped[rows].any(1)
        size = np.maximum(d.box[rows, 2:] - d.box[rows, :2], 1.0)
        aside = whole & (size[:, 0] > _ASIDE[d.kind[rows]] * size[:, 1])
        height = np.log(size[:, 1])
        far = np.log(np.maximum(d.place[rows, 1], _NEAREST))
        self._log_size[slots, 0] += whole * (height + far)
        self._log_size[slots, 1] += whole
        # A road user keeps its size: half of the distance comes from the height of the box, once the size is known.
        usual = self._log_size[slots, 0] / np.maximum(self._log_size[slots, 1], 1)
        fused = np.where(whole, 0.5 * far + 0.5 * (usual - height), far)
        scale = np.exp(fused - far)
        self._time[slots, -1] = time
        self._box[slots, -1] = d.box[rows]
        self._place[slots, -1] = d.place[rows] * scale[:, None]
        self._velocity[slots, -1] = d.velocity[rows]
        self._heading[slots, -1] = np.where(aside[:, None], 0.0, d.heading[rows])
        self._aside[slots, -1] = aside
        self._lamp[slots, -1] = d.lamp[rows]
        self._kind[slots] *= 0.9
        self._kind[slots, d.kind[rows]] += 1.0
        self._score[slots] = d.score[rows]
        self._clipped[slots] = d.clipped[rows]

    def _describe(self, slots: npt.NDArray[np.int64], time: float) -> Tracks:
        age = np.where(np.isfinite(self._time[slots]), self._time[slots] - time, 0.0)
        known = np.isfinite(self._time[slots])
        position, velocity, acceleration = self._fit(slots, age, known)
        recent = known & (age > -0.55)
        earlier = known & ~recent
        lamp = self._lamp[slots]
        now = lamp[:, -1]
        lamps = np.stack([now, share(lamp, recent, now), share(lamp, earlier, now)], 1)
        weight = known & (age > -0.75)
        heading = (self._heading[slots] * weight[..., None]).sum(1)
        # Seen from the side, somebody faces where the track goes; boxes do not tell front from rear.
        heading[:, 0] += np.where(velocity[:, 0] < 0, -1.0, 1.0) * (self._aside[slots] * weight).sum(1)
        heading /= np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-6)
        return Tracks(
            self._number[slots].copy(),
            self._predicted_box(slots, time),
            self._score[slots].copy(),
            self._kind[slots] / np.maximum(self._kind[slots].sum(1, keepdims=True), 1e-6),
            position,
            velocity,
            acceleration,
            heading,
            lamps,
            self._image_rates(slots, age, known),
            self._clipped[slots].copy(),
            time - self._born[slots],
            time - self._time[slots, -1],
        )

    def _fit(
        self, slots: npt.NDArray[np.int64], age: Array, known: npt.NDArray[np.bool_]
    ) -> tuple[Array, Array, Array]:
        """Returns position, velocity and acceleration of the posterior's mode, (n, 2) each."""
        place = np.where(known[..., None], self._place[slots], 0.0)
        far = np.maximum(place[..., 1], _NEAREST)
        precision = known[..., None] / np.stack([0.1 + 0.012 * far, 0.3 + 0.045 * far], -1) ** 2
        rate = known[..., None] / np.square(self.velocity_noise)
        basis = np.stack([np.ones_like(age), age, age**2 / 2], -1)
        slope = np.stack([np.zeros_like(age), np.ones_like(age), age], -1)
        matrix = np.einsum("nki,nkc,nkj->ncij", basis, precision, basis)
        matrix += np.einsum("nki,nkc,nkj->ncij", slope, rate, slope)
        matrix += np.diag([1e-6, _PRIOR_VELOCITY**-2, _PRIOR_ACCELERATION**-2])
        target = np.einsum("nki,nkc,nkc->nci", basis, precision, place)
        target += np.einsum("nki,nkc,nkc->nci", slope, rate, np.where(known[..., None], self._velocity[slots], 0.0))
        solution = np.linalg.solve(matrix, target[..., None])[..., 0]
        return solution[..., 0], solution[..., 1], solution[..., 2]

    def _image_rates(self, slots: npt.NDArray[np.int64], age: Array, known: npt.NDArray[np.bool_]) -> Array:
        box = self._box[slots]
        width, height = np.maximum(box[..., 2] - box[..., 0], 1.0), np.maximum(box[..., 3] - box[..., 1], 1.0)
        last = width[:, -1:]
        centre = (box[..., 0] + box[..., 2]) / 2
        series = np.stack([centre / last, box[..., 3] / last, np.log(width), np.log(height)], -1)
        weight = (known & (age > -0.45)).astype(float)
        total = np.maximum(weight.sum(1, keepdims=True), 1.0)
        middle = (weight * age).sum(1, keepdims=True) / total
        mean = (weight[..., None] * series).sum(1, keepdims=True) / total[..., None]
        lever = weight * (age - middle)
        spread = (lever**2).sum(1)
        slope = (lever[..., None] * (series - mean)).sum(1)
        return np.where(spread[:, None] > 1e-6, slope / np.maximum(spread, 1e-6)[:, None], 0.0)


def share(values: Array, weight: npt.NDArray[np.bool_], otherwise: Array) -> Array:
    """Returns (K,) the mean of the weighted values (K, M) of each row, or ``otherwise`` where nothing has weight."""
    total = weight.sum(1)
    return np.where(total > 0, (values * weight).sum(1) / np.maximum(total, 1), otherwise)


def affinity(first: Array, second: Array) -> Array:
    """Returns overlap (IoU) minus 0.35 times the distance of centres in box sizes, (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.maximum(high - low, 0).prod(-1)
    area_a = np.maximum(first[:, 2:] - first[:, :2], 1e-3).prod(-1)
    area_b = np.maximum(second[:, 2:] - second[:, :2], 1e-3).prod(-1)
    centres = (first[:, None, :2] + first[:, None, 2:] - second[None, :, :2] - second[None, :, 2:]) / 2
    size = np.sqrt(np.sqrt(area_a)[:, None] * np.sqrt(area_b)[None])
    overlap: Array = common / np.maximum(area_a[:, None] + area_b - common, 1e-6)
    return overlap - 0.35 * np.linalg.norm(centres, axis=-1) / size
