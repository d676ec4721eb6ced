"""Reading WavTokenizer's released checkpoints.

They are Lightning checkpoints: under ``state_dict`` lie ``feature_extractor.encodec.encoder.*`` with weight norm as
``weight_g`` and ``weight_v``, ``feature_extractor.encodec.quantizer.*``, ``backbone.*`` and ``head.*``, beside
discriminators and a decoder that is not used. All sizes are read off the shapes; only the sample rate is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmattn.core.weights.loading import load_into
from mmattn.core.weights.torch_file import read_entries
from mmattn.errors import CheckpointError
from mmattn.speech.lina.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig

__all__ = ["read_wavtokenizer", "wavtokenizer_from_published"]

_ENCODER = "feature_extractor.encodec.encoder."
_QUANTIZER = "feature_extractor.encodec.quantizer."
_CODEBOOK = _QUANTIZER + "vq.layers.0._codebook."
# Residual units are the only parts with a `block`; elsewhere `.conv.conv.` wraps one convolution.
_RENAMES = (
    (re.compile(r"\.block\.1\.conv\.conv\."), ".conv1."),
    (re.compile(r"\.block\.3\.conv\.conv\."), ".conv2."),
    (re.compile(r"\.conv\.conv\."), "."),
)
_FORMS = (re.compile(r"\.norm\.scale\.weight$"), re.compile(r"\.norm\.shift\.weight$"))
# Recomputed, or statistics of training.
_IGNORED = re.compile(r"^(head\.istft\.window|.*_codebook\.(inited|cluster_size|embed_avg))$")


def read_wavtokenizer(path: str | Path, *, bandwidth_id: int = 0, sample_rate: int = 24_000) -> WavTokenizer:
    """Returns the codec in a released file.

    Args:
        path: A ``.ckpt`` or ``.safetensors`` file.
        bandwidth_id: Row of the decoder's scales and shifts; Lina takes the first.
        sample_rate: Hz, which the file does not say.

    Raises:
        CheckpointError: If the file is damaged, holds pickled objects, or is no WavTokenizer.
    """
    tensors = {name: tensor for name, tensor in read_entries(path).items() if isinstance(tensor, Tensor)}
    return wavtokenizer_from_published(tensors, bandwidth_id=bandwidth_id, sample_rate=sample_rate, what=f"'{path}'")


def wavtokenizer_from_published(
    tensors: Mapping[str, Tensor], *, bandwidth_id: int = 0, sample_rate: int = 24_000, what: str = "The checkpoint"
) -> WavTokenizer:
    """Returns the codec made of tensors under the authors' names.

    Args:
        tensors: State of the released model, or part of a larger one.
        bandwidth_id: As for :func:`read_wavtokenizer`.
        sample_rate: Hz.
        what: Subject of messages.

    Raises:
        CheckpointError: If tensors are missing, left over, or do not fit each other.
    """
    parts = ("backbone.", "head.", _ENCODER, _QUANTIZER)
    own = {name: t.float() for name, t in tensors.items() if name.startswith(parts) and not _IGNORED.match(name)}
    if not own:
        raise CheckpointError(
            f"{what} is no WavTokenizer: it has no tensors backbone.*, head.* and feature_extractor.*."
        )
    config = _sizes(own, sample_rate, what)
    renamed = _rename(_without_weight_norm(_choose_bandwidth(own, bandwidth_id, what), what))
    codec = WavTokenizer(config)
    load_into(codec, renamed, what=what, hint="Its other tensors show other sizes, or it is not whole.")
    return codec


def _sizes(tensors: Mapping[str, Tensor], sample_rate: int, what: str) -> WavTokenizerConfig:
    """Reads the sizes off the shapes."""
    convolution = re.compile(re.escape(_ENCODER) + r"model\.(\d+)\.conv\.conv\.weight_v$")
    found = {int(m[1]): tensor for name, tensor in tensors.items() if (m := convolution.match(name))}
    try:
        first, *strided, last = (found[i] for i in sorted(found))
        hidden, dim = tensors["backbone.convnext.0.pwconv1.weight"].shape
        return WavTokenizerConfig(
            sample_rate=sample_rate,
            filters=first.shape[0],
            # A convolution of stride r has a kernel of 2 r.
            strides=tuple(conv.shape[-1] // 2 for conv in strided),
            lstm_layers=sum(".lstm.weight_ih_l" in name for name in tensors),
            features=last.shape[0],
            codebook_size=tensors[_CODEBOOK + "embed"].shape[0],
            dim=dim,
            hidden=hidden,
            num_layers=sum(re.fullmatch(r"backbone\.convnext\.\d+\.gamma", name) is not None for name in tensors),
            n_fft=tensors["head.out.weight"].shape[0] - 2,
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{what} is no whole WavTokenizer: tensors that show its sizes are missing.") from error


def _choose_bandwidth(tensors: Mapping[str, Tensor], bandwidth_id: int, what: str) -> dict[str, Tensor]:
    """Turns each pair of scale and shift tables into the weight and bias of a LayerNorm."""
    result = {}
    for name, tensor in tensors.items():
        for pattern, target in zip(_FORMS, (".norm.weight", ".norm.bias"), strict=True):
            if pattern.search(name):
                if not 0 <= bandwidth_id < len(tensor):
                    raise CheckpointError(f"{what} has {len(tensor)} bandwidths, bandwidth_id is {bandwidth_id}.")
                name, tensor = pattern.sub(target, name), tensor[bandwidth_id]
        result[name] = tensor
    return result


def _without_weight_norm(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Replaces ``weight_g`` and ``weight_v`` by the weight ``g v / |v|``, the norm over all axes but the first."""
    result = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight_v"):
            gain = tensors.get(name.removesuffix("_v") + "_g")
            if gain is None:
                raise CheckpointError(f"{what} has {name} without its weight_g.")
            norm = torch.linalg.vector_norm(tensor.double(), dim=(1, 2), keepdim=True)
            result[name.removesuffix("_v")] = (gain.double() * tensor.double() / norm).float()
        elif not name.endswith(".weight_g"):
            result[name] = tensor
    return result


def _rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    result = {}
    for name, tensor in tensors.items():
        if name == _CODEBOOK + "embed":
            name = "codebook"
        elif name.startswith(_ENCODER):
            name = "encoder." + name.removeprefix(_ENCODER)
            for pattern, target in _RENAMES:
                name = pattern.sub(target, name)
        elif name.startswith("backbone."):
            name = "decoder." + name.removeprefix("backbone.")
        result[name] = tensor
    return result
