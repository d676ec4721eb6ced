"""Released Crane checkpoints (``epoch_N.pth``) turned into ours.

A released file holds one table, ``prompt_learner``: the learned context vectors and deep prompts, and buffers that
repeat CLIP's own embeddings of the prompt texts. Sizes are read off the shapes; the attention settings are not stored,
so the variant comes from the caller or from the folder or file name (``trained_on_mvtec_cranep/epoch_5.pth``). The
buffers serve as a check of the texts and, where CLIP weights are at hand, of the CLIP; then they are dropped.

Source of the format: AlirezaSalehy/Crane at commit 39181f9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from torch import Tensor, nn

from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.core.weights.loading import check_names
from mmattn.core.weights.torch_file import load_torch_file, read_entries
from mmattn.errors import CheckpointError, InputError
from mmattn.vision.crane.config import RECIPES, CraneConfig
from mmattn.vision.crane.network.clip import text_tower, tokenize
from mmattn.vision.crane.network.prompts import prompt_texts

__all__ = ["convert", "read_prompts"]

Variant = Literal["crane", "crane_plus", "crane_plus_soft"]

_BUFFER = re.compile(r"(token_prefix|token_suffix|tokenized_prompts)_(pos|neg)")
_DEEP = "compound_prompts_text."


def convert(
    path: str | Path,
    output: str | Path,
    *,
    variant: Variant | None = None,
    clip_weights: str | None = None,
    base: CraneConfig | None = None,
    clip: nn.Module | None = None,
) -> Path:
    """Writes the checkpoint folder of a released file and returns its path.

    Args:
        path: A ``.pth`` file of the authors.
        output: Folder to write.
        variant: A name of :data:`RECIPES`; None reads crane or crane_plus off the file's path.
        clip_weights: Path of the CLIP weights; the file is then checked against their token embeddings.
        base: Config to fill in, instead of the variant's on CLIP ViT-L/14-336.
        clip: The CLIP itself, in the place of ``clip_weights``.

    Raises:
        CheckpointError: If the file is damaged, holds pickled objects, is no Crane checkpoint, or was made with
            another CLIP.
        InputError: If the variant is unknown or cannot be told.
    """
    file = Path(path).expanduser()
    state = read_prompts(file)
    if base is None:
        base = replace(CraneConfig(), **RECIPES[_variant_of(file, variant)])
    config = _with_sizes(base, state, file)
    _check_texts(config, state, file)
    table = _token_table(clip_weights, clip)
    if table is not None:
        _check_embeddings(table, config, state, file)
    tensors = {f"prompt_learner.{k}": v.float() for k, v in state.items() if not _BUFFER.fullmatch(k)}
    return save_checkpoint(output, tensors, system="crane", config=config.to_dict(), card=_card(config, file))


def read_prompts(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a released file, names checked.

    Raises:
        CheckpointError: As :func:`convert`.
    """
    content: Any = load_torch_file(file)
    if isinstance(content, Mapping) and isinstance(content.get("prompt_learner"), Mapping):
        content = content["prompt_learner"]
    if not isinstance(content, Mapping) or "ctx_pos" not in content:
        names = ", ".join(str(name) for name in list(content)[:4]) if isinstance(content, Mapping) else type(content)
        raise CheckpointError(
            f"'{file}' is no Crane checkpoint: expected the entry 'prompt_learner', found {names or 'nothing'}.",
            "Released files are called trained_on_*_crane*/epoch_N.pth.",
        )
    depth = sum(str(name).startswith(_DEEP) for name in content)
    expected = {"ctx_pos", "ctx_neg", *(f"{_DEEP}{i}" for i in range(depth))}
    check_names({name for name in content if not _BUFFER.fullmatch(name)}, expected, what=f"'{file}'")
    return dict(content)


def _variant_of(file: Path, variant: Variant | None) -> str:
    if variant in RECIPES:
        return variant
    if variant is not None:
        raise InputError(f"variant is {variant!r}, expected one of {', '.join(RECIPES)}.")
    for part in (file.name, *(parent.name for parent in list(file.absolute().parents)[:2])):
        if re.search(r"crane(p|_?plus|\+)(?![a-z])", part.lower()):
            return "crane_plus"
        if re.search(r"crane(?![a-z])", part.lower()):
            return "crane"
    raise InputError(
        f"The path '{file}' does not say which variant it is.", "Pass --variant crane or --variant crane_plus."
    )


def _with_sizes(base: CraneConfig, state: Mapping[str, Tensor], file: Path) -> CraneConfig:
    """Returns the config with the sizes of the tensors, checked against each other and against CLIP."""
    deep = [tensor for name, tensor in state.items() if name.startswith(_DEEP)]
    context = state["ctx_pos"]
    width = context.shape[-1]
    same = context.ndim == 4 and context.shape == state["ctx_neg"].shape
    if not same or any(x.ndim != 2 or x.shape != deep[0].shape or x.shape[1] != width for x in deep):
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in state.items() if not _BUFFER.fullmatch(name))
        raise CheckpointError(f"'{file}' has tensors whose sizes contradict each other: {shapes}.")
    expected = _text_width(base)
    if width != expected:
        raise CheckpointError(
            f"'{file}' was trained with a CLIP whose text width is {width}; {base.clip_model} has {expected}.",
            "Give the config of the right CLIP as base.",
        )
    return replace(
        base,
        n_ctx=context.shape[2],
        depth=len(deep) + 1,
        t_n_ctx=deep[0].shape[0] if deep else base.t_n_ctx,
        deep_prompt_fp16=True,
    )


def _text_width(config: CraneConfig) -> int:
    if config.clip_architecture is not None:
        return config.clip_architecture.text_width
    described = open_clip.get_model_config(config.clip_model)
    if described is None:
        raise InputError(f"open_clip has no model {config.clip_model!r}.")
    return int(described["text_cfg"]["width"])


def _check_texts(config: CraneConfig, state: Mapping[str, Tensor], file: Path) -> None:
    """Compares the stored BPE ids with those of the config's texts."""
    for side, text in zip(("pos", "neg"), prompt_texts(config), strict=True):
        stored = state.get(f"tokenized_prompts_{side}")
        if stored is None:
            continue
        ids = stored.flatten().long()
        if not torch.equal(ids, tokenize([text], len(ids))[0]):
            words = open_clip.get_tokenizer("ViT-B-32").decode(ids[ids > 0].tolist())
            raise CheckpointError(f"'{file}' was trained with the text {words!r}, expected {text!r}.")


def _token_table(clip_weights: str | None, clip: nn.Module | None) -> Tensor | None:
    """Returns CLIP's token embeddings (vocabulary, W), or None when no CLIP is at hand."""
    if clip is not None:
        table: Tensor = text_tower(clip).token_embedding.weight
        return table.detach()
    if clip_weights is None:
        return None
    state = read_entries(clip_weights)
    for name in ("token_embedding.weight", "text.token_embedding.weight"):
        if name in state:
            return torch.as_tensor(state[name])
    raise CheckpointError(f"'{clip_weights}' holds no CLIP weights: it has no token_embedding.weight.")


def _check_embeddings(table: Tensor, config: CraneConfig, state: Mapping[str, Tensor], file: Path) -> None:
    """Compares the stored start and suffix embeddings with CLIP's own."""
    ids = tokenize(prompt_texts(config))
    for side, row in zip(("pos", "neg"), ids, strict=True):
        for part, wanted in (("prefix", row[:1]), ("suffix", row[1 + config.n_ctx :])):
            stored = state.get(f"token_{part}_{side}")
            if stored is None:
                continue
            own = table[wanted].float()
            rows = stored.float().reshape(-1, stored.shape[-1])
            if rows.shape != own.shape or not torch.allclose(rows, own, atol=1e-4, rtol=1e-2):
                raise CheckpointError(
                    f"'{file}' was trained with other CLIP weights: its token embeddings differ from those given.",
                    "The released checkpoints need OpenAI's ViT-L/14-336.",
                )


def _card(config: CraneConfig, file: Path) -> str:
    plus = config.foundation != "none"
    name = "Crane+" if plus else "Crane"
    return f"""---
license: mit
library_name: mmattn
tags: [anomaly-detection, zero-shot, clip]
---
# {name} prompts, converted from `{file.name}`

Learned prompts of {name} (arXiv 2504.11055), trained and released by its authors (AlirezaSalehy/Crane, MIT licence,
Copyright 2024 Alireza Salehi) and converted by mmattn without change of values. They need the CLIP
`{config.clip_model}` ({config.clip_pretrained}){", and DINOv2 ViT-B/14 with registers" if plus else ""}.

Intended for finding defects in pictures of objects and textures without normal samples. A score is no proof of a
defect; check the threshold on pictures of your own.
"""
