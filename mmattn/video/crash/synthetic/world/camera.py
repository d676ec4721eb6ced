"""What the camera of a generated clip sees: exact boxes, distances and visibility of every road user in every frame.

The camera sits behind the windscreen of the ego vehicle. It looks along the vehicle's heading and shakes a little;
braking pitches it down. Small angles: pitch and yaw of the camera move the picture without distorting it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmattn.video.crash.perception.camera import FOCAL, HEIGHT, HORIZON_ROW, WIDTH
from mmattn.video.crash.synthetic.world.physics import FRAMES, KINDS, STEP, Agent, Array

__all__ = ["Camera", "Seen", "draw_camera", "look"]

_AHEAD_OF_CENTRE = 0.5
_NEAREST = 0.35
_FARTHEST = 80.0
_COARSE = 4
_MARGIN, _INSIDE = 8.0, 0.15
_EDGE: npt.NDArray[np.float64] = np.linspace(-1, 1, 9)
_ONE: npt.NDArray[np.float64] = np.ones(9)
_AROUND: npt.NDArray[np.float64] = np.concatenate(
    [np.stack(pair, 1) for pair in ((_EDGE, _ONE), (_EDGE, -_ONE), (_ONE, _EDGE), (-_ONE, _EDGE))]
)

Rng = np.random.Generator


@dataclass(frozen=True)
class Camera:
    """A camera and its movement.

    Attributes:
        focal: Pixels.
        height: Metres above the ground.
        horizon: Row of the horizon at rest, pixels.
        place: x, z, yaw of the camera at every frame, (FRAMES, 3).
        tilt: How far the picture is moved by pitch and shake, right and down, pixels, (FRAMES, 2).
    """

    focal: float
    height: float
    horizon: float
    place: Array
    tilt: Array

    def to_view(self, points: Array, frame: int) -> Array:
        """Returns ground points x, z (..., 2) as right, forward of the camera in metres, (..., 2)."""
        x, z, yaw = self.place[frame]
        dx, dz = points[..., 0] - x, points[..., 1] - z
        return np.stack([dx * np.cos(yaw) - dz * np.sin(yaw), dx * np.sin(yaw) + dz * np.cos(yaw)], -1)

    def project(self, right: Array, up: Array | float, forward: Array, frame: int) -> Array:
        """Returns u, v of points in metres from the camera's foot, (..., 2); what is behind is pulled in front."""
        scale = self.focal / np.maximum(forward, _NEAREST)
        points = np.empty((*right.shape, 2))
        points[..., 0] = WIDTH / 2 + self.tilt[frame, 0] + scale * right
        points[..., 1] = self.horizon + self.tilt[frame, 1] + scale * (self.height - up)
        return points


@dataclass(frozen=True)
class Seen:
    """Everything that can be seen in a clip, one row per road user and frame.

    Attributes:
        frame: Frame of each row, ascending, (M,).
        agent: Place of the road user in the scene's list, which is its identity, (M,).
        box: x1, y1, x2, y2 inside the picture, pixels, (M, 4).
        kind: Index into KINDS, (M,).
        place: Right and forward of the camera, the middle of its footprint, metres, (M, 2).
        heading: Yaw relative to the camera, radians, (M,).
        velocity: Relative to the camera's axes and motion, m/s, right and forward, (M, 2).
        braking: Lamps lit, (M,).
        visible: Share of the box that nothing nearer covers, (M,).
        ego_speed: Of the camera at every frame, m/s, (FRAMES,).
    """

    frame: npt.NDArray[np.int64]
    agent: npt.NDArray[np.int64]
    box: Array
    kind: npt.NDArray[np.int64]
    place: Array
    heading: Array
    velocity: Array
    braking: npt.NDArray[np.bool_]
    visible: Array
    ego_speed: Array

    def at(self, frame: int) -> slice:
        """Returns the rows of a frame."""
        return slice(*np.searchsorted(self.frame, [frame, frame + 1]))


def draw_camera(rng: Rng, ego: Agent) -> Camera:
    """Draws the camera of an ego vehicle: height and focal length vary by a few per cent, shake by the road."""
    pose = ego.pose[: 2 * FRAMES : 2]
    place = pose.copy()
    place[:, 0] += _AHEAD_OF_CENTRE * np.sin(pose[:, 2])
    place[:, 1] += _AHEAD_OF_CENTRE * np.cos(pose[:, 2])
    focal = FOCAL * rng.uniform(0.96, 1.04)
    acceleration = np.gradient(ego.speed, STEP)
    # Springs: the body follows the acceleration within about a quarter of a second.
    dive = np.convolve(np.concatenate([np.full(4, acceleration[0]), acceleration]), np.full(5, 0.2), "valid")
    shake = rng.choice([0.0, 0.002, 0.005]) * rng.normal(size=(FRAMES, 2)) * [0.5, 1.0]
    tilt = focal * shake
    # The nose dives when braking: the picture moves up.
    tilt[:, 1] += focal * 0.0035 * dive[: 2 * FRAMES : 2]
    return Camera(focal, rng.uniform(1.2, 1.45), HORIZON_ROW + rng.uniform(-4, 4), place, tilt)


def look(camera: Camera, agents: Sequence[Agent]) -> Seen:
    """Returns what the camera sees of ``agents``, of which the first carries it.

    Left out are road users whose box is under 2.5 pixels, farther away than 80 m, mostly outside the picture, or
    covered by more than 80 % by nearer boxes.
    """
    rows: list[tuple[npt.NDArray[np.int64], Array, Array, Array, Array, int, int]] = []
    frames = np.arange(FRAMES)
    yaw = camera.place[:, 2]
    cosine, sine = np.cos(yaw), np.sin(yaw)
    own = agents[0].velocity[: 2 * FRAMES : 2]
    for index, agent in enumerate(agents[1:], 1):
        pose, velocity = agent.pose[: 2 * FRAMES : 2], agent.velocity[: 2 * FRAMES : 2] - own
        offset = pose[:, :2] - camera.place[:, :2]
        right = offset[:, 0] * cosine - offset[:, 1] * sine
        forward = offset[:, 0] * sine + offset[:, 1] * cosine
        heading = pose[:, 2] - yaw
        boxes, inside = project_box(camera, right, forward, heading, agent)
        keep = frames[inside & (forward < _FARTHEST)]
        sideways = velocity[:, 0] * cosine - velocity[:, 1] * sine
        moved = np.stack([sideways, velocity[:, 0] * sine + velocity[:, 1] * cosine], 1)
        place = np.stack([right, forward], 1)
        rows.append((keep, boxes[keep], place[keep], heading[keep], moved[keep], KINDS.index(agent.kind), index))
    return arrange(rows, agents, agents[0].speed[: 2 * FRAMES : 2])


def project_box(
    camera: Camera, right: Array, forward: Array, heading: Array, agent: Agent
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Returns the boxes of an agent in all frames (FRAMES, 4), and in which frames they count."""
    # Points all around the footprint: beside the camera only what lies inside the picture may stretch the box.
    along = _AROUND[:, 0] * agent.size.length / 2
    across = _AROUND[:, 1] * agent.size.width / 2
    point_r = right[:, None] + along * np.sin(heading)[:, None] + across * np.cos(heading)[:, None]
    point_f = forward[:, None] + along * np.cos(heading)[:, None] - across * np.sin(heading)[:, None]
    depth = np.maximum(point_f, _NEAREST)
    u = WIDTH / 2 + camera.focal * point_r / depth + camera.tilt[:, :1]
    inside = (point_f > _NEAREST) & (u > -_MARGIN) & (u < WIDTH + _MARGIN)
    top = camera.horizon + camera.focal * (camera.height - agent.size.height) / depth + camera.tilt[:, 1:]
    bottom = camera.horizon + camera.focal * camera.height / depth + camera.tilt[:, 1:]
    box = np.stack(
        [
            np.where(inside, u, np.inf).min(1),
            np.where(inside, top, np.inf).min(1),
            np.where(inside, u, -np.inf).max(1),
            np.where(inside, bottom, -np.inf).max(1),
        ],
        1,
    )
    box = np.clip(box, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    sides = box[:, 2:] - box[:, :2]
    return box, (inside.mean(1) > _INSIDE) & (sides.min(1) >= 2.5)


def arrange(
    rows: list[tuple[npt.NDArray[np.int64], Array, Array, Array, Array, int, int]],
    agents: Sequence[Agent],
    ego_speed: Array,
) -> Seen:
    """Sorts the rows of all agents, arrays (n, ...) each, by frame and leaves out what nearer boxes cover."""
    frame = np.concatenate([r[0] for r in rows])
    agent = np.concatenate([np.full(len(r[0]), r[6]) for r in rows])
    kind = np.concatenate([np.full(len(r[0]), r[5]) for r in rows])
    box, place, heading, velocity = (np.concatenate([r[i] for r in rows]) for i in (1, 2, 3, 4))
    order = np.lexsort((agent, frame))
    frame, agent, kind = frame[order], agent[order], kind[order]
    box, place, heading, velocity = box[order], place[order], heading[order], velocity[order]
    visible = uncovered(frame, box, place[:, 1])
    lamps = np.stack([a.braking[: 2 * FRAMES : 2] for a in agents]) if agents else np.zeros((0, FRAMES), bool)
    keep = visible > 0.2
    return Seen(
        frame[keep],
        agent[keep],
        box[keep],
        kind[keep],
        place[keep],
        heading[keep],
        velocity[keep],
        lamps[agent, frame][keep],
        visible[keep],
        ego_speed,
    )


def uncovered(frame: npt.NDArray[np.int64], box: Array, distance: Array) -> Array:
    """Returns (n,) the share of each box (n, 4) that no nearer box of its frame covers, on a grid of 2 x 2 pixels."""
    share = np.ones(len(frame))
    coarse = np.rint(box / _COARSE * 2).astype(int)
    grid = np.full((HEIGHT * 2 // _COARSE, WIDTH * 2 // _COARSE), -1, np.int16)
    for number in np.unique(frame):
        rows = np.flatnonzero(frame == number)
        grid.fill(-1)
        for row in rows[np.argsort(-distance[rows])]:
            x1, y1, x2, y2 = coarse[row]
            grid[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = row
        for row in rows:
            x1, y1, x2, y2 = coarse[row]
            area = grid[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
            share[row] = float((area == row).mean()) if area.size else 0.0
    return share
