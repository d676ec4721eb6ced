"""Crane's network against the published code: vision tower, D-Attn, prompts, scores, one training step, checkpoints.

The convention is written in ``fixtures.py``. Metrics, preprocessing and dataset listings have a module of their own.
"""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.bench.peers.crane import dattn_per_head, dual_attention_maps
from mmattn.core.weights.checkpoint import load_checkpoint
from mmattn.vision.crane.config import ClipArchitecture, CraneConfig
from mmattn.vision.crane.losses import CraneLosses, crane_loss, dice_loss, focal_loss
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.clip import build_clip, tokenize
from mmattn.vision.crane.network.dattn import dattn, foundation_attention
from mmattn.vision.crane.network.foundation import to_imagenet
from mmattn.vision.crane.network.prompts import encode_texts, prompt_texts
from mmattn.vision.crane.network.scoring import fuse, image_logits, patch_logits, score_features
from mmattn.vision.crane.network.tower import VisionFeatures, VisionTower, dual_attention, resize_positions
from mmattn.vision.crane.weights.convert import convert
from tests.golden.fixtures import Tolerance, check, golden_dir, golden_files, load_tensors

FOLDER = "crane"
EATTN, VISION, DATTN, PROMPTS, LEARNER, SCORES, TRAIN = (
    f"{stem}.safetensors"
    for stem in (
        "eattn_block", "vision_eattn", "vision_dattn", "prompts_text", "prompt_learner", "scores", "train_step",
    )
)  # fmt: skip
FEATURES, TEXT, SCORE, LOSS, AFTER = 1e-4, 5e-5, 1e-5, 5e-5, 1e-5
GRADIENT = {"fp32": Tolerance(of_max=1e-3), "half": Tolerance(of_max=5e-3)}


def expected_tolerance(file: str, key: str) -> Tolerance | float | None:
    """See ``fixtures.py``; everything this module does not compare is an input."""
    if file == EATTN:
        return None if key == "x" else FEATURES
    if file == VISION:
        return None if key == "image" else FEATURES
    if file == DATTN:
        return None if key.startswith("dino.") else SCORE if key.startswith("dattn_weights.") else FEATURES
    if file == PROMPTS:
        if key == "image_features_norm":
            return None
        return 0.0 if "token" in key else TEXT
    if file == LEARNER:
        return 0.0
    if file == SCORES:
        if key.startswith("in."):
            return None
        return FEATURES if key in ("inter.pooled", "inter.fused", "inter.pixel_logits") else SCORE
    if file == TRAIN:
        return _train_tolerance(key)
    return None


def _train_tolerance(key: str) -> Tolerance | float | None:
    if key in ("label", "mask", "loss.prob", "loss.target"):
        return None
    if ".grad." in key:
        return GRADIENT[key.split(".")[0]]
    return AFTER if ".after." in key else LOSS


@cache
def tensors(file: str) -> dict[str, Tensor]:
    return load_tensors(golden_dir(FOLDER) / file) if (golden_dir(FOLDER) / file).is_file() else {}


@cache
def settings() -> dict[str, object]:
    return json.loads((golden_dir(FOLDER) / "config.json").read_text())


@cache
def config() -> CraneConfig:
    stored, weights = settings(), tensors("weights.safetensors")
    architecture = ClipArchitecture(
        embed_dim=weights["visual.proj"].shape[1],
        image_size=stored["res"],
        patch_size=stored["patch"],
        vision_width=stored["width"],
        vision_layers=stored["layers"],
        vision_heads=stored["heads"],
        text_width=stored["twidth"],
        text_layers=stored["tlayers"],
        text_heads=stored["theads"],
        context_length=weights["positional_embedding"].shape[0],
    )
    context = "X " * stored["n_ctx"]
    return CraneConfig(
        clip_architecture=architecture,
        clip_pretrained=None,
        image_size=stored["img"],
        attn_type=stored["attn_type"],
        dual_layers=stored["to_layer"] - 1,
        feature_layers=tuple(stored["features_list"]),
        multilayer="distinct",
        n_ctx=stored["n_ctx"],
        depth=stored["depth"],
        t_n_ctx=stored["t_n_ctx"],
        normal_text=stored["pos_text"].removeprefix(context),
        abnormal_text=stored["neg_text"].removeprefix(context),
        deep_prompt_fp16=True,
    )


@cache
def clip() -> torch.nn.Module:
    weights = {name: x.float() if x.is_floating_point() else x for name, x in tensors("weights.safetensors").items()}
    network = build_clip(config())
    ids, rows = weights.pop("token_embedding.used_ids"), weights.pop("token_embedding.used_rows")
    table = torch.zeros(network.vocab_size, rows.shape[1])
    weights["token_embedding.weight"] = table.index_copy(0, ids, rows)
    network.load_state_dict(weights)
    return network.requires_grad_(False)


def model(**changes: object) -> CraneModel:
    crane = CraneModel(replace(config(), **changes), clip()).eval()
    crane.load_prompts(tensors(LEARNER))
    return crane


def image() -> Tensor:
    return tensors(VISION)["image"]


def tolerate(actual: Tensor, file: str, key: str) -> None:
    check(actual, tensors(file)[key], expected_tolerance(file, key), name=f"{file}:{key}")


def groups(file: str, *inputs: str) -> list[str]:
    """The first parts of the names of a file, without its inputs."""
    return sorted({key.split(".")[0] for key in tensors(file) if key.split(".")[0] not in inputs})


def keys(file: str, group: str) -> list[str]:
    found = [key for key in tensors(file) if key.startswith(f"{group}.")]
    assert found, f"{file} has no entry {group}.*"
    return found


@pytest.mark.parametrize(
    "key", [pytest.param(k, id=f"eattn_block-{k.removeprefix('out.')}") for k in tensors(EATTN) if k != "x"]
)
@torch.no_grad()
def test_attention_of_one_block_matches(key: str) -> None:
    attn = clip().visual.transformer.resblocks[-1].attn
    if key == "out_ori":
        actual, _ = dual_attention(attn, tensors(EATTN)["x"], None)
    else:
        assert key.startswith("out."), f"{key} is not understood"
        attn_type = key.removeprefix("out.")
        _, actual = dual_attention(attn, tensors(EATTN)["x"], attn_type)
        if "^" not in attn_type:  # the form that speed is measured against is held to the same numbers
            tolerate(dual_attention_maps(attn, tensors(EATTN)["x"], attn_type)[1], EATTN, key)
    tolerate(actual, EATTN, key)


@pytest.mark.parametrize("group", [pytest.param(g, id=f"vision_eattn-{g}") for g in groups(VISION, "image")])
@torch.no_grad()
def test_vision_tower_matches(group: str) -> None:
    if group == "pos_embed_resized":
        visual = clip().visual
        grid = VisionTower(visual, config()).grid_of(image())
        tolerate(resize_positions(visual.positional_embedding, visual.grid_size, grid), VISION, group)
    elif group == "image_features":
        tolerate(model().encode_image(image()).image_features, VISION, group)
    elif block := re.fullmatch(r"block(\d+)", group):
        _check_streams(int(block[1]))
    else:
        assert group in ("distinct", "upstream"), f"{group} is not understood"
        features = model(multilayer="distinct" if group == "distinct" else "aliased").encode_image(image())
        patches = [
            x for x, times in zip(features.patch_features, features.repeats(), strict=True) for _ in range(times)
        ]
        for key in keys(VISION, group):
            tolerate(patches[int(key.removeprefix(f"{group}.patch."))], VISION, key)


def _check_streams(block: int) -> None:
    state = next(s for s in VisionTower(clip().visual, config()).streams(image()) if s.layer == block + 1)
    streams = {"ori": state.ori, "e": state.eattn}
    for key in keys(VISION, f"block{block}"):
        tolerate(streams[key.split(".")[1]].transpose(0, 1), VISION, key)


@pytest.mark.parametrize(
    "key", [pytest.param(k, id=f"vision_dattn-{k}") for k in tensors(DATTN) if k.startswith("dattn_weights.")]
)
def test_foundation_attention_matches(key: str) -> None:
    mean = {"batchmean": "batch", "permean": "image"}[key.removeprefix("dattn_weights.")]
    tolerate(foundation_attention(tensors(DATTN)["dino.same"], mean=mean), DATTN, key)


DATTN_WORDS = {
    "both": {},
    "donly": {"both_eattn_dattn": False},
    "othergrid": {},
    "preattn": {"dattn_input": "pre_attn"},
}


@pytest.mark.parametrize(
    "group", [pytest.param(g, id=f"vision_dattn-{g}") for g in groups(DATTN, "dino", "dattn_weights")]
)
@torch.no_grad()
def test_dattn_tower_matches(group: str) -> None:
    options: dict[str, object] = {}
    for word in group.split("_"):
        options |= DATTN_WORDS[word]
    layers = config().feature_layers[-max(1, sum(".dattn_in." in key for key in keys(DATTN, group))) :]
    tower = VisionTower(
        clip().visual,
        replace(config(), feature_layers=layers, foundation="dinov2", dattn_mean="batch", **options),
    )
    foundation = tensors(DATTN)["dino.other" if "othergrid" in group else "dino.same"]
    features = tower(image(), foundation)
    states = [state for state in tower.streams(image()) if state.layer in layers]
    for key in keys(DATTN, group):
        kind, number = re.fullmatch(rf"{group}\.(\w+?)(?:\.(\d+))?", key).groups(default="0")
        if kind == "image_features":
            tolerate(features.image_features, DATTN, key)
        elif kind == "patch":
            tolerate(features.patch_features[int(number)], DATTN, key)
        elif kind == "dino_input":
            _check_dino_input(key)
        else:
            state = states[int(number)]
            block = clip().visual.transformer.resblocks[state.layer - 1]
            if kind == "dattn_in":
                actual = block.ln_1(state.source)
            else:
                assert kind == "dattn_out", f"{key} is not understood"
                weights = foundation_attention(foundation, mean="batch")
                grids = tower.grid_of(image()), tuple(foundation.shape[2:])
                actual = dattn(block, state.source, weights, *grids)
                straightforward = dattn_per_head(block, state.source, foundation, grids[0], mean="batch")
                tolerate(straightforward.transpose(0, 1), DATTN, key)
            tolerate(actual.transpose(0, 1), DATTN, key)


def _check_dino_input(key: str) -> None:
    whole = to_imagenet(image())
    stride = -(-whole.shape[-1] // tensors(DATTN)[key].shape[-1])
    tolerate(whole[..., ::stride, ::stride], DATTN, key)


@pytest.mark.parametrize(
    "group", [pytest.param(g, id=f"prompts_text-{g}") for g in groups(PROMPTS, "image_features_norm")]
)
@torch.no_grad()
def test_text_features_match(group: str) -> None:
    condition = None if group in ("static", "plain") else tensors(PROMPTS)["image_features_norm"]
    crane = model() if condition is None else model(context_type=group)
    prompts, ids = crane.prompt_learner(clip().token_embedding, condition)
    raw = crane.encode_text(condition)
    for key in keys(PROMPTS, group):
        kind = key.removeprefix(f"{group}.")
        if kind == "tokenized":
            tolerate(ids.expand(-1, len(condition), -1) if condition is not None else ids[:, 0], PROMPTS, key)
        elif kind == "tokens":
            tolerate(tokenize(prompt_texts(config()), ids.shape[-1]), PROMPTS, key)
        elif kind == "prompts":
            tolerate(prompts[:, :, : tensors(PROMPTS)[key].shape[2]], PROMPTS, key)
        elif kind == "text_raw.nohalf":
            tolerate(model(deep_prompt_fp16=False).encode_text(condition), PROMPTS, key)
        elif kind == "text_raw":
            tolerate(encode_texts(clip(), prompt_texts(config())) if group == "plain" else raw, PROMPTS, key)
        else:
            assert kind == "text_norm", f"{key} is not understood"
            tolerate(torch.nn.functional.normalize(raw, dim=-1), PROMPTS, key)


@pytest.mark.parametrize("side", [pytest.param(s, id=f"prompt_learner-{s}") for s in ("pos", "neg")])
def test_prompt_buffers_are_clips_own_embeddings(side: str) -> None:
    length = config().clip_architecture.context_length
    ids = tokenize(prompt_texts(config()), length)[0 if side == "pos" else 1]
    words = clip().token_embedding(ids)
    tolerate(ids[None, None].int(), LEARNER, f"tokenized_prompts_{side}")
    tolerate(words[None, None, :1], LEARNER, f"token_prefix_{side}")
    tolerate(words[None, None, 1 + config().n_ctx :], LEARNER, f"token_suffix_{side}")


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=f"{p.stem}-convert") for p in golden_files(FOLDER, "prompt_learner*.pth")]
)
def test_converted_checkpoint_holds_the_learned_tensors(path: Path, tmp_path: Path) -> None:
    stored, _ = load_checkpoint(convert(path, tmp_path / "out", base=config(), clip=clip()), "crane")
    learned = [key for key in tensors(LEARNER) if key.startswith(("ctx_", "compound_"))]
    assert sorted(stored) == sorted(f"prompt_learner.{key}" for key in learned)
    for key in learned:
        tolerate(stored[f"prompt_learner.{key}"], LEARNER, key)


SCORE_WORDS = {
    "static": {},
    "cond": {"inference_context": True},
    "nofusion": {"fusion": False},
    "logitmean": {"soft_mean": False},
    "soft": {"soft_mean": True},
}


def stored_features(variant: str) -> VisionFeatures:
    patches = tensors(SCORES)[f"in.{variant}.patch"]
    side = round(patches.shape[2] ** 0.5)
    return VisionFeatures(tensors(SCORES)[f"in.{variant}.image_features"], tuple(patches), (side, side))


@pytest.mark.parametrize("group", [pytest.param(g, id=f"scores-{g}") for g in groups(SCORES, "in", "inter")])
@torch.no_grad()
def test_scores_and_maps_match(group: str) -> None:
    variant, *words = group.split("_")
    options: dict[str, object] = {"soft_mean": variant == "crane"}
    for word in words:
        options |= SCORE_WORDS[word]
    crane, vision = model(**options), stored_features(variant)
    conditioned = crane.config.inference_context
    text = crane.encode_text(vision.image_features) if conditioned else tensors(SCORES)["in.text_static"]
    for key in keys(SCORES, group):
        kind = key.removeprefix(f"{group}.")
        if kind == "score":
            tolerate(crane.score(vision, text).score, SCORES, key)
        elif kind == "map":
            raw = crane.score(vision, text).raw_map
            stride = -(-raw.shape[-1] // tensors(SCORES)[key].shape[-1])
            tolerate(raw[:, ::stride, ::stride], SCORES, key)
        else:
            smoothing = replace(crane.config, sigma=float(re.fullmatch(r"map_sigma([\d.]+)", kind)[1]))
            tolerate(score_features(vision, text, smoothing).anomaly_map, SCORES, key)


@pytest.mark.parametrize("key", [pytest.param(k, id=f"scores-{k}") for k in tensors(SCORES) if k.startswith("inter.")])
def test_intermediate_scores_match(key: str) -> None:
    vision, text = stored_features("crane"), tensors(SCORES)["in.text_static"]
    logits = [patch_logits(patches, text, 0.07) for patches in vision.patch_features]
    actual = {
        "inter.pixel_logits": lambda: torch.stack(logits),
        "inter.pooled": lambda: fuse(vision, logits, alpha=1.0),
        "inter.fused": lambda: fuse(vision, logits),
        "inter.image_logits_t007": lambda: image_logits(fuse(vision, logits), text, 0.07),
    }[key]()
    tolerate(actual, SCORES, key)


def test_losses_alone_match_train_step() -> None:
    probabilities, target = tensors(TRAIN)["loss.prob"], tensors(TRAIN)["loss.target"]
    tolerate(focal_loss(probabilities, target), TRAIN, "loss.focal")
    tolerate(dice_loss(probabilities, target), TRAIN, "loss.dice")


TRAIN_GROUPS = sorted({tuple(key.split(".")[:2]) for key in tensors(TRAIN) if key.split(".")[0] in GRADIENT})


@pytest.mark.parametrize(
    ("precision", "kind"), [pytest.param(*g, id=f"train_step-{'.'.join(g)}") for g in TRAIN_GROUPS]
)
def test_train_step_matches(precision: str, kind: str) -> None:
    crane = model(deep_prompt_fp16=precision == "half")
    losses = step(crane)
    if kind in ("grad", "after"):
        learned = dict(crane.prompt_learner.named_parameters())
        for key in keys(TRAIN, f"{precision}.{kind}"):
            parameter = learned[key.removeprefix(f"{precision}.{kind}.")]
            if kind == "grad":
                tolerate(parameter.grad, TRAIN, key)
            else:
                # Adam's first step is +-lr whatever the size of a gradient, so noise decides tiny ones.
                clear = tensors(TRAIN)[key.replace(".after.", ".grad.")].abs() >= 1e-6
                expected = tensors(TRAIN)[key]
                check(parameter.detach()[clear], expected[clear], expected_tolerance(TRAIN, key), name=key)
    else:
        field = {"ce": "cross_entropy", "dice_x1": "dice", "focal_x1": "focal"}.get(kind, kind)
        tolerate(getattr(losses, field), TRAIN, f"{precision}.{kind}")


def step(crane: CraneModel) -> CraneLosses:
    vision, stored = stored_features("crane"), tensors(TRAIN)
    optimizer = torch.optim.Adam(crane.prompt_learner.parameters(), lr=1e-3, betas=(0.6, 0.999))
    losses = crane_loss(vision, crane.encode_text(vision.image_features), stored["label"], stored["mask"], crane.config)
    losses.total.backward()
    optimizer.step()
    return losses


RELEASED = sorted(golden_dir(FOLDER).glob("released_*.pth"))


def test_released_checkpoint_converts(tmp_path: Path) -> None:
    if not RELEASED:
        pytest.skip("no released checkpoint in the fixture folder (third-party data, not part of this repository)")
    stored, written = load_checkpoint(convert(RELEASED[0], tmp_path / "out"), "crane")
    crane = CraneConfig.from_dict(written)
    assert (crane.n_ctx, crane.depth, crane.t_n_ctx) == (12, 9, 4)
    assert crane.foundation == ("dinov2" if "cranep" in RELEASED[0].name else "none")
    assert sum(tensor.numel() for tensor in stored.values()) == 43008
    assert crane.deep_prompt_fp16
