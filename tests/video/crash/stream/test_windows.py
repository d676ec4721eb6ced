"""Streams without end: what lies longer ago than a state may live changes nothing, nor does how they are cut."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.errors import InputError
from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.stream.windows import RiskWindows
from tests.video.crash.tiny import clips, tiny_config, tiny_model

ARCHITECTURES = ["crash", "gru", "dsta"]


def risks(windows: RiskWindows, features: Tensor) -> np.ndarray:
    with torch.no_grad():
        output = windows.extend(features)
    return output.logits.double().softmax(-1)[..., 1].numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_clip_of_the_trainings_length_is_scored_as_in_training(architecture: str):
    model = tiny_model(architecture=architecture)
    features = clips(2, 12)
    with torch.no_grad():
        expected = model(features).logits.double().softmax(-1)[..., 1].numpy()
    np.testing.assert_allclose(risks(RiskWindows(model, 2), features), expected, rtol=1e-6)


@pytest.mark.parametrize("before", [12, 18, 60, 600])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_scene_is_scored_the_same_after_any_amount_of_calm(architecture: str, before: int):
    # 12 steps live, 6 a period: from here on nothing of what came before is left.
    model = tiny_model(architecture=architecture)
    scene, calm = clips(1, 30, seed=3), clips(1, before, seed=4)
    after = risks(RiskWindows(model), torch.cat([calm, scene], dim=1))[0, before:]
    sooner = risks(RiskWindows(model), torch.cat([calm[:, -12:], scene], dim=1))[0, 12:]
    np.testing.assert_allclose(after, sooner, rtol=1e-4)
    assert np.ptp(after) > 1e-4


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), length=st.sampled_from([2, 3, 7, 12]))
def test_how_a_stream_is_cut_changes_nothing(cuts: list[int], length: int):
    model = tiny_model(session_steps=length)
    features = clips(1, 40)
    bounds = [0, *sorted(cuts), 40]
    windows = RiskWindows(model)
    parts = [risks(windows, features[:, a:b]) for a, b in pairwise(bounds) if a < b]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), risks(RiskWindows(model), features), rtol=1e-4)


def test_two_states_live_at_most_and_their_size_stays():
    model = tiny_model()
    windows, sizes = RiskWindows(model), []
    for step in range(300):
        risks(windows, clips(1, 1, seed=step))
        buffer = io.BytesIO()
        torch.save(windows.to_tensors(), buffer)
        sizes.append(buffer.tell())
    assert len(windows.to_tensors()["ages"]) <= 2
    assert max(sizes[100:]) == max(sizes[12:100])


def test_saved_windows_go_on_exactly():
    model = tiny_model()
    features = clips(1, 31)
    whole = risks(RiskWindows(model), features)
    for cut in (1, 6, 11, 12, 20):
        first, second = RiskWindows(model), RiskWindows(model)
        start = risks(first, features[:, :cut])
        second.restore(first.to_tensors())
        np.testing.assert_allclose(np.concatenate([start, risks(second, features[:, cut:])], axis=1), whole, rtol=1e-4)


def test_windows_of_another_model_are_refused():
    saved = RiskWindows(tiny_model()).to_tensors()
    with pytest.raises(InputError, match="It is that of another model"):
        RiskWindows(tiny_model(hidden_dim=64, grid=(8, 8))).restore(saved)
    with pytest.raises(InputError, match=r"900 steps old, expected .* at most 12"):
        RiskWindows(tiny_model()).restore({**saved, "ages": torch.tensor([900])})


def test_the_config_says_how_long_states_live():
    assert RiskWindows(tiny_model()).length == 12
    assert RiskWindows(tiny_model(session_steps=5)).length == 5
    with pytest.raises(ValueError, match="session_steps is 1, expected at least 2"):
        tiny_config(session_steps=1)
    assert CrashConfig.from_dict(tiny_config(session_steps=5).to_dict()).session_steps == 5
