"""Missing boxes, frames and segments, and shares of the clips."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.video.crash.datasets.augmentation import MissingData, split_clips, take_fraction
from mmattn.video.crash.datasets.records import ListedClip


def clips(accidents: int, others: int) -> list[ListedClip]:
    return [ListedClip(f"{n}", "", "toy", "train", int(n < accidents)) for n in range(accidents + others)]


def labels(chosen: list[ListedClip]) -> Counter[int]:
    return Counter(clip.label for clip in chosen)


def test_boxes_go_missing_one_by_one_and_the_frame_stays() -> None:
    gone = MissingData("box", 0.3).mask("a", 400, 19)
    assert not gone[:, 0].any()
    assert gone[:, 1:].mean() == pytest.approx(0.3, abs=0.02)
    assert len(np.unique(gone, axis=0)) > 300


def test_frames_go_missing_with_all_their_boxes() -> None:
    gone = MissingData("frame", 0.3).mask("a", 2000, 4)
    assert (gone.all(axis=1) == gone.any(axis=1)).all()
    assert gone[:, 0].mean() == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(("rate", "length"), [(0.0, 0), (0.1, 5), (0.5, 25), (1.0, 50)])
def test_one_run_of_frames_goes_missing(rate: float, length: int) -> None:
    starts = set()
    for clip in "abcdefgh":
        gone = MissingData("segment", rate).mask(clip, 50, 2)
        frames = np.flatnonzero(gone.all(axis=1))
        assert len(frames) == gone.any(axis=1).sum() == length
        assert (np.diff(frames) == 1).all()
        starts.update(frames[:1].tolist())
    assert len(starts) > 1 or rate in (0.0, 1.0)


@given(st.sampled_from(["box", "frame", "segment"]), st.floats(0, 1), st.integers(1, 30), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_the_draw_depends_on_seed_and_clip_alone(mode: str, rate: float, frames: int, boxes: int) -> None:
    missing = MissingData(mode, rate, seed=3)  # type: ignore[arg-type]
    gone = missing.mask("clip", frames, boxes)
    np.random.default_rng(0).random(5)
    assert np.array_equal(gone, MissingData(mode, rate, seed=3).mask("clip", frames, boxes))  # type: ignore[arg-type]
    assert gone.shape == (frames, boxes + 1)
    assert not MissingData(mode, 0.0).mask("clip", frames, boxes).any()  # type: ignore[arg-type]


def test_other_clips_and_seeds_lose_other_data() -> None:
    one = MissingData("box", 0.5, seed=1).mask("a", 50, 4)
    assert not np.array_equal(one, MissingData("box", 0.5, seed=1).mask("b", 50, 4))
    assert not np.array_equal(one, MissingData("box", 0.5, seed=2).mask("a", 50, 4))


@pytest.mark.parametrize(("mode", "rate"), [("pixel", 0.1), ("box", -0.1), ("box", 1.1), ("frame", float("nan"))])
def test_options_out_of_range_are_refused(mode: str, rate: float) -> None:
    with pytest.raises(InputError, match="expected one of box, frame, segment and a rate in"):
        MissingData(mode, rate)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fraction", "expected"), [(1.0, (40, 60)), (0.75, (30, 45)), (0.5, (20, 30))])
def test_a_fraction_keeps_the_share_of_each_label(fraction: float, expected: tuple[int, int]) -> None:
    kept = take_fraction(clips(40, 60), fraction, seed=0)
    assert (labels(kept)[1], labels(kept)[0]) == expected
    assert [int(clip.id) for clip in kept] == sorted(int(clip.id) for clip in kept)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 99), st.floats(0.01, 0.99))
@settings(max_examples=80, deadline=None)
def test_parts_cover_all_clips_once_and_never_take_a_label_whole(a: int, b: int, seed: int, share: float) -> None:
    everything = clips(a, b)
    rest, part = split_clips(everything, share, seed)
    assert sorted(rest + part, key=everything.index) == everything
    assert set(labels(everything)) == set(labels(rest))
    assert (rest, part) == split_clips(everything, share, seed)
    for label, count in labels(everything).items():
        assert abs(labels(part)[label] - share * count) <= 1


def test_larger_fractions_contain_smaller_ones() -> None:
    everything = clips(30, 50)
    half, most = (take_fraction(everything, share, seed=5) for share in (0.5, 0.75))
    assert set(half) < set(most) < set(everything)
    assert half != take_fraction(everything, 0.5, seed=6)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=r"expected a number in \(0, 1\]"):
        take_fraction(clips(2, 2), fraction, seed=0)
