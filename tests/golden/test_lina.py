"""Lina's language model against the authors' code: collation, forward pass, gradients, decoding, tuned states.

The convention is written in ``fixtures.py``. Kernels and recurrent layers have modules of their own; of
``layers.safetensors`` the parts that are Lina's alone are here.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.config import SPECIAL_TOKENS, LinaConfig
from mmattn.speech.lina.generation.steps import GenerationOptions, Speech, SpeechRequest, generate
from mmattn.speech.lina.losses import lina_loss, targets
from mmattn.speech.lina.model import LinaModel, LinaOutput
from mmattn.speech.lina.network.batch import (
    PAD,
    SpeechBatch,
    TextAndCodes,
    collate,
    delay,
    to_codes,
    to_tokens,
    undelay,
)
from mmattn.speech.lina.network.cross_attention import cross_mask
from mmattn.speech.lina.network.decoder import DecoderState
from mmattn.speech.lina.network.multihead_cross import PlainCrossAttention, multihead
from mmattn.speech.lina.network.text_encoder import TABLE, TextEncoder, self_attention_mask, sinusoid
from mmattn.speech.lina.voices.state import InitialState
from mmattn.speech.lina.weights.convert import from_published, published_state
from mmattn.speech.lina.weights.names import to_published
from tests.golden.fixtures import Tolerance, check, golden_dir, golden_files, load_tensors, metadata

FOLDER = "lina"
VALUE, GRADIENT = Tolerance(atol=1e-5, rtol=1e-4), Tolerance(rtol=1e-3, of_max=1e-5)
# The README says that these were stored without their last rows, which are zero.
CUT = re.compile(r"(.+)\[:(\d+)\]")
INPUTS = re.compile(
    r"weights/.*|batch/(codes_\d+|text_token)|delay/codes|step/(audio|text)_token|ist_rank\d+/layer\d+_[kv]|"
    r"generate/prompt"
)
EXACT = ("batch", "delay", "generate")
PARTS = ("cross_attention", "text_encoder", "sinpos")
MODES = ("naive", "chunk")


def expected_tolerance(file: str, key: str) -> Tolerance | float | None:
    """See ``fixtures.py``."""
    group, _, name = key.partition("/")
    if file.startswith("layers"):
        return VALUE if group in PARTS and name.startswith("out/") else None
    if not file.startswith("lina_") or INPUTS.fullmatch(key):
        return None
    if group in EXACT or name == "masked_target":
        return 0.0
    if group == "grad" or name.startswith("grad_"):
        # Where a softmax does not notice a bias its gradient is a float32 zero: a sum of terms that cancel.
        return replace(GRADIENT, atol=1e-8 * largest_gradient(file))
    return VALUE


@cache
def largest_gradient(file: str) -> float:
    return max(float(value.abs().max()) for key, value in tensors(file).items() if "grad" in key)


@cache
def tensors(file: str) -> dict[str, Tensor]:
    return load_tensors(golden_dir(FOLDER) / file)


def cases() -> list[object]:
    files = [path.name for pattern in ("lina_*", "layers*") for path in golden_files(FOLDER, f"{pattern}.safetensors")]
    found = [(file, key) for file in files for key in tensors(file) if expected_tolerance(file, key) is not None]
    return [pytest.param(file, key, id=f"{Path(file).stem}-{key.replace('/', '-')}") for file, key in found]


@pytest.mark.parametrize(("file", "key"), cases())
def test_entry_matches(file: str, key: str) -> None:
    # One test for all groups: another set of fixtures may lack one of them.
    group, _, name = key.partition("/")
    if file.startswith("layers"):
        actual = [part_values(file, group)[name]]
    else:
        groups: dict[str, Callable[[str, str], list[Tensor]]] = {
            "batch": collated, "delay": delayed, "forward": passed, "grad": differentiated, "step": decoded,
            "generate": generated,
        }  # fmt: skip
        kind = "ist" if re.fullmatch(r"ist_rank\d+", group) else group
        actual = tuned(file, key) if kind == "ist" else groups[kind](file, name)
    for value in actual:
        expected = tensors(file)[key]
        check(value.reshape(expected.shape), expected, expected_tolerance(file, key), name=f"{file}:{key}")


def published_weights(file: str) -> dict[str, Tensor]:
    weights = {}
    for key, value in tensors(file).items():
        if key.startswith("weights/"):
            name = key.removeprefix("weights/")
            if cut := CUT.fullmatch(name):
                assert len(value) == int(cut[2])
                name, value = cut[1], torch.cat([value, value.new_zeros(TABLE - len(value), *value.shape[1:])])
            weights[name] = value
    return weights


def stated_config(file: str) -> dict[str, object]:
    """Returns the fields of our config that a fixture's metadata state; one that is not understood fails."""
    options = json.loads(metadata(golden_dir(FOLDER) / file)["config"])
    for name in ("n_special_token_in", "n_special_token_out"):
        assert options.pop(name) == SPECIAL_TOKENS
    names = {
        "d": "dim", "L": "num_layers", "heads": "num_heads", "d_blind": "position_dim", "conv": "short_conv",
        "ek": "expand_k", "ev": "expand_v", "pos": "position", "q": "num_codebooks", "cb": "codebook_size",
        "txt": "text_vocab", "te_l": "text_layers", "te_h": "text_heads", "rot": "cross_rotary",
    }  # fmt: skip
    options.pop("name")
    if options["d_blind"] == options["d"]:
        options["d_blind"] = None
    return {names[key]: value for key, value in options.items()}


def network(file: str, mode: str = "auto") -> LinaModel:
    """Returns a fresh copy of the model of a fixture, made from nothing but its tensors."""
    base = LinaConfig(text_dropout=0.0, positions_over_padding=True)
    config, loaded = from_published(published_weights(file), base, what=file)
    model = LinaModel(config)
    model.load_tensors(loaded)
    for layer in model.modules():
        if isinstance(layer, GatedLinearAttention):
            layer.mode = mode  # type: ignore[assignment]
    return model


@cache
def batch_of(file: str) -> SpeechBatch:
    stored = tensors(file)
    texts = stored["batch/text_token"]
    return collate([
        TextAndCodes(text[text != PAD], stored[f"batch/codes_{i}"], name=f"{file} {i}") for i, text in enumerate(texts)
    ])  # fmt: skip


def collated(file: str, name: str) -> list[Tensor]:
    batch = batch_of(file)
    assert torch.equal(batch.text, tensors(file)["batch/text_token"])
    return [
        {
            "audio_token": batch.audio,
            "y_mask": batch.audio_valid,
            "crossatt_mask": cross_mask(batch.text_valid, batch.audio_valid),
            "encoder_mask": self_attention_mask(batch.text_valid),
        }[name]
    ]


def delayed(file: str, name: str) -> list[Tensor]:
    tokens = tensors(file)["delay/codes"]
    pattern = delay(to_tokens(to_codes(tokens)))
    back = undelay(pattern, tokens.shape[1], first=1)
    generated_back = undelay(pattern[:, 1:], tokens.shape[1], first=0)
    return {"delayed": [pattern], "undelayed": [back, generated_back]}[name]


@cache
def passes(file: str) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Returns what passes through the model and the gradients by published names, in every mode of the kernel."""
    found = []
    for mode in MODES:
        model, batch = network(file, mode), batch_of(file)
        found_here, handles = hooked(model)
        output = model(batch, with_maps=True)
        assert output.maps is not None
        loss = lina_loss(output.logits, batch.audio, batch.audio_valid).total
        loss.backward()
        for handle in handles:
            handle.remove()
        wanted = targets(batch.audio, batch.audio_valid)
        assert bool((wanted[~batch.audio_valid[:, 1:]] == 1).all())
        found_here |= {
            "logits": output.logits,
            "loss": loss,
            "att": output.maps,
            "masked_target": wanted[batch.audio_valid[:, 1:]],
        }
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert set(gradients) == {name for name, _ in model.named_parameters()}
        found.append((found_here, published_state(gradients, model.config)))
    return found


def hooked(model: LinaModel) -> tuple[dict[str, Tensor], list[torch.utils.hooks.RemovableHandle]]:
    """Returns a dict that the next forward pass fills with intermediate values, and the hooks to remove."""
    found: dict[str, Tensor] = {}
    cross = model.decoder.cross
    modules: dict[str, nn.Module] = {
        "x_enc": model.text_encoder,
        "pos_emb": cross.get_submodule("positions"),
        "pos_net_out": cross.get_submodule("network"),
        "crossatt_out": cross,
    }
    for half, blocks in (("encoder", model.decoder.lower), ("decoder", model.decoder.upper)):
        for i, block in enumerate(blocks):
            modules |= {f"{half}_{i}": block, f"{half}_{i}_tmix": block.get_submodule("mixer")}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor | tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, _inputs: object, out: Tensor | tuple[Tensor, ...]) -> None:
            found[name] = out if isinstance(out, Tensor) else out[0]

        return hook

    return found, [module.register_forward_hook(keep(name)) for name, module in modules.items()]


def passed(file: str, name: str) -> list[Tensor]:
    return [values[name] for values, _ in passes(file)]


def differentiated(file: str, name: str) -> list[Tensor]:
    cut = CUT.fullmatch(name)
    gradients = [gradient[cut[1] if cut else name] for _, gradient in passes(file)]
    if cut:
        assert all(bool((gradient[int(cut[2]) :] == 0).all()) for gradient in gradients)
        return [gradient[: int(cut[2])] for gradient in gradients]
    return gradients


@cache
def decodings(file: str) -> dict[str, LinaOutput]:
    """Returns the teacher-forced sample decoded at once in every mode, token by token, and in parts of all sizes."""
    stored = tensors(file)
    audio = stored["step/audio_token"][:, :-1]
    model = network(file)
    found = {mode: decode(network(file, mode), stored["step/text_token"], audio, [audio.shape[1]]) for mode in MODES}
    found["by token"] = decode(model, stored["step/text_token"], audio, [1] * audio.shape[1])
    packed = network(file)
    packed.pack()
    found["packed"] = decode(packed, stored["step/text_token"], audio, [1] * audio.shape[1])
    found["in parts"] = decode(model, stored["step/text_token"], audio, [1, 2, 5, audio.shape[1] - 8])
    return found


@torch.no_grad()
def decode(model: LinaModel, text: Tensor, audio: Tensor, sizes: list[int]) -> LinaOutput:
    memory, state = model.remember(text), model.initial_state(len(text))
    parts = []
    for part in audio.split(sizes, dim=1):
        parts.append(model.advance(part, memory, state, with_maps=True))
        state = parts[-1].state
    logits, maps = torch.cat([p.logits for p in parts], 1), torch.cat([p.maps for p in parts if p.maps is not None], 2)
    return LinaOutput(logits, state, maps)


def decoded(file: str, name: str) -> list[Tensor]:
    entry = re.fullmatch(
        r"logits_(?:full|cached)|att_full|final_(?P<kind>state|conv)_(?P<layer>\d+)(_(?P<of>[qkv]))?", name
    )
    assert entry is not None, f"{name} is not understood"
    values = []
    for output in decodings(file).values():
        if name.startswith("logits"):
            values.append(output.logits)
        elif name == "att_full":
            assert output.maps is not None
            values.append(output.maps)
        else:
            layer = [*output.state.layers, output.state.alignment][int(entry["layer"])]
            if entry["kind"] == "state":
                values.append(layer[0])
            else:
                keys, width = layer[0].shape[1] * layer[0].shape[2], layer[1].shape[1]
                parts = layer[1].split([keys, keys, width - 2 * keys], dim=1)
                values.append(parts["qkv".index(entry["of"])])
    return values


def voice(file: str, group: str) -> InitialState:
    names = [key for key in tensors(file) if re.fullmatch(rf"{group}/layer\d+(_[kv])?", key)]
    return InitialState({name.partition("/")[2]: tensors(file)[name] for name in names}, scale=1.0)


@cache
def tunings(file: str, group: str) -> list[dict[str, Tensor]]:
    found = []
    for mode in MODES:
        model, batch, state = network(file, mode).requires_grad_(False), batch_of(file), voice(file, group)
        output = model(batch, state=state(model.initial_state(len(batch.text))))
        loss = lina_loss(output.logits, batch.audio, batch.audio_valid).total
        loss.backward()
        gradients = {f"grad_{name}": p.grad for name, p in state.tensors.items() if p.grad is not None}
        found.append({"loss": loss, **gradients})
    return found


def tuned(file: str, key: str) -> list[Tensor]:
    group, _, name = key.partition("/")
    return [found[name] for found in tunings(file, group)]


def generated(file: str, name: str) -> list[Tensor]:
    expected = tensors(file)[f"generate/{name}"]
    model, text = network(file), tensors(file)["step/text_token"]
    columns, batch = expected.shape[2], expected.shape[1]
    if name == "qs_from_prompt":
        return [from_prompt(model, text, tensors(file)["generate/prompt"], columns)]
    states: dict[str, DecoderState | None] = {"qs": None}
    if name == "qs_from_state":
        with torch.no_grad():
            states[name] = voice(file, "ist_rank1")(model.initial_state(1))
    requests = [SpeechRequest(text[0], state=states[name])] * batch
    options = GenerationOptions(
        sampling=SamplingOptions(temperature=0.0), max_frames=columns - len(expected) + 1, free_running=True
    )
    speech: list[Speech] = generate(model, requests, options)
    return [torch.stack([item.tokens for item in speech], dim=1)]


@torch.no_grad()
def from_prompt(model: LinaModel, text: Tensor, prompt: Tensor, columns: int) -> Tensor:
    """The prompt (Q, B, P) is delayed already and has no ends; upstream records what it would have said instead."""
    memory = model.remember(text)
    audio = torch.cat([model.start_column(len(text)), prompt.permute(1, 2, 0)], dim=1)
    out = model.advance(audio, memory, model.initial_state(len(text)))
    drawn = [out.logits.argmax(dim=-1)]
    while sum(part.shape[1] for part in drawn) < columns:
        out = model.advance(drawn[-1][:, -1:], memory, out.state)
        drawn.append(out.logits.argmax(dim=-1))
    return torch.cat(drawn, dim=1).permute(2, 0, 1)


@pytest.mark.parametrize("file", [pytest.param(p.name, id=p.stem) for p in golden_files(FOLDER, "lina_*.safetensors")])
def test_sizes_are_read_off_the_tensors(file: str) -> None:
    """Belongs to the logits: perturbed fixtures fail in them."""
    config = network(file).config
    assert {name: getattr(config, name) for name in stated_config(file)} == stated_config(file)
    check(passed(file, "loss")[0].reshape(1), tensors(file)["forward/loss"], VALUE, name="loss")


def own_names(stored: dict[str, Tensor], module: nn.Module, prefix: str, published: str) -> dict[str, Tensor]:
    names = {name: to_published(prefix + name).removeprefix(published) for name in module.state_dict()}
    assert set(names.values()) == set(stored)
    return {ours: stored[theirs] for ours, theirs in names.items()}


@cache
def part_values(file: str, group: str) -> dict[str, Tensor]:
    options = json.loads(metadata(golden_dir(FOLDER) / file)["config"])[group]
    stored = {key.removeprefix(f"{group}/"): value for key, value in tensors(file).items() if key.startswith(group)}
    weights = {key.removeprefix("weights/"): value for key, value in stored.items() if key.startswith("weights/")}
    builds = {"cross_attention": cross_attention, "text_encoder": text_encoder, "sinpos": sine_positions}
    return builds[group](options, stored, weights)


@torch.no_grad()
def cross_attention(
    options: dict[str, object], stored: dict[str, Tensor], weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    assert set(options) == {"dim", "heads", "rotary"}
    dim, heads = int(str(options["dim"])), int(str(options["heads"]))
    config = LinaConfig(
        dim=dim, cross_attention="plain", cross_heads=heads, cross_rotary=bool(options["rotary"]), text_heads=1,
        num_heads=1,
    )  # fmt: skip
    attention = PlainCrossAttention(config)
    attention.load_state_dict(own_names(weights, attention, "decoder.cross.", "attentive_rnn.cross_att."))
    text, mask, start = stored["in/k"], stored["in/mask"][:, 0], torch.zeros(len(stored["in/k"]), dtype=torch.long)
    memory = attention.remember(text, None)
    y, _, _ = attention(stored["in/q"], memory, (), mask=mask, start=start, with_maps=False)
    shown, _, mean = attention(stored["in/q"], memory, (), mask=mask, start=start, with_maps=True)
    torch.testing.assert_close(shown, y)
    queries = attention.queries(stored["in/q"], start)
    k, v = memory.tensors
    _, maps = multihead(queries, k, v, heads, mask, 0.0, with_weights=True)
    assert maps is not None
    torch.testing.assert_close(maps.mean(dim=1, keepdim=True), mean)
    return {"out/y": y, "out/att": maps}


@torch.no_grad()
def text_encoder(
    options: dict[str, object], stored: dict[str, Tensor], weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    assert set(options) == {"dim", "heads", "n_layers"}
    dim, heads, layers = (int(str(options[name])) for name in ("dim", "heads", "n_layers"))
    encoder = TextEncoder(dim, heads, layers).eval()
    encoder.load_state_dict(own_names(weights, encoder, "text_encoder.", "txt_encoder."))
    valid = stored["in/mask"].diagonal(dim1=1, dim2=2)
    both = stored["in/mask"] | torch.eye(valid.shape[1], dtype=torch.bool)
    if not bool(valid.all()):
        assert torch.equal(self_attention_mask(valid) | torch.eye(valid.shape[1], dtype=torch.bool), both)
    return {"out/y": encoder(stored["in/x"], valid)}


def sine_positions(
    options: dict[str, object], stored: dict[str, Tensor], weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    assert not weights
    return {"out/emb": sinusoid(stored["in/pos"], int(str(options["dim"])))}
