"""Random test sets for the accident metrics."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

__all__ = ["Clips", "clip_sets", "random_clips"]


class Clips(NamedTuple):
    scores: npt.NDArray[np.float64]  # (N, T)
    labels: npt.NDArray[np.int64]  # (N,)
    toas: npt.NDArray[np.int64]  # (N,), T + 1 for a clip without accident

    def permuted(self, order: npt.NDArray[np.int64]) -> "Clips":
        return Clips(self.scores[order], self.labels[order], self.toas[order])


def random_clips(
    seed: int,
    *,
    count: int = 12,
    frames: int = 10,
    grid: int | None = None,
    accidents: float = 0.5,
    skill: float = 0.4,
) -> Clips:
    """Returns risks that rise towards the accident; ``grid`` rounds them, so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < accidents).astype(np.int64)
    toas = np.where(labels == 1, rng.integers(1, frames + 1, count), frames + 1)
    near = np.exp(-np.maximum(toas[:, None] - np.arange(frames), 0) / frames * 3) * labels[:, None]
    scores = np.clip(rng.random((count, frames)) * (1 - skill) + skill * near, 0.0, 1.0)
    return Clips(scores if grid is None else np.round(scores * grid) / grid, labels, toas)


@st.composite
def clip_sets(draw: st.DrawFn, *, both_kinds: bool = False) -> Clips:
    """Draws test sets of 1 to 12 clips, T from 1 on, with ties and with scores of exactly 0 and 1 among them."""
    clips = random_clips(
        draw(st.integers(0, 2**31)),
        count=draw(st.integers(2 if both_kinds else 1, 12)),
        frames=draw(st.integers(1, 8)),
        grid=draw(st.sampled_from([None, 2, 10, 500])),
        accidents=draw(st.sampled_from([0.2, 0.5, 0.9])),
        skill=draw(st.sampled_from([0.0, 0.5])),
    )
    if both_kinds:
        clips.labels[:2] = 0, 1
        clips.toas[:2] = clips.scores.shape[1] + 1, clips.scores.shape[1]
    return clips
