"""The generated pictures that the embedded Crane model is trained and tested on.

A drawing is a material texture or a manufactured object. It is photographed twice, flawless and with one drawn
defect, under the same light; everything follows from a category, a defect and a seed. The splits below are fixed by
name: a test picture shows a category *and* a defect that neither training stage draws.

Numbers measured on these pictures are numbers on generated data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mmattn.drawing.camera import Light, draw_light, photograph
from mmattn.drawing.fields import SIZE, Rng
from mmattn.drawing.materials import MATERIALS
from mmattn.drawing.objects import OBJECTS, draw_object
from mmattn.media.files import write_bytes
from mmattn.vision.crane.synthetic.captions import caption
from mmattn.vision.crane.synthetic.defects import SEEN, UNSEEN, Damage, Scene

__all__ = ["SPLITS", "Item", "Sample", "Split", "damage", "draw", "draw_pair", "evaluation_items", "make"]

AREA = (0.001, 0.05)
"""Smallest and largest share of the picture that a defect covers; drawn log-uniformly between."""

_TRIES = 8
_TEST = ("leather", "tile", "grid", "perforated", "capsule", "gear", "connector", "screw")
_AUXILIARY = ("carpet", "marble", "foam", "bottlecap", "chip", "nut")
_ALL = (*MATERIALS, *OBJECTS)


class Split(NamedTuple):
    """Categories and defects that are drawn together, and the first seed of the split."""

    categories: tuple[str, ...]
    defects: tuple[str, ...]
    first_seed: int


SPLITS: dict[str, Split] = {
    "clip": Split(tuple(c for c in _ALL if c not in _TEST + _AUXILIARY), tuple(SEEN), 10_000_000),
    "prompts": Split(_AUXILIARY, tuple(SEEN), 5_000_000),
    "val": Split(_AUXILIARY, tuple(SEEN), 1_000_000),
    "test": Split(_TEST, tuple(UNSEEN), 2_000_000),
    "test_seen_defects": Split(_TEST, tuple(SEEN), 3_000_000),
    "ceiling": Split(_TEST, tuple(UNSEEN), 7_000_000),
    "test_seen_categories": Split(tuple(c for c in _ALL if c not in _TEST + _AUXILIARY), tuple(UNSEEN), 4_000_000),
}
"""Stage 1 ("clip"), stage 2 ("prompts") with its validation set, the main test, and two easier tests; "ceiling" draws
what the test draws with other seeds, for the supervised network that shows how far one can get."""


class Item(NamedTuple):
    """One picture to draw; ``defect`` is "" for a flawless one."""

    category: str
    defect: str
    seed: int


@dataclass(frozen=True)
class Sample:
    """A drawn picture.

    Attributes:
        picture: uint8 RGB, (S, S, 3).
        mask: Pixels of the defect, bool (S, S).
        category: Key of the materials or the objects.
        defect: Name of the defect, "" for none.
    """

    picture: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    category: str
    defect: str

    def caption(self, rng: Rng) -> str:
        """Returns a sentence about the picture."""
        return caption(rng, self.category, self.defect, self.mask)


def _scene(category: str, rng: Rng) -> Scene:
    if category in MATERIALS:
        return Scene(MATERIALS[category](rng), np.ones((SIZE, SIZE), bool), False)
    picture, mask = draw_object(category, rng)
    return Scene(picture, mask > 0.5, True)


def damage(rng: Rng, scene: Scene, defect: str, light: Light | None = None) -> Damage:
    """Draws a defect that a person can see.

    A draw is accepted when its area is within :data:`AREA` and, under the light and after a slight blur, the mean
    change over it in the channel that changes most exceeds .05 plus half the standard deviation of the surface
    around it. The most visible of eight draws is kept when none is accepted.
    """
    function = {**SEEN, **UNSEEN}[defect]
    gain = light.gain if light is not None else np.float32(1.0)
    clean = cv2.GaussianBlur(np.clip(scene.picture, 0, 1) * gain, (0, 0), 1.2)
    best, most = None, -np.inf
    for _ in range(_TRIES):
        area = np.exp(rng.uniform(*np.log(AREA))) * SIZE * SIZE
        drawn = function(rng, scene, area)
        inside = drawn.extent > 0.5
        size = int(inside.sum())
        if not 0.8 * AREA[0] * SIZE**2 <= size <= 1.2 * AREA[1] * SIZE**2:
            continue
        seen = cv2.GaussianBlur(np.clip(drawn.picture, 0, 1) * gain, (0, 0), 1.2)
        change = float(np.abs(seen - clean)[inside].max(-1).mean())
        around = (cv2.dilate(inside.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0) & ~inside & scene.region
        texture = float(clean[around].std(0).mean()) if around.any() else 0.0
        if change - texture / 2 > most:
            best, most = drawn, change - texture / 2
        if most > 0.05:
            break
    return best if best is not None else damage(rng, scene, defect, light)


def draw_pair(category: str, defect: str, seed: int) -> tuple[Sample, Sample]:
    """Draws a flawless picture and its damaged twin.

    >>> flawless, damaged = draw_pair("wood", "scratch", 7)
    >>> flawless.picture.shape, bool(flawless.mask.any()), bool(damaged.mask.any())
    ((256, 256, 3), False, True)
    """
    rng = np.random.default_rng(seed)
    scene = _scene(category, rng)
    light = draw_light(rng)
    drawn = damage(rng, scene, defect, light)
    flawless = Sample(photograph(rng, scene.picture, light), np.zeros((SIZE, SIZE), bool), category, "")
    damaged = Sample(photograph(rng, drawn.picture, light), drawn.extent > 0.5, category, defect)
    return flawless, damaged


def draw(item: Item) -> Sample:
    """Draws one picture of a set."""
    if item.defect:
        return draw_pair(item.category, item.defect, item.seed)[1]
    rng = np.random.default_rng(item.seed)
    scene = _scene(item.category, rng)
    picture = photograph(rng, scene.picture, draw_light(rng))
    return Sample(picture, np.zeros((SIZE, SIZE), bool), item.category, "")


def evaluation_items(split: str, per_category: int) -> list[Item]:
    """Lists a set: per category, half flawless and half damaged pictures of different drawings.

    Args:
        split: Key of :data:`SPLITS`.
        per_category: Pictures of each category; the defects take turns.
    """
    categories, defects, first = SPLITS[split]
    items = []
    for index, category in enumerate(categories):
        for number in range(per_category):
            defect = defects[number // 2 % len(defects)] if number % 2 else ""
            items.append(Item(category, defect, first + index * 10_000 + number))
    return items


def make(path: str | Path, *, split: str = "test", per_category: int = 40, train_per_category: int = 5) -> int:
    """Writes a set to disk in MVTec-AD's layout and returns the number of pictures.

    ``path/CATEGORY/train/good``, ``path/CATEGORY/test/{good,DEFECT}/NNN.png`` and
    ``path/CATEGORY/ground_truth/DEFECT/NNN_mask.png``.

    Raises:
        ValueError: If ``split`` is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}.")
    count = 0
    for place, sample in _files(split, per_category, train_per_category):
        target = Path(path) / sample.category / place
        write_bytes(target, cv2.imencode(".png", sample.picture[..., ::-1])[1].data)
        if sample.defect:
            truth = Path(path) / sample.category / "ground_truth" / sample.defect / f"{target.stem}_mask.png"
            write_bytes(truth, cv2.imencode(".png", sample.mask.astype(np.uint8) * 255)[1].data)
        count += 1
    return count


def _files(split: str, per_category: int, train_per_category: int) -> Iterator[tuple[str, Sample]]:
    """Yields the place below the category's folder and the sample of every file."""
    for item in evaluation_items(split, per_category):
        number = (item.seed - SPLITS[split].first_seed) % 10_000
        yield f"test/{item.defect or 'good'}/{number:03d}.png", draw(item)
    for index, category in enumerate(SPLITS[split].categories):
        for number in range(train_per_category):
            seed = SPLITS[split].first_seed + index * 10_000 + 9_000 + number
            yield f"train/good/{number:03d}.png", draw(Item(category, "", seed))
