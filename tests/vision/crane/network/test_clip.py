"""Building CLIPs: sizes, files, compact vocabularies, and clear refusals."""

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmattn.errors import CheckpointError, InputError, WeightsUnavailableError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.network.clip import build_clip, compact_ids, load_clip_weights, text_tower, tokenize
from tests.vision.crane.tiny import TOKEN_IDS, tiny_config


def test_sizes_make_the_clip_they_describe() -> None:
    clip = build_clip(tiny_config())
    assert clip.visual.conv1.weight.shape == (32, 3, 8, 8)
    assert clip.visual.proj.shape == (32, 32)
    assert clip.token_embedding.weight.shape == (7, 32)
    assert clip.visual.transformer.resblocks[0].attn.num_heads == 2
    assert type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert not clip.training


def test_a_large_token_table_is_cut_to_the_known_tokens() -> None:
    config = tiny_config()
    whole = replace(config, clip_architecture=replace(config.clip_architecture, vocab_size=49408), token_ids=None)
    torch.manual_seed(3)
    full = build_clip(whole)
    torch.manual_seed(3)
    cut = build_clip(replace(whole, token_ids=TOKEN_IDS))
    assert torch.equal(cut.token_embedding.weight, full.token_embedding.weight[torch.tensor(TOKEN_IDS)])
    texts = ["X damaged object."]
    torch.testing.assert_close(
        cut.encode_text(tokenize(texts, 77, TOKEN_IDS)), full.encode_text(tokenize(texts)), atol=0, rtol=0
    )


def test_compact_tokens_keep_padding_at_zero_and_the_end_token_largest() -> None:
    ids = tokenize(["X object.", "damaged."], token_ids=TOKEN_IDS)
    full = tokenize(["X object.", "damaged."])
    assert torch.equal(ids.argmax(dim=1), full.argmax(dim=1))
    assert torch.equal(ids == 0, full == 0)
    assert torch.equal(torch.tensor(TOKEN_IDS)[ids], full)


def test_unknown_words_are_named() -> None:
    with pytest.raises(InputError, match="knows 7 tokens; it does not know photo"):
        compact_ids(tokenize(["photo object."]), TOKEN_IDS)


@pytest.mark.parametrize("ids", [(269, 343), (0, 343, 269), (0, 343, 343)])
def test_token_tables_must_be_sorted_and_start_with_padding(ids: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="must be sorted, without repeats, and start with the padding id 0"):
        build_clip(tiny_config(token_ids=ids))


def test_token_tables_must_fit_the_text_tower() -> None:
    with pytest.raises(InputError, match="token_ids go up to 49407; the text tower has 7 rows"):
        build_clip(tiny_config(token_ids=(0, 49407)))


@pytest.mark.parametrize("kind", ["safetensors", "pt", "wrapped", "openai"])
def test_weights_are_read_from_the_usual_files(kind: str, tmp_path: Path) -> None:
    weights = build_clip(tiny_config()).state_dict()
    file = tmp_path / ("clip.safetensors" if kind == "safetensors" else "clip.pt")
    if kind == "safetensors":
        save_file(weights, file)
    elif kind == "wrapped":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, file)
    else:
        extra = {"input_resolution": torch.tensor(48), "vocab_size": torch.tensor(7)} if kind == "openai" else {}
        torch.save({**weights, **extra}, file)
    loaded = build_clip(tiny_config(clip_pretrained=str(file)), pretrained=True)
    torch.testing.assert_close(loaded.state_dict(), weights)


def test_a_clip_of_other_sizes_is_refused(tmp_path: Path) -> None:
    weights = build_clip(tiny_config()).state_dict()
    weights["visual.class_embedding"] = torch.zeros(8)
    torch.save(weights, tmp_path / "clip.pt")
    message = r"visual.class_embedding of shape \(8,\), expected \(32,\) \(1 of \d+ tensors differ in shape\)"
    with pytest.raises(CheckpointError, match=message) as caught:
        load_clip_weights(build_clip(tiny_config()), tmp_path / "clip.pt")
    assert caught.value.hint == "Choose the clip_model that the weights belong to."


def test_missing_and_unexpected_names_are_counted(tmp_path: Path) -> None:
    weights = build_clip(tiny_config()).state_dict()
    weights["visual.extra"] = weights.pop("visual.proj")
    torch.save(weights, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"1 missing \(visual.proj\) and 1 unexpected \(visual.extra\) tensors"):
        load_clip_weights(build_clip(tiny_config()), tmp_path / "clip.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive_is_refused_with_a_way_out(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "ViT-L-14-336px.pt")
    with pytest.raises(CheckpointError, match="TorchScript archive") as caught:
        load_clip_weights(build_clip(tiny_config()), tmp_path / "ViT-L-14-336px.pt")
    assert "state_dict()" in caught.value.hint


def test_something_else_in_the_file_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="holds no CLIP weights"):
        load_clip_weights(build_clip(tiny_config()), tmp_path / "clip.pt")


def test_weights_out_of_reach_say_what_from_where_and_which_flag() -> None:
    with pytest.raises(
        WeightsUnavailableError, match=r"ViT-L-14-336-quickgelu \(openai\).*timm/vit_large_patch14"
    ) as e:
        build_clip(CraneConfig(), pretrained=True)
    assert "--clip-pretrained" in e.value.hint


def test_an_unknown_tag_lists_the_known_ones() -> None:
    with pytest.raises(WeightsUnavailableError, match=r"'laion' are neither a file nor a tag.*knows: openai"):
        build_clip(CraneConfig(clip_pretrained="laion"), pretrained=True)


def test_an_unknown_model_suggests_similar_ones() -> None:
    with pytest.raises(InputError, match="no model 'ViT-L-14-335'") as caught:
        build_clip(CraneConfig(clip_model="ViT-L-14-335", clip_pretrained=None))
    assert "ViT-" in caught.value.hint


def test_a_tower_without_plain_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class ResNetClip(nn.Module):
        visual = nn.Conv2d(3, 3, 1)

    monkeypatch.setattr(open_clip, "create_model", lambda *args, **kwargs: ResNetClip())
    with pytest.raises(InputError, match="plain ViT with a class token; 'RN50' is not"):
        build_clip(CraneConfig(clip_model="RN50"))


def test_an_image_size_between_patches_suggests_its_neighbours() -> None:
    with pytest.raises(InputError, match="image_size is 50, expected a multiple of the patch size 8") as caught:
        build_clip(tiny_config(image_size=50))
    assert caught.value.hint == "Use 48 or 56."


def test_the_text_tower_is_found_in_both_open_clip_layouts() -> None:
    clip = build_clip(tiny_config())
    assert text_tower(clip) is clip
    holder = nn.Module()
    holder.text = clip
    assert text_tower(holder) is clip
