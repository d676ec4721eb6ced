"""CRASH's network, its parts, its losses and gradients, and DSTA, against the authors' code.

The convention is written in ``fixtures.py``. Metrics and the selection of boxes have a module of their own.
"""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mmattn.bench.peers.crash import PerStepCrash, PerStepOutput
from mmattn.video.crash.config import CrashConfig, CrashLossOptions
from mmattn.video.crash.losses import CrashLosses, crash_loss, frame_losses
from mmattn.video.crash.model import CrashModel, CrashOutput, RiskModel, build_model
from mmattn.video.crash.network.context import ChannelAttention, SpectralGate
from mmattn.video.crash.network.focus import TemporalFocus
from mmattn.video.crash.network.heads import VideoAggregation
from mmattn.video.crash.network.object_attention import ObjectAttention
from mmattn.video.crash.weights.convert import from_published, to_published
from mmattn.video.crash.weights.names import joins, regroup
from tests.golden.fixtures import Tolerance, check, golden_dir, golden_files, load_json, load_tensors

FOLDER = "crash"
VALUE, GRADIENT = Tolerance(atol=1e-5, rtol=1e-4), Tolerance(atol=1e-4, rtol=1e-3)
# Only the README says these of the DSTA fixture.
DSTA = {"fps": 10.0, "temporal_window": 5}
CHANNEL_REDUCTION = 16
# Left out of our network: a softmax does not notice this bias, so its gradient is zero.
SILENT = "sp_attention.wk.bias"
# What was recorded, and of which frame if not of all.
ENTRY = re.compile(r"(.+?)(_t0|_first|_last)?")


def kind_of(file: str) -> str:
    """Tells the kinds of tensor files apart; one that is not understood fails every test."""
    return next(kind for kind in ("model_", "modules", "exp_loss", "dsta_") if file.startswith(kind))


def expected_tolerance(file: str, key: str) -> Tolerance | float | None:
    """See ``fixtures.py``."""
    if file.endswith("_keys.json"):
        return 0.0 if key.startswith("state_dict.") else None
    if not file.endswith(".safetensors"):
        return None
    kind = kind_of(file)
    if kind == "exp_loss":
        return None if key.split("/")[1] in ("logits", "y", "toa", "fps") else Tolerance(atol=1e-6)
    if kind == "modules":
        return VALUE if key.split("/")[1].startswith("out") else None
    if key in ("x", "y", "toa") or key.startswith(("weights/", "unsaved/")):
        return None
    return GRADIENT if key.startswith("grad") else VALUE


@cache
def tensors(file: str) -> dict[str, Tensor]:
    return load_tensors(golden_dir(FOLDER) / file)


def settings(file: str) -> dict[str, Any]:
    return dict(load_json(golden_dir(FOLDER) / "config.json")[Path(file).stem])


def outputs(file: str) -> list[str]:
    """The names of a file that are compared with something."""
    return [key for key in tensors(file) if expected_tolerance(file, key) is not None]


def cases() -> list[object]:
    found = [(path.name, key) for path in golden_files(FOLDER) for key in outputs(path.name)]
    found += [(path.name, "state_dict") for path in golden_files(FOLDER, "model_*_keys.json")]
    return [pytest.param(file, key, id=f"{Path(file).stem}-{key}") for file, key in found]


@pytest.mark.parametrize(("file", "key"), cases())
def test_entry_matches(file: str, key: str) -> None:
    # One test for all kinds: another set of fixtures may lack one of them.
    if key == "state_dict":
        check_names(file)
        return
    kinds = {"model_": check_network, "modules": check_part, "exp_loss": check_frame_losses, "dsta_": check_dsta}
    kinds[kind_of(file)](file, key)


def tolerate(actual: Tensor, file: str, key: str) -> None:
    check(
        actual.reshape(tensors(file)[key].shape),
        tensors(file)[key],
        expected_tolerance(file, key),
        name=f"{file}:{key}",
    )


def formula(index: int, shape: tuple[int, ...], scale: float, phase: float) -> Tensor:
    """The numbers that stand in for stored ones, in float64 and cast."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * torch.sin(0.731 * i + 0.017 * (i * i % 1013) + 1.7 * index + phase)).float().reshape(shape)


class Clips(NamedTuple):
    """A network's weights by their published names, and what it is run on."""

    config: CrashConfig
    weights: dict[str, Tensor]
    features: Tensor
    labels: Tensor
    toa: Tensor
    options: CrashLossOptions


@cache
def clips(file: str) -> Clips:
    stored, options = tensors(file), settings(file)
    known = {"hidden_dim", "grid", "tfa_heads", "aggregation_heads", "x_dim", "num_boxes", "batch", "frames", "fps",
             "gru_layers", "window", "u1", "u2", "channel_attention", "toa", "rho_1", "rho_2", "phase"}  # fmt: skip
    assert set(options) <= known, f"{file}: options {sorted(set(options) - known)} are not understood"
    assert options.get("channel_attention", "upstream") in ("upstream", "bottleneck")
    if "x" in stored:
        weights = {key.removeprefix("weights/"): value for key, value in stored.items() if key.startswith("weights/")}
        features = stored["x"]
    else:
        weights = formula_weights(file, options)
        features = formula_features(options)
    same = ("num_boxes", "fps", "tfa_heads", "aggregation_heads", "window")
    base = CrashConfig(dropout=0.0, **{name: options[name] for name in same if name in options})
    config, _ = from_published(weights, base, what=file)
    assert config.grid == tuple(options["grid"])
    loss = CrashLossOptions(frame_weight=options.get("u1", 1), aux_weight=options.get("u2", 15))
    return Clips(config, weights, features, stored["y"][:, 1], stored["toa"].flatten(), loss)


def formula_weights(file: str, options: dict[str, Any]) -> dict[str, Tensor]:
    weights = {}
    for row in load_json(golden_dir(FOLDER) / f"{Path(file).stem}_keys.json")["sorted_parameter_keys"]:
        key, shape = row["key"], tuple(row["shape"])
        if key in ("rho_1", "rho_2"):
            weights[key] = torch.ones(())
            continue
        fan = shape[1] if len(shape) == 2 else torch.Size(shape[1:]).numel()
        scale = 0.5 if key == "fftblock.complex_weight" else 0.1 if len(shape) == 1 else 2 / fan**0.5
        weights[key] = formula(row["index"], shape, scale, options["phase"])
    return weights


def formula_features(options: dict[str, Any]) -> Tensor:
    shape = (options["batch"], options["frames"], options["num_boxes"] + 1, options["x_dim"])
    return formula(1000, shape, 1.0, options["phase"]).relu()


@cache
def network(file: str) -> CrashModel:
    config, loaded = from_published(clips(file).weights, clips(file).config)
    model = build_model(config)
    model.load_tensors(loaded)
    assert isinstance(model, CrashModel)
    return model


@cache
def straightforward(file: str) -> tuple[PerStepCrash, PerStepOutput] | None:
    """The form that speed is measured against is held to the same numbers; it knows the published options only."""
    c = clips(file).config
    if c.channel_attention != "upstream":
        return None
    peer = PerStepCrash(
        c.feature_dim, c.hidden_dim, c.grid, classifier_dim=c.classifier_dim, window=c.window, tfa_layers=c.tfa_layers,
        tfa_heads=c.tfa_heads, aggregation_heads=c.aggregation_heads, num_layers=c.num_layers,
    )  # fmt: skip
    missing, _ = peer.load_state_dict(clips(file).weights, strict=False)
    assert missing == []
    return peer, peer(clips(file).features)


class Trace(NamedTuple):
    """What passes through our network, frame by frame."""

    output: CrashOutput
    hidden: Tensor  # (T, L, B, D)
    objects: Tensor  # (B, T, D)
    filtered: Tensor
    context: Tensor
    focused: Tensor  # (T - 2, L, B, D)
    video: Tensor
    streamed: Tensor  # (B, T, 2)


@cache
@torch.no_grad()
def trace(file: str) -> Trace:
    model, features = network(file), clips(file).features
    assert model.object_attention is not None
    assert model.context is not None
    assert model.focus is not None
    assert model.auxiliary is not None
    state = model.initial_state(len(features))
    hidden, objects, focused, streamed = [], [], [], []
    for frame, slots in zip(model.observe(features, None).frames(), features.unbind(1), strict=True):
        objects.append(model.object_attention(frame.boxes, state.hidden)[0])
        logits, _, state = model.step(slots, state)
        if len(state.history) >= 3:
            focused.append(model.focus(torch.stack(state.history, dim=2)))
        hidden.append(state.hidden)
        streamed.append(logits)
    image = model.embed(features)[:, :, 0]
    output = model(features)
    return Trace(
        output,
        torch.stack(hidden),
        torch.stack(objects, dim=1),
        model.context.gate(image),
        model.context(image),
        torch.stack(focused) if focused else state.hidden.new_zeros(0),
        model.auxiliary[0](output.hidden),
        torch.stack(streamed, dim=1),
    )


def losses(output: CrashOutput, file: str, module: Any, weighting: str = "per_sample") -> CrashLosses:
    found = clips(file)
    options = replace(found.options, weighting=weighting)
    return crash_loss(output, found.labels, found.toa, found.config.fps, options, rho=(module.rho_1, module.rho_2))


def check_network(file: str, key: str) -> None:
    if key.startswith("grad"):
        check_gradients(file, key)
    elif key.startswith("loss"):
        check_losses(file, key)
    elif key.startswith("x_"):
        x = clips(file).features
        tolerate(x.flatten()[:8] if key == "x_first8" else checksum(x, key), file, key)
    else:
        for actual in run_values(file, key):
            tolerate(actual, file, key)


def checksum(x: Tensor, key: str) -> Tensor:
    assert key == "x_checksum", f"{key} is not understood"
    return x.double().sum()


def run_values(file: str, key: str) -> list[Tensor]:
    """Returns an entry as our network computes it, in batch and where it can in stream, and as the peer does."""
    (entry, moment), ours, peer = ENTRY.fullmatch(key).groups(), trace(file), straightforward(file)
    frames = {None: slice(None), "_t0": slice(1), "_first": slice(1), "_last": slice(-1, None)}[moment]
    values = {
        "logits": [ours.output.logits, ours.streamed],
        "prob": [x.softmax(dim=-1)[..., 1] for x in (ours.output.logits, ours.streamed)],
        "h_last_layer": [ours.output.hidden],
        "h_all": [ours.hidden],
        "obj_aware": [ours.objects[:, frames]],
        "fft_out": [ours.filtered[:, frames]],
        "ctx_aware": [ours.context[:, frames]],
        "rsd": [ours.focused[frames]],
        "rsd_out": [ours.focused],
        "embed_video": [ours.video],
        "aux_logits": [ours.output.aux_logits],
    }[entry]
    return values if peer is None else [*values, peer_value(peer[1], entry, frames)]


def peer_value(peer: PerStepOutput, entry: str, frames: slice) -> Tensor:
    return {
        "logits": peer.logits,
        "prob": peer.logits.softmax(dim=-1)[..., 1],
        "h_last_layer": peer.hidden[:, -1].transpose(0, 1),
        "h_all": peer.hidden,
        "obj_aware": peer.objects[:, frames],
        "fft_out": peer.filtered[:, frames],
        "ctx_aware": peer.context[:, frames],
        "rsd": peer.focused[frames],
        "rsd_out": peer.focused,
        "embed_video": peer.video,
        "aux_logits": peer.aux_logits,
    }[entry]


def check_losses(file: str, key: str) -> None:
    output = trace(file).output
    model = network(file)
    per_sample, upstream = losses(output, file, model), losses(output, file, model, "upstream_batch_mean")
    actual = {
        "loss_ce": per_sample.frame,
        "loss_ce_vector_toa": per_sample.frame,
        "loss_ce_upstream": upstream.frame,
        "loss_aux": per_sample.auxiliary,
        "loss_log": per_sample.log,
        "loss_total_vector_toa": per_sample.total,
        "loss_total_upstream": upstream.total,
    }[key]
    tolerate(actual, file, key)


@cache
def gradients(file: str) -> list[dict[str, Tensor]]:
    """Gradients by published names, ours and the straightforward form's."""
    model, found = network(file), clips(file)
    model.train().zero_grad()
    losses(model(found.features), file, model).total.backward()
    model.eval()
    assert all(parameter.grad is not None for parameter in model.parameters())
    ours = to_published({name: p.grad for name, p in model.named_parameters()}, found.config)
    if (pair := straightforward(file)) is None:
        return [ours]
    peer, output = pair
    scores = CrashOutput(output.logits, output.logits, output.logits, output.aux_logits)
    losses(scores, file, peer).total.backward()
    return [ours, {name: p.grad for name, p in peer.named_parameters() if p.grad is not None}]


def check_gradients(file: str, key: str) -> None:
    for found in gradients(file):
        if key == "grad_global_norm":
            actual = torch.nn.utils.get_total_norm(list(found.values()))
        else:
            name = key.removeprefix("grad/")
            actual = found.get(name, torch.zeros(())) if name != SILENT else torch.zeros(tensors(file)[key].shape)
        tolerate(actual, file, key)


def check_names(file: str) -> None:
    expected = load_json(golden_dir(FOLDER) / file)["state_dict"]
    model = network(file.replace("_keys.json", ".safetensors"))
    published = to_published(model.state_dict(), model.config)
    assert set(published) <= set(expected)
    for name, shape in expected.items():
        if name in published:
            assert list(published[name].shape) == shape, name
        else:  # what the converter leaves out
            assert re.fullmatch(r"RSD\.layer\d\.\d\.fc\..*|.*pos_encoding|.*channel_attention.*|.*\.wk\.bias", name), (
                name
            )


def load_part(
    module: nn.Module, ours: str, published: str, weights: dict[str, Tensor], config: CrashConfig
) -> nn.Module:
    """Fills a part of the network whose names begin with ``ours`` from weights that begin with ``published``."""
    state = {}
    for join in joins(config):
        if all(name.startswith(published) for name in join.published):
            parts = regroup(
                [weights[name.removeprefix(published)] for name in join.published], len(join.ours), join.axis
            )
            state |= zip([name.removeprefix(ours) for name in join.ours], parts, strict=True)
    module.load_state_dict(state)
    return module.eval()


@torch.no_grad()
def check_part(file: str, key: str) -> None:
    group, entry = key.split("/")
    stored = {k.removeprefix(f"{group}/"): v for k, v in tensors(file).items() if k.startswith(f"{group}/")}
    weights = {k.removeprefix("w/"): v for k, v in stored.items() if k.startswith("w/")}
    options = settings(file)
    dim, grid = options["hidden_dim"], tuple(options["grid"])
    heads = {name: options[name] for name in ("tfa_heads", "aggregation_heads")}
    layers = len(weights["weights1"]) - 1 if group == "tfa" else 3
    config = CrashConfig(hidden_dim=dim, grid=grid, tfa_layers=layers, **heads)
    if group == "spatial":
        attend = load_part(ObjectAttention(dim, 2), "object_attention.", "sp_attention.", weights, config)
        actual = attend(stored["obj"], stored["h"])[0]
    elif group == "spectral":
        gate = load_part(SpectralGate(grid), "context.gate.", "fftblock.", weights, config)
        actual = gate(stored["in"].squeeze(-1))
    elif group.startswith("chan"):
        channels = stored["in"].shape[1]
        attend = ChannelAttention(channels, channels // CHANNEL_REDUCTION)
        attend.load_state_dict(weights)
        actual = attend(stored["in"])
    elif group == "tfa":
        tfa = load_part(TemporalFocus(dim, 2, layers, heads["tfa_heads"]), "focus.", "RSD.", weights, config)
        window = stored[entry.replace("out", "in")]  # (K, L, B, D), the newest first
        actual = tfa(window.flip(0).permute(1, 2, 0, 3))
    else:
        assert group == "agg", f"{key} is not understood"
        aggregate = VideoAggregation(dim, heads["aggregation_heads"])
        load_part(aggregate, "auxiliary.0.", "self_aggregation.", weights, config)
        actual = aggregate(stored["in"].transpose(1, 2))
    tolerate(actual, file, key)


def check_frame_losses(file: str, key: str) -> None:
    case, entry = key.split("/")
    logits, y, toa, fps = (tensors(file)[f"{case}/{name}"] for name in ("logits", "y", "toa", "fps"))
    form = re.fullmatch(r"(crash|unit)_(?:rho([\d.]+)|decay|toa_B1_broadcast)", entry)
    assert form is not None, f"{key} is not understood"
    options = CrashLossOptions(
        decay=1.0 if form[1] == "unit" else 0.5,
        weighting="upstream_batch_mean" if entry.endswith("broadcast") else "per_sample",
    )
    actual = frame_losses(logits, y[:, 1], toa, fps.item(), options)
    tolerate(actual / float(form[2] or 1.0) ** 2, file, key)


@cache
def dsta(file: str) -> tuple[RiskModel, CrashOutput]:
    stored = tensors(file)
    named = {
        re.sub("^(weights|unsaved)/", "", k): v for k, v in stored.items() if k.startswith(("weights/", "unsaved/"))
    }
    base = CrashConfig(architecture="dsta", num_boxes=stored["x"].shape[2] - 1, **DSTA)
    config, loaded = from_published(named, base)
    model = build_model(config)
    model.load_tensors(loaded)
    return model, model(stored["x"])


@torch.no_grad()
def check_dsta(file: str, key: str) -> None:
    stored, (model, output) = tensors(file), dsta(file)
    options = CrashLossOptions(decay=1.0, learn_rho=False)
    found = crash_loss(output, stored["y"][:, 1], stored["toa"], model.config.fps, options)
    actual = {
        "alphas": output.box_attention.permute(1, 2, 0),
        "logits": output.logits,
        "h": output.hidden,
        "loss_ce": found.frame,
        "loss_aux": found.auxiliary,
    }[key]
    tolerate(actual, file, key)
