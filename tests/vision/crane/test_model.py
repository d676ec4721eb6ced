"""The network: its parts together, its checkpoints, its cached texts and its exported form."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.core.weights.checkpoint import load_checkpoint, save_checkpoint
from mmattn.errors import CheckpointError, InputError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.model import CraneModel, StaticCrane
from tests.vision.crane.tiny import tiny_config, tiny_model


def pictures(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 48, 48, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_scores_and_maps_are_probabilities_of_the_right_shape() -> None:
    output = tiny_model()(pictures())
    assert output.score.shape == (2,)
    assert output.anomaly_map.shape == output.raw_map.shape == (2, 48, 48)
    for values in output:
        assert values.min() >= 0
        assert values.max() <= 1


@torch.no_grad()
def test_a_picture_scores_the_same_alone_and_in_a_batch() -> None:
    model = tiny_model()
    together, alone = model(pictures(3)), model(pictures(3)[2:])
    torch.testing.assert_close(together.score[2:], alone.score, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.anomaly_map[2:], alone.anomaly_map, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_conditioned_prompts_give_each_picture_texts_of_its_own() -> None:
    model = tiny_model(inference_context=True)
    vision = model.encode_image(pictures())
    text = model.encode_text(vision.image_features)
    assert text.shape == (2, 2, 32)
    assert (text[0] - text[1]).abs().max() > 1e-6
    torch.testing.assert_close(model(pictures()).score, model.score(vision, text).score)


def test_static_texts_are_computed_once_until_a_prompt_changes() -> None:
    model = tiny_model()
    with torch.no_grad():
        first = model.encode_text()
        assert model.encode_text() is first
        model.prompt_learner.ctx_pos.add_(0.1)
        second = model.encode_text()
    assert (first - second).abs().max() > 1e-6
    assert model.encode_text().requires_grad
    optimizer = torch.optim.Adam(model.prompt_learner.parameters(), lr=0.1)
    model.encode_text().sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert (model.encode_text() - second).abs().max() > 1e-6


def test_static_texts_survive_inference_mode() -> None:
    model = tiny_model()
    with torch.inference_mode():
        kept = model.encode_text()
    text = model.encode_text()
    torch.testing.assert_close(text.detach(), kept.clone())
    text.sum().backward()
    assert model.prompt_learner.ctx_pos.grad is not None


def test_loading_prompts_replaces_the_cached_texts() -> None:
    model, other = tiny_model(0), tiny_model(1)
    other.clip.load_state_dict(model.clip.state_dict())
    with torch.no_grad():
        model.encode_text()
        model.load_prompts(other.prompt_state_dict())
        torch.testing.assert_close(model.encode_text(), other.encode_text())


def test_a_checkpoint_with_its_own_clip_restores_everything(tmp_path: Path) -> None:
    model = tiny_model(0)
    save_checkpoint(tmp_path / "c", model.tensors(), system="crane", config=model.config.to_dict(), card="")
    tensors, config = load_checkpoint(tmp_path / "c", "crane")
    again = CraneModel.from_config(CraneConfig.from_dict(config))
    again.load_tensors(tensors)
    assert again.config == model.config
    with torch.no_grad():
        torch.testing.assert_close(again(pictures()), model(pictures()), atol=0, rtol=0)


def test_a_checkpoint_on_a_named_clip_holds_the_prompts_alone() -> None:
    model = CraneModel(tiny_config(clip_pretrained="openai"), tiny_model().clip)
    tensors = model.tensors()
    assert sorted(tensors) == [
        "prompt_learner.compound_prompts_text.0",
        "prompt_learner.compound_prompts_text.1",
        "prompt_learner.ctx_neg",
        "prompt_learner.ctx_pos",
    ]
    again = CraneModel(model.config, model.clip)
    again.load_tensors(tensors)
    torch.testing.assert_close(again.prompt_state_dict(), model.prompt_state_dict())


def test_published_buffers_are_ignored_and_other_names_are_not() -> None:
    model = tiny_model()
    state = model.prompt_state_dict()
    model.load_prompts({**state, "token_prefix_pos": torch.zeros(1), "tokenized_prompts_neg": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"1 unexpected \(ctx\) tensors"):
        model.load_prompts({**state, "ctx": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"1 missing \(ctx_pos\) tensors"):
        model.load_prompts({name: tensor for name, tensor in state.items() if name != "ctx_pos"})
    with pytest.raises(CheckpointError, match=r"ctx_pos of shape \(1, 1, 12, 8\), expected \(1, 1, 12, 32\)"):
        model.load_prompts({**state, "ctx_pos": torch.zeros(1, 1, 12, 8)})


def test_more_deep_prompts_than_blocks_are_refused() -> None:
    with pytest.raises(InputError, match="depth is 4, expected at most 3"):
        tiny_model(depth=4)


def test_memory_features_are_the_e_attn_patches_on_their_grid() -> None:
    model = tiny_model()
    vision = model.encode_image(pictures())
    features = model.memory_features(pictures())
    assert features.shape == (2, 32, 6, 6)
    torch.testing.assert_close(features.flatten(2).mT, vision.patch_features[-1])
    torch.testing.assert_close(model.memory_features(pictures(), vision), features)


@torch.no_grad()
def test_the_trunk_feeds_patches_d_attn_and_memories_and_runs_once() -> None:
    model = tiny_model(trunk="efficientnet_lite0", foundation="trunk")
    embedding = model.clip.visual.conv1
    runs = []
    embedding.trunk.register_forward_hook(lambda *_: runs.append(1))
    vision = model.encode_image(pictures())
    features = model.memory_features(pictures(), vision)
    assert len(runs) == 1
    torch.testing.assert_close(features, embedding.features(pictures()))
    torch.testing.assert_close(features, model.memory_features(pictures()))
    assert len(vision.patch_features) == 2
    twice = model.tower(pictures(), features)
    for a, b in zip(vision.patch_features, twice.patch_features, strict=True):
        torch.testing.assert_close(a, b)


def test_a_trunk_foundation_needs_a_trunk() -> None:
    with pytest.raises(InputError, match="but the model has no trunk"):
        tiny_model(foundation="trunk")


def test_the_static_form_equals_the_model_and_is_exported_without_python() -> None:
    model = tiny_model(feature_layers=(2, 3), multilayer="distinct", soft_mean=False)
    static = StaticCrane(model).eval()
    with torch.no_grad():
        expected = model(pictures(1))
        program = torch.export.export(static, (pictures(1),))
        score, anomaly_map = program.module()(pictures(1))
    torch.testing.assert_close(score, expected.score, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(anomaly_map, expected.anomaly_map, atol=1e-6, rtol=1e-5)
    assert "custom" not in str(program.graph)


def test_conditioned_prompts_have_no_static_form() -> None:
    with pytest.raises(InputError, match="cannot be exported"):
        StaticCrane(tiny_model(inference_context=True))
