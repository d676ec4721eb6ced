"""What the generators draw, byte for byte: shipped models were trained and tested on exactly this."""

import hashlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from mmattn.drawing.photographs import TRAINING, WALLPAPERS
from mmattn.speech.lina.synthetic.sentences import Lexicon, make_sentences, split_of
from mmattn.video.crash.synthetic.drawing.render import decode, render
from mmattn.video.crash.synthetic.world.clips import draw_clip
from mmattn.vision.crane.synthetic.captions import caption
from mmattn.vision.crane.synthetic.photographs import draw_photograph
from mmattn.vision.crane.synthetic.scenes import SPLITS, draw_pair
from mmattn.vision.crane.synthetic.twins import collage_pair, draw_validation_photograph, photograph_pair

# Bytes are the same with AVX2 and AVX-512; older processors round a few pixels otherwise.
pytestmark = pytest.mark.skipif("*AVX2" not in cv2.getCPUFeaturesLine(), reason="the processor has no AVX2")


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]


DRAWINGS = {
    "clip/wood/scratch": "24dd00d4d9635495",
    "clip/metal/crack": "ff6bda4b85d17074",
    "clip/fabric/stain": "0a4c379cfd801005",
    "clip/concrete/dent": "8b58af71acc36f9c",
    "clip/terrazzo/missing": "5f8121ee514dcce2",
    "clip/cork/contamination": "70bb359b727ede3a",
    "clip/knit/irregular": "ae574e060cd44c4d",
    "clip/corrugated/scratch": "1344b85bb1b4b704",
    "clip/paper/crack": "079999e8da37748d",
    "clip/plaid/stain": "d8b7312e3c93c193",
    "clip/diamond/dent": "e7e52cd0bcf5c76b",
    "clip/print/missing": "8f283254af9ccf54",
    "clip/collage/contamination": "e1cec98294c4bcc0",
    "clip/washer/irregular": "238805ae3126a795",
    "clip/pill/scratch": "b4f0159743339265",
    "clip/board/crack": "ac68bf51bb64e37f",
    "clip/gasket/stain": "4b4391a219f57e6c",
    "clip/button/dent": "3a76b2d391203497",
    "clip/coin/missing": "060ec6bc19946d41",
    "clip/bracket/contamination": "6539e4f1151511bf",
    "clip/bearing/irregular": "10747ed4a370b56f",
    "clip/blister/scratch": "8bfcac0ea32c39d0",
    "clip/spring/crack": "f4ab7c543c8a3793",
    "clip/label/stain": "d6c0901a1b076e2f",
    "clip/scene/dent": "26364e932a2337c8",
    "val/carpet/scratch": "789a219cf484abfe",
    "val/marble/crack": "d32ed04f1fd04e93",
    "val/foam/stain": "96d6919c5c4974c0",
    "val/bottlecap/dent": "1cc9289724ce857d",
    "val/chip/missing": "880e7ef44046f820",
    "val/nut/contamination": "feb9952fd1fd702c",
    "test/leather/hole": "7f11c301cd7cc89a",
    "test/tile/cut": "a3bf0be9071a2f13",
    "test/grid/fade": "1b1f42e20b7d7648",
    "test/perforated/misprint": "4248dafc288c7cd8",
    "test/capsule/deformation": "5315142eba553906",
    "test/gear/hole": "a6d3f3077457da49",
    "test/connector/cut": "29463ff8d702d278",
    "test/screw/fade": "0943be0e7d3e7ae4",
}
"""Split, category and defect; the first seed of the category, plus one."""

CLIPS = {
    "train/0": ("fd02cfd8dfea9870", "7ce29f49ade63694"),
    "val/3": ("bd6b7b586230bdd9", "455cacf9f046304e"),
    "test/1": ("e9bc6dfb17d1269a", "05ba0a27024405f9"),
}
"""Split and number; boxes, and decoded pictures."""


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_what_it_was(name: str) -> None:
    split, category, defect = name.split("/")
    categories, _, first = SPLITS[split]
    damaged = draw_pair(category, defect, first + 10_000 * categories.index(category) + 1)[1]
    assert digest(damaged.picture, damaged.mask) == DRAWINGS[name]


def test_every_category_of_every_stage_is_pinned() -> None:
    pinned = {tuple(name.split("/")[:2]) for name in DRAWINGS}
    assert pinned == {(split, category) for split in ("clip", "val", "test") for category in SPLITS[split].categories}


PHOTOGRAPHS: dict[str, tuple[str, Callable[[], tuple[np.ndarray, ...]]]] = {
    "test photograph": ("a258fc8cd005bad1", lambda: pixels(draw_photograph("brick", 3, "hole"))),
    "training photograph": ("bd117fb9d4bc7cb6", lambda: pixels(photograph_pair(9, "crack", 5)[1])),
    "collage": ("1bc64e3bf0c3a7f1", lambda: pixels(collage_pair("scratch", 8)[1])),
    "validation photograph": ("f8ab5a0350600f59", lambda: pixels(draw_validation_photograph("text", 1, "stain"))),
}


def pixels(sample) -> tuple[np.ndarray, ...]:
    return sample.picture, sample.mask


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_with_a_defect_is_what_it_was(name: str) -> None:
    pytest.importorskip("skimage", reason="scikit-image is a development dependency")
    pytest.importorskip("sklearn", reason="scikit-learn is a development dependency")
    if name == "collage" and not all((WALLPAPERS / s.file).is_file() for s in TRAINING.values() if "/" not in s.file):
        pytest.skip("no Debian wallpapers here")
    expected, draw = PHOTOGRAPHS[name]
    assert digest(*draw()) == expected


def test_captions_are_what_they_were() -> None:
    mask = np.zeros((256, 256), bool)
    mask[20:40, 200:230] = True
    rng = np.random.default_rng(4)
    texts = [caption(rng, "wood", defect, mask) for defect in ("crack", "", "stain")]
    assert texts == ["a photo of a faulty wood.", "a photo of a undamaged wood.", "a photo of a spoiled wood."]


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_what_it_was(name: str) -> None:
    split, number = name.split("/")
    clip = draw_clip(split, int(number))
    assert (digest(clip.seen.box), digest(decode(render(clip)))) == CLIPS[name]


def test_sentences_are_what_they_were() -> None:
    words = [f"w{a}{b}{c}" for a in "aeiou" for b in "bcdfghklmn" for c in "aeiou"]
    train, test = ([word for word in words if split_of(word) == split] for split in ("train", "test"))
    examples = [f"the {a} {b} here" for a in train[:20] for b in train[20:23]]
    examples += [f"the {a} {b} here" for a in test[:12] for b in train[:3]]
    every = tuple(train[30:60] + test[:12])
    lexicon = Lexicon(tuple(sorted(examples)), every, every, every, frozenset({"the", "here"}))
    assert make_sentences(lexicon, "test", 3, seed=0, taken=set()) == [
        "Her wala wako waho no walu wemo before every weda.",
        "The wane wabi here.",
        "The wala wabi here.",
    ]
