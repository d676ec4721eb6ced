"""Published checkpoints become ours, whatever they are wrapped in, and their sizes are read off."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.weights.convert import convert, from_published, published_state, read_published
from mmattn.speech.lina.weights.store import StoredLina
from tests.speech.lina.tiny import text_ids, tiny_config, tiny_model

VARIANTS: dict[str, dict[str, Any]] = {
    "blind": {},
    "position width of the model": {"position_dim": None},
    "sinusoidal rotary": {"position": "sinusoidal", "cross_rotary": True},
    "no convolution": {"short_conv": False, "expand_k": 1.0, "expand_v": 2.0},
    "simple gla": {"mixer": "simple_gla"},
    "rwkv6": {"mixer": "rwkv6", "short_conv": True},
    "plain": {"cross_attention": "plain", "cross_rotary": True, "position_dim": None},
    "tied": {"tie_embeddings": True},
}


def published(model: LinaModel) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in published_state(model.state_dict(), model.config).items()}


@pytest.mark.parametrize("changes", [pytest.param(value, id=name) for name, value in VARIANTS.items()])
def test_sizes_and_tensors_are_found_again(changes: dict[str, Any]) -> None:
    model = tiny_model(**changes)
    config, tensors = from_published(published(model))
    wanted = {"text_heads", "num_heads", "expand_k", "expand_v", "dim", "num_layers", "codebook_size", *changes}
    assert {name: getattr(config, name) for name in wanted} == {name: getattr(model.config, name) for name in wanted}
    assert set(tensors) == set(model.state_dict())
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("form", ["lightning", "old", "bare", "compiled", "safetensors", "folder"])
def test_a_file_is_converted_from_any_wrapping(tmp_path: Path, form: str) -> None:
    model = tiny_model()
    state = published(model)
    file = tmp_path / "in" / ("x.safetensors" if form == "safetensors" else "x.ckpt")
    file.parent.mkdir()
    contents = {
        "lightning": {"state_dict": {f"model.{k}": v for k, v in state.items()}, "hyper_parameters": {"lr": 2e-4}},
        "old": {"model": state},
        "bare": state,
        "compiled": {"state_dict": {f"model._orig_mod.{k}": v for k, v in state.items()}},
        "folder": state,
    }
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(contents[form], file)
    folder = convert(file.parent if form == "folder" else file, tmp_path / "out")
    stored = StoredLina.load(folder)
    again, text = stored.build(), text_ids(5)[None]
    with torch.no_grad():
        one, other = (m.advance(m.start_column(1), m.remember(text), m.initial_state(1)).logits for m in (model, again))
    assert torch.equal(one, other)
    assert "CC BY-NC-SA" in (folder / "README.md").read_text()


def test_the_codec_is_told_by_the_codebooks() -> None:
    for size, codec in ((4096, "wavtokenizer"), (1024, "encodec")):
        model = LinaModel(tiny_config(codebook_size=size))
        assert from_published(published(model))[0].codec == codec
    given = from_published(published(tiny_model()), LinaConfig(codec="embedded", dropout=0.1))[0]
    assert (given.codec, given.dropout) == ("embedded", 0.1)


def test_what_is_no_checkpoint_of_lina_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"is no Lina checkpoint: .* found weight"):
        read_published(file)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="should hold one weights file, found none"):
        convert(empty, tmp_path / "out")


def test_damaged_tensors_are_named(tmp_path: Path) -> None:
    state = published(tiny_model())
    state["txt_embed.weight"][3, 3] = torch.inf
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"numbers in txt_embed\.weight that are not finite"):
        convert(tmp_path / "x.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_unknown_and_misshapen_tensors_are_named() -> None:
    state = published(tiny_model())
    with pytest.raises(CheckpointError, match=r"1 missing \(attentive_rnn.decoder.0.norm1.bias\)"):
        from_published({k: v for k, v in state.items() if k != "attentive_rnn.decoder.0.norm1.bias"})
    with pytest.raises(CheckpointError, match=r"1 unexpected \(spk_encoder.weight\)"):
        from_published({**state, "spk_encoder.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"p_in.bias of shape \(3,\), expected \(42,\)"):
        from_published({**state, "txt_encoder.sa.0.cmix.p_in.bias": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"no tensor txt_encoder.sa.0.tmix.rotary.freqs"):
        from_published({k: v for k, v in state.items() if "rotary" not in k})
    with pytest.raises(CheckpointError, match="sizes that contradict each other"):
        from_published({**state, "attentive_rnn.encoder.0.tmix.q_proj.weight": torch.zeros(7, 16)})


def test_a_checkpoint_with_its_codec_comes_back(tmp_path: Path) -> None:
    model = tiny_model(codec="embedded")
    codec = {"encoder.weight": torch.randn(3, 4)}
    stored = StoredLina(model.config, model.state_dict(), codec)
    stored.save(tmp_path / "m", card="# card", dtype=torch.float16)
    again = StoredLina.load(tmp_path / "m")
    assert again.config == model.config
    assert again.part["encoder.weight"].dtype == torch.float16
    assert set(again.tensors) == set(model.state_dict())
    assert all(tensor.dtype == torch.float32 for tensor in again.tensors.values())
    legacy = again.build(replace(again.config, positions_over_padding=True))
    assert legacy.config.positions_over_padding
    assert not legacy.training


def test_a_config_of_something_else_is_refused(tmp_path: Path) -> None:
    folder = StoredLina(tiny_config(), {"a": torch.zeros(1)}, {}).save(tmp_path / "m", card="")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_layers"', '"layers"'))
    with pytest.raises(CheckpointError, match=r"none of a language model: .*layers"):
        StoredLina.load(folder)
    config.write_text(config.read_text().replace('"lina"', '"crash"'))
    with pytest.raises(CheckpointError, match="is a crash checkpoint"):
        StoredLina.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_vocab": 10**12}, "text_vocab makes a size of 1000000000000"),
        ({"num_layers": 10**9}, "num_layers makes a size of 1000000000"),
        ({"expand_v": 1e9}, "expand_v makes a size of 16000000000"),
    ],
)
def test_an_absurd_size_is_refused_before_memory_is_asked_for(changes: dict[str, Any], message: str) -> None:
    model = tiny_model()
    stored = StoredLina(replace(model.config, **changes), model.state_dict(), {})
    with pytest.raises(CheckpointError, match=message):
        stored.build()
