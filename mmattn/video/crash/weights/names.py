"""The published tensor names beside ours.

A :class:`Join` says how tensors correspond: the published ones put together along an axis are ours put together along
it. Left out are tensors that change nothing (``RSD.*.fc.*``, those of size zero, ``sp_attention.wk.bias``, which shifts
all scores of a softmax alike) and the table of positions, which is a formula.

| ours | Petrichor625/CRASH |
|---|---|
| ``rho_1``, ``rho_2`` | the same |
| ``phi_x`` | ``phi_x.0`` |
| ``object_attention.alpha`` | ``sp_attention.alpha1``, ``alpha2`` |
| ``object_attention.queries.{l}``, ``key``, ``value`` | ``sp_attention.q{l+1}``, ``wk``, ``wv`` |
| ``context.gate.complex_weight``, ``expand``, ``channel_attention`` | ``fftblock.``..., ``conv1x1``, the same |
| ``context.project`` | ``phi_x3.0`` |
| ``focus.mix`` | ``RSD.weights1``, ``weights2`` |
| ``focus.layers.{i}.qkv.{l}`` | ``RSD.layer{l+1}.{2i}.query``, ``key``, ``value`` |
| ``focus.layers.{i}.dense.{l}`` | ``RSD.layer{l+1}.{2i+1}.intermediate.v_dense`` |
| ``recurrence.parts.0..2.weight`` | columns of ``gru_net.gru.weight_ih_l0``: boxes, frame, context |
| ``recurrence.bias`` | ``gru_net.gru.bias_ih_l0`` |
| ``recurrence.recurrent.{l}``, ``between.{l-1}`` | ``gru_net.gru.``... ``_hh_l{l}``, ``_ih_l{l}`` |
| ``head.dense1``, ``dense2`` | ``gru_net.dense1``, ``dense2`` |
| ``auxiliary.0.qkv``, ``dense`` | ``self_aggregation.Wq``, ``Wk``, ``Wv``, ``dense`` |
| ``auxiliary.1.dense1``, ``dense2`` | ``predictor_aux.dense1``, ``dense2`` |

DSTA (monjurulkarim/DSTA) shares ``phi_x``, GRU and heads; ``history_gate.weight`` is its ``frame_aggregation.weight``,
``auxiliary.0.weight`` its ``self_aggregation.weight``, and ``object_attention`` its ``sp_attention.weights_att_*``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.video.crash.config import CrashConfig

__all__ = ["DSTA_ATTENTION", "Join", "joins", "regroup"]

DSTA_ATTENTION = "sp_attention.weights_att_"
"""Beginning of the names of DSTA's box attention, which its own checkpoints lack."""


class Join(NamedTuple):
    """Tensors that hold the same numbers.

    Attributes:
        ours: Names in our state dict.
        published: Names in the published one.
        axis: Axis along which the tensors of each side are put together.
    """

    ours: tuple[str, ...]
    published: tuple[str, ...]
    axis: int = 0


def joins(config: CrashConfig) -> list[Join]:
    """Returns how the tensors of an architecture correspond.

    Raises:
        InputError: If the published code has no such architecture.
    """
    is_published = config.architecture == "dsta" or (config.use_oam and config.use_cam and config.use_tfa)
    if config.architecture == "gru" or not is_published or config.tfa_output in ("layernorm", "residual"):
        raise InputError("The published code has no such architecture; only full CRASH and DSTA correspond to it.")
    is_crash = config.architecture == "crash"
    table = [Join(("rho_1",), ("rho_1",)), Join(("rho_2",), ("rho_2",))] if is_crash else []
    table += _layer("phi_x", "phi_x.0")
    table += _layer("head.dense1", "gru_net.dense1") + _layer("head.dense2", "gru_net.dense2")
    table += _gru(config)
    if config.use_aux:
        table += _layer("auxiliary.1.dense1", "predictor_aux.dense1")
        table += _layer("auxiliary.1.dense2", "predictor_aux.dense2")
    return table + list(_crash(config) if is_crash else _dsta(config))


def regroup(tensors: list[Tensor], count: int, axis: int) -> list[Tensor]:
    """Puts tensors (...) together along an axis and cuts the result into ``count`` equal parts."""
    whole = tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=axis)
    return [whole] if count == 1 else [part.contiguous() for part in whole.chunk(count, dim=axis)]


def _layer(ours: str, *published: str) -> list[Join]:
    return [Join((f"{ours}.{kind}",), tuple(f"{name}.{kind}" for name in published)) for kind in ("weight", "bias")]


def _gru(config: CrashConfig) -> Iterator[Join]:
    gru = "gru_net.gru"
    parts = 3 if config.architecture == "crash" else 2
    yield Join(tuple(f"recurrence.parts.{i}.weight" for i in range(parts)), (f"{gru}.weight_ih_l0",), axis=1)
    yield Join(("recurrence.bias",), (f"{gru}.bias_ih_l0",))
    for layer in range(config.num_layers):
        for kind in ("weight", "bias"):
            yield Join((f"recurrence.recurrent.{layer}.{kind}",), (f"{gru}.{kind}_hh_l{layer}",))
            if layer > 0:
                yield Join((f"recurrence.between.{layer - 1}.{kind}",), (f"{gru}.{kind}_ih_l{layer}",))


def _crash(config: CrashConfig) -> Iterator[Join]:
    yield from _layer("context.project", "phi_x3.0")
    yield Join(("context.gate.complex_weight",), ("fftblock.complex_weight",))
    yield from _layer("context.gate.expand", "fftblock.conv1x1")
    if config.channel_attention == "bottleneck":
        for name in ("fc1.weight", "fc2.weight"):
            yield Join((f"context.gate.channel_attention.{name}",), (f"fftblock.channel_attention.{name}",))
    layers = range(1, config.num_layers + 1)
    yield Join(("object_attention.alpha",), tuple(f"sp_attention.alpha{i}" for i in layers))
    for i in layers:
        yield from _layer(f"object_attention.queries.{i - 1}", f"sp_attention.q{i}")
    yield Join(("object_attention.key.weight",), ("sp_attention.wk.weight",))
    yield from _layer("object_attention.value", "sp_attention.wv")
    yield Join(("focus.mix",), tuple(f"RSD.weights{i}" for i in layers))
    for i in layers:
        for j in range(config.tfa_layers):
            heads = f"RSD.layer{i}.{2 * j}"
            ours = f"focus.layers.{j}"
            yield from _layer(f"{ours}.qkv.{i - 1}", f"{heads}.query", f"{heads}.key", f"{heads}.value")
            yield from _layer(f"{ours}.dense.{i - 1}", f"RSD.layer{i}.{2 * j + 1}.intermediate.v_dense")
    if config.use_aux:
        maps = tuple(f"self_aggregation.W{letter}.weight" for letter in "qkv")
        yield Join(("auxiliary.0.qkv.weight",), maps)
        yield from _layer("auxiliary.0.dense", "self_aggregation.dense")


def _dsta(config: CrashConfig) -> Iterator[Join]:
    yield Join(("history_gate.weight",), ("frame_aggregation.weight",))
    for ours, published in (("from_hidden", "wa"), ("from_boxes", "ua"), ("bias", "ba"), ("weight", "w")):
        yield Join((f"object_attention.{ours}",), (f"{DSTA_ATTENTION}{published}",))
    if config.use_aux:
        yield Join(("auxiliary.0.weight",), ("self_aggregation.weight",))
