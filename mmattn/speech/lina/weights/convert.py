"""Checkpoints of the published code turned into ours, and our tensors under the published names.

theodorblackbird/lina-speech writes Lightning checkpoints ``{"state_dict": {"model.<name>": ...}}``; its older tools
``{"model": {<name>: ...}}``; bare state dicts and safetensors are read too. Sizes are read off the shapes. What no
tensor shows (dropout, the codec) comes from the caller; the gate's divisor, 16, and the eps of the norms are the
published ones. Which tensor becomes which is written in :mod:`.names`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.core.weights.loading import check_fit
from mmattn.core.weights.torch_file import read_entries
from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.config import SPECIAL_TOKENS, LinaConfig
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.weights.names import strip_wrappers, to_ours, to_published

__all__ = ["convert", "from_published", "model_card", "published_state", "read_published", "weights_file"]

_WEIGHTS = ("*.ckpt", "*.pt", "*.pth", "*.safetensors")
_CODECS = {4096: "wavtokenizer", 1024: "encodec"}
_DECODER = "attentive_rnn."
_CROSS = f"{_DECODER}cross_att."
_FIRST = f"{_DECODER}encoder.0.tmix."


def convert(path: str | Path, output: str | Path, *, base: LinaConfig | None = None) -> Path:
    """Writes the checkpoint folder of a published file and returns its path.

    Args:
        path: A ``.ckpt``, ``.pt``, ``.pth`` or ``.safetensors`` file, or a folder with one.
        output: Folder to write.
        base: Config whose fields that no tensor shows are taken; None has the codec that the codebooks' size suggests.

    Raises:
        CheckpointError: If the file is damaged, holds pickled objects or numbers that are not finite, belongs to
            another system, or its tensors contradict each other.
        InputError: If a folder does not hold exactly one such file.
    """
    file = weights_file(Path(path).expanduser())
    config, tensors = from_published(read_published(file), base, what=f"'{file}'")
    return save_checkpoint(output, tensors, system="lina", config=config.to_dict(), card=model_card(config, file))


def read_published(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a published file by their names, without what trainers put before them.

    Raises:
        CheckpointError: As :func:`convert`.
    """
    named = read_entries(file)
    tensors = {strip_wrappers(name): value for name, value in named.items() if isinstance(value, Tensor)}
    if not {"txt_embed.weight", "rvq_embed.weight"} <= set(tensors):
        found = ", ".join(sorted(named)[:4]) or "no table of tensors"
        raise CheckpointError(
            f"'{file}' is no Lina checkpoint: expected txt_embed.weight and rvq_embed.weight, found {found}."
        )
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(
                f"'{file}' has numbers in {name} that are not finite; its training diverged.", "Use an earlier one."
            )
    return tensors


def from_published(
    published: Mapping[str, Tensor], base: LinaConfig | None = None, *, what: str = "The checkpoint"
) -> tuple[LinaConfig, dict[str, Tensor]]:
    """Returns the config and our tensors of published ones.

    Args:
        published: Tensors by their published names.
        base: Fields that no tensor shows; None takes the published settings.
        what: Subject of error messages.

    Raises:
        CheckpointError: If names are missing or unknown, or sizes contradict each other.
    """
    config = _with_sizes(base, published, what)
    own = LinaModel(config).state_dict()
    names = to_ours(own)
    unused = {"logits_head.weight"} if config.tie_embeddings else set()
    used = {name: tensor for name, tensor in published.items() if name not in unused}
    check_fit(used, {name: own[ours] for name, ours in names.items()}, what=what)
    return config, {ours: published[name].float() for name, ours in names.items()}


def published_state(tensors: Mapping[str, Tensor], config: LinaConfig) -> dict[str, Tensor]:
    """Returns our tensors under the published names.

    Args:
        tensors: By our names.
        config: Says whether the logits' weights are the embedding's.
    """
    published = {to_published(name): tensor for name, tensor in tensors.items()}
    if config.tie_embeddings:
        published["logits_head.weight"] = published["rvq_embed.weight"]
    return published


def _with_sizes(base: LinaConfig | None, state: Mapping[str, Tensor], what: str) -> LinaConfig:
    """Returns the config with the sizes the tensors show."""
    try:
        vocab, dim = state["txt_embed.weight"].shape
        codebooks, audio, _ = state["rvq_embed.weight"].shape
        base = base or LinaConfig(codec=_CODECS.get(audio - SPECIAL_TOKENS, LinaConfig().codec))
        head = state.get("logits_head.weight")
        found: dict[str, Any] = {
            "dim": dim,
            "text_vocab": vocab - (base.text_mask_probability > 0.0),
            "num_codebooks": codebooks,
            "codebook_size": audio - SPECIAL_TOKENS,
            "text_layers": _count(state, r"txt_encoder\.sa\.(\d+)\..*"),
            "text_heads": dim // (4 * len(state["txt_encoder.sa.0.tmix.rotary.freqs"])),
            "num_layers": _count(state, rf"{re.escape(_DECODER)}encoder\.(\d+)\..*"),
            "tie_embeddings": head is None or torch.equal(head, state["rvq_embed.weight"]),
        }
        return replace(base, **found, **_mixer_sizes(state, dim), **_cross_sizes(state, dim))
    except KeyError as error:
        raise CheckpointError(f"{what} has no tensor {error.args[0]}, which shows the model's sizes.") from error
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{what} has sizes that contradict each other: {error}") from error


def _mixer_sizes(state: Mapping[str, Tensor], dim: int) -> dict[str, Any]:
    if f"{_FIRST}bonus" in state:
        return {
            "mixer": "rwkv6",
            "num_heads": len(state[f"{_FIRST}bonus"]),
            "expand_k": len(state[f"{_FIRST}k_proj.linear.weight"]) / dim,
            "expand_v": len(state[f"{_FIRST}v_proj.linear.weight"]) / dim,
        }
    values = len(state[f"{_FIRST}v_proj.weight"])
    return {
        "mixer": "simple_gla" if f"{_FIRST}gk_proj.weight" in state else "gla",
        "num_heads": values // len(state[f"{_FIRST}g_norm_swish_gate.weight"]),
        "expand_k": len(state[f"{_FIRST}q_proj.weight"]) / dim,
        "expand_v": values / dim,
        "short_conv": f"{_FIRST}q_conv1d.weight" in state,
    }


def _cross_sizes(state: Mapping[str, Tensor], dim: int) -> dict[str, Any]:
    freqs = state.get(f"{_CROSS}rotary.freqs")
    if f"{_CROSS}pos_net.norm1.weight" in state:
        width = len(state[f"{_CROSS}pos_net.norm1.weight"])
        return {
            "cross_attention": "blind",
            "cross_rotary": freqs is not None,
            "position": "convolutional" if f"{_CROSS}pos_embed.embed.weight" in state else "sinusoidal",
            "position_dim": None if width == dim else width,
        }
    # The heads of an attention without rotary positions show nowhere.
    heads = {} if freqs is None else {"cross_heads": dim // (4 * len(freqs))}
    return {"cross_attention": "plain", "cross_rotary": freqs is not None, **heads}


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.fullmatch(pattern, name))})


def weights_file(path: Path) -> Path:
    """Returns a weights file, or the only one in a folder.

    Raises:
        InputError: If a folder does not hold exactly one.
    """
    if not path.is_dir():
        return path
    found = sorted(file for pattern in _WEIGHTS for file in path.glob(pattern))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:4]) or "none"
        raise InputError(f"'{path}' should hold one weights file, found {names}.", "Pass the file itself.")
    return found[0]


def model_card(config: LinaConfig, file: Path) -> str:
    """Returns the card of a model that was converted from ``file``."""
    return f"""---
library_name: mmattn
tags: [text-to-speech, audio]
---
# Lina-Speech, converted from `{file.name}`

Weights of Lina-Speech (arXiv 2410.23320) in the layout of theodorblackbird/lina-speech, converted by mmattn without
change of values. They speak in tokens of {config.codec}, {config.num_codebooks} codebook(s) of {config.codebook_size}.

The published repository is under CC BY-NC-SA 4.0: not for commercial use. The same presumably holds for its weights.

Speech in another person's voice needs that person's consent, and generated speech should be called that.
"""
