"""The CLIP under Crane: built by open_clip's name and tag, from a local file, or from bare sizes.

Crane needs a vision transformer with a class token and a causal text transformer, both with open_clip's module names;
:func:`build_clip` checks that. The text tower may know only a few tokens (``CraneConfig.token_ids``): then
:func:`tokenize` turns BPE ids into rows of its smaller table, in the same order, so that the end-of-text token stays
the largest number of a text and padding stays 0.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from mmattn.core.weights.loading import load_into
from mmattn.core.weights.pretrained import open_clip_file
from mmattn.core.weights.torch_file import read_state
from mmattn.errors import InputError
from mmattn.vision.crane.config import ClipArchitecture, CraneConfig

__all__ = ["build_clip", "compact_ids", "load_clip_weights", "text_tower", "tokenize"]

_EXTRA_ENTRIES = ("input_resolution", "context_length", "vocab_size")  # sizes that OpenAI's archives carry as tensors


def build_clip(config: CraneConfig, *, pretrained: bool = False) -> nn.Module:
    """Returns the open_clip ``CLIP`` of a config, in float32 and evaluation mode.

    Args:
        config: ``clip_architecture`` decides if given, else ``clip_model``.
        pretrained: Load ``config.clip_pretrained``, a path or an open_clip tag; otherwise the weights are random.

    Raises:
        InputError: If open_clip does not know the name, or the network is no ViT with a class token.
        WeightsUnavailableError: If the weights are neither a file, nor cached, nor reachable.
        CheckpointError: If the file does not fit the network.
    """
    file = None
    if pretrained and config.clip_pretrained is not None:
        file = Path(config.clip_pretrained).expanduser()
        if not file.is_file():
            option = "clip_pretrained, --clip-pretrained"
            file = open_clip_file(config.clip_model, config.clip_pretrained, option=option)
    if config.clip_architecture is not None:
        clip = _clip_from_sizes(config.clip_architecture)
    else:
        clip = _clip_from_name(config.clip_model)
    _check_architecture(clip, config)
    if config.trunk != "none":
        # The trunk is an optional stage of its own; plain CLIPs do not need its package.
        from mmattn.vision.crane.network.trunk import TrunkPatchEmbed

        clip.visual.conv1 = TrunkPatchEmbed(clip.visual.conv1.out_channels, clip.visual.patch_size[0])
    if file is not None:
        load_clip_weights(clip, file)
    if config.token_ids is not None:
        _keep_rows(clip, config.token_ids)
    return clip.eval()


def load_clip_weights(clip: nn.Module, file: Path) -> None:
    """Loads a ``.safetensors``, ``.pt`` or ``.bin`` file of open_clip or OpenAI names into ``clip``.

    Raises:
        CheckpointError: If the file is missing, damaged, a TorchScript archive (the form of OpenAI's own downloads;
            the hint says how to convert it), or does not fit.
    """
    state = read_state(file, what="CLIP weights")
    hint = "Choose the clip_model that the weights belong to."
    load_into(clip, state, what=f"'{file}'", hint=hint, ignored=_EXTRA_ENTRIES)


def text_tower(clip: nn.Module) -> Any:
    """Returns the module that holds the text parts: ``clip`` itself, or ``clip.text`` of a ``CustomTextCLIP``."""
    return clip.text if hasattr(clip, "text") else clip


def tokenize(texts: Sequence[str], context_length: int = 77, token_ids: Sequence[int] | None = None) -> Tensor:
    """Returns the padded tokens (n, context_length) int64 of n texts, as rows of the text tower's table.

    Args:
        texts: Plain words; start and end tokens are added.
        context_length: Length of the result.
        token_ids: Sorted BPE ids the tower knows; None means all of them.

    Raises:
        InputError: If a word is not in ``token_ids``.

    >>> tokenize(["X object."], context_length=6).tolist()
    [[49406, 343, 14115, 269, 49407, 0]]
    >>> tokenize(["X object."], 6, token_ids=(0, 269, 343, 14115, 49406, 49407)).tolist()
    [[4, 2, 3, 1, 5, 0]]
    """
    ids = open_clip.tokenize(list(texts), context_length=context_length)
    return ids if token_ids is None else compact_ids(ids, token_ids)


def compact_ids(ids: Tensor, token_ids: Sequence[int]) -> Tensor:
    """Maps BPE ids (...) to positions in the sorted table ``token_ids``; order, and so the arg max, is kept.

    Raises:
        InputError: If an id is not in the table; the message shows the words.
    """
    wanted = sorted({int(i) for i in ids.flatten().tolist()})
    unknown = [i for i in wanted if (at := bisect_left(token_ids, i)) == len(token_ids) or token_ids[at] != i]
    if unknown:
        words = open_clip.get_tokenizer("ViT-B-32").decode(unknown).split()
        raise InputError(
            f"This model's text tower knows {len(token_ids)} tokens; it does not know {', '.join(words) or unknown}.",
            "Use the words the model was made with.",
        )
    return torch.searchsorted(torch.tensor(token_ids, dtype=ids.dtype, device=ids.device), ids)


def _clip_from_sizes(sizes: ClipArchitecture) -> CLIP:
    return CLIP(
        embed_dim=sizes.embed_dim,
        vision_cfg={
            "image_size": sizes.image_size,
            "layers": sizes.vision_layers,
            "width": sizes.vision_width,
            "head_width": sizes.vision_width // sizes.vision_heads,
            "patch_size": sizes.patch_size,
        },
        text_cfg={
            "context_length": sizes.context_length,
            "vocab_size": sizes.vocab_size,
            "width": sizes.text_width,
            "heads": sizes.text_heads,
            "layers": sizes.text_layers,
        },
        quick_gelu=sizes.quick_gelu,
    )


def _clip_from_name(name: str) -> nn.Module:
    if name not in open_clip.list_models():
        family = name.split("-")[0]
        close = [known for known in open_clip.list_models() if known.startswith(family)][:6]
        raise InputError(
            f"open_clip has no model {name!r}.",
            f"Similar names: {', '.join(close)}." if close else "See open_clip.list_models().",
        )
    with _quiet_open_clip():
        clip: nn.Module = open_clip.create_model(name, pretrained=None, precision="fp32")
    return clip


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Mutes open_clip's warning that weights are random: they are loaded or learned afterwards."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_architecture(clip: nn.Module, config: CraneConfig) -> None:
    visual: Any = clip.visual
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    is_plain = blocks is not None and isinstance(blocks[0].attn, nn.MultiheadAttention)
    if not is_plain or not hasattr(visual, "class_embedding"):
        raise InputError(
            f"Crane needs a CLIP whose vision tower is a plain ViT with a class token; {config.clip_model!r} is not.",
            "Use ViT-L-14-336-quickgelu or another ViT-*-quickgelu.",
        )
    patch = visual.patch_size[0]
    if config.image_size % patch:
        raise InputError(
            f"image_size is {config.image_size}, expected a multiple of the patch size {patch}.",
            f"Use {config.image_size // patch * patch} or {(config.image_size // patch + 1) * patch}.",
        )


def _keep_rows(clip: nn.Module, token_ids: Sequence[int]) -> None:
    """Cuts the token table to the rows of ``token_ids``, unless it already is that small."""
    if token_ids[0] != 0 or list(token_ids) != sorted(set(token_ids)):
        raise InputError("token_ids must be sorted, without repeats, and start with the padding id 0.")
    tower = text_tower(clip)
    table = tower.token_embedding
    if table.num_embeddings == len(token_ids):
        return
    if token_ids[-1] >= table.num_embeddings:
        raise InputError(f"token_ids go up to {token_ids[-1]}; the text tower has {table.num_embeddings} rows.")
    with torch.no_grad():
        rows = table.weight[torch.tensor(token_ids)]
    tower.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    tower.vocab_size = len(token_ids)
