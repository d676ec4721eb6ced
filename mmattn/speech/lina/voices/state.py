"""A voice as the decoder's starting point: learned initial states of all recurrent blocks, weights untouched.

Source: initial-state tuning, arXiv 2410.23320 and theodorblackbird/lina-speech. Of each of the 2 L blocks the state

    S_0 = scale sum_r k_r v_r,     k (1, r, H, K, 1) ~ N(0, 1),   v (1, r, H, 1, V) ~ 0.02 N(0, 1),

is learned, or at full rank S_0 itself; the alignment network's starts at zero. Letting its state, and what the mixers
keep besides (convolution caches), be learned too is ours and experimental.

The paper tunes a state on a finished model. A small model that is to speak with many voices learns which part of its
state is the voice only if every training voice has a state of its own from the beginning, a :class:`VoiceTable`
(differs from the paper); a new voice is then found by tuning, as published.

Shapes: S voices, B streams, r rank, H heads, K and V widths of a head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.network.blocks import MixerState
from mmattn.speech.lina.network.decoder import DecoderState

__all__ = ["SCALE", "InitialState", "VoiceTable", "blend"]

SCALE = 0.02
"""Published factor of the states."""

_NAME = re.compile(r"(layer\d+|alignment)(?:_(k|v)|_extra(\d+))?")


class InitialState(nn.Module):
    """Learnable tensors by the names of the published files: ``layer3_k``, ``layer3_v``, or ``layer3`` at full rank.

    Args:
        tensors: By name; ``alignment`` in the place of ``layer3`` is the cross-attention's network, and
            ``layer3_extra0`` the first of what a mixer keeps besides its matrix.
        scale: Factor of the products.

    Raises:
        CheckpointError: If a name is unknown, or half of a product is missing or not as its other half.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, scale: float = SCALE) -> None:
        super().__init__()
        self.scale = scale
        for name, tensor in sorted(tensors.items()):
            block, half, _ = _parts(name)
            if not half:
                continue
            other = f"{block}_{'v' if half == 'k' else 'k'}"
            if other not in tensors:
                raise CheckpointError(f"The voice has {name} but no {other}; its file is damaged.")
            if tensor.ndim != 5 or tensor.shape[:3] != tensors[other].shape[:3]:
                raise CheckpointError(
                    f"The voice's {name} has shape {tuple(tensor.shape)} beside {other} of "
                    f"{tuple(tensors[other].shape)}, expected (1, rank, heads, K, 1) and (1, rank, heads, 1, V)."
                )
        self.tensors = nn.ParameterDict({name: nn.Parameter(tensor.float()) for name, tensor in tensors.items()})

    @classmethod
    def draw(
        cls,
        like: DecoderState,
        *,
        rank: int | None = 1,
        scale: float = SCALE,
        with_alignment: bool = False,
        with_extras: bool = False,
        seed: int = 123,
    ) -> InitialState:
        """Returns a random start of the tuning.

        Args:
            like: State of one stream, for the shapes.
            rank: Products r of each state; None learns whole states, from zero.
            scale: Factor of the products.
            with_alignment: Learn the alignment network's state too.
            with_extras: Learn what the mixers keep besides their matrices too, from zero.
            seed: Of the random numbers.

        Raises:
            InputError: If the rank is below 1.
        """
        if rank is not None and rank < 1:
            raise InputError(f"rank is {rank}, expected at least 1.")
        generator = torch.Generator().manual_seed(seed)
        tensors: dict[str, Tensor] = {}
        for name, state in _named(like, with_alignment):
            heads, keys, values = state[0].shape[1:]
            if rank is None:
                tensors[name] = torch.zeros(1, heads, keys, values)
            else:
                tensors[f"{name}_k"] = torch.randn(1, rank, heads, keys, 1, generator=generator)
                tensors[f"{name}_v"] = 0.02 * torch.randn(1, rank, heads, 1, values, generator=generator)
            if with_extras:
                tensors |= {f"{name}_extra{i}": torch.zeros(1, *t.shape[1:]) for i, t in enumerate(state[1:])}
        return cls(tensors, scale=scale).to(like.position.device)

    @property
    def numbers(self) -> int:
        """How many numbers the voice is made of."""
        return sum(parameter.numel() for parameter in self.parameters())

    def matrix(self, name: str) -> Tensor | None:
        """Returns S_0 (1, H, K, V) of a block, or None where none is learned.

        Args:
            name: ``layer0`` to ``layer{2 L - 1}``, or ``alignment``.
        """
        if name in self.tensors:
            return self.tensors[name]
        if f"{name}_k" not in self.tensors:
            return None
        product: Tensor = (self.tensors[f"{name}_k"] @ self.tensors[f"{name}_v"]).sum(dim=1)
        return self.scale * product

    def forward(self, fresh: DecoderState) -> DecoderState:
        """Returns the state to start B streams from; gradients flow to the learned tensors.

        Args:
            fresh: The model's own start of B streams.

        Raises:
            CheckpointError: If the voice's shapes are not those of the model.
        """
        states = dict(_named(fresh, with_alignment=True))
        strange = sorted({str(name).partition("_")[0] for name in self.tensors} - set(states))
        if strange:
            raise CheckpointError(f"The voice has a state of {strange[0]}, the model has {len(fresh.layers)} blocks.")
        self._check_shapes(states)
        layers = tuple(self._started(f"layer{i}", layer) for i, layer in enumerate(fresh.layers))
        return DecoderState(layers, self._started("alignment", fresh.alignment), fresh.position)

    def _check_shapes(self, states: Mapping[str, MixerState]) -> None:
        for name, tensor in self.tensors.items():
            block, half, extra = _parts(str(name))
            state, rank = states[block], self.tensors[f"{block}_v"].shape[1:2] if half else ()
            if extra is not None and extra + 1 >= len(state):
                raise CheckpointError(f"The voice has a tensor {name}, and the model keeps nothing there.")
            shape = (1, *rank, *state[0 if extra is None else extra + 1].shape[1:])
            if half:
                shape = (*shape[:-1], 1) if half == "k" else (*shape[:-2], 1, shape[-1])
            if tuple(tensor.shape) != shape:
                raise CheckpointError(
                    f"The voice's tensor {name} has shape {tuple(tensor.shape)}, the model expects {shape}.",
                    "The file is damaged, or the voice was made for another model: clone it again.",
                )

    def _started(self, name: str, fresh: MixerState) -> MixerState:
        learned = [self.matrix(name), *(self._extra(name, i) for i in range(len(fresh) - 1))]
        return tuple(
            tensor if start is None else start.to(tensor.dtype).expand_as(tensor)
            for tensor, start in zip(fresh, learned, strict=False)
        )

    def _extra(self, name: str, index: int) -> Tensor | None:
        learned: Tensor | None = self.tensors.get(f"{name}_extra{index}")
        return learned


def blend(voices: Sequence[InitialState], weights: Sequence[float]) -> InitialState:
    """Returns the weighted sum of voices, at full rank; equal weights that sum to 1 are their average.

    Args:
        voices: Of the same model, at least one.
        weights: One of each.

    Raises:
        InputError: If there is none, the numbers differ, or the voices are of different models.
    """
    if not voices or len(voices) != len(weights):
        raise InputError(f"{len(voices)} voices and {len(weights)} weights were given, expected as many of both.")
    names = sorted({re.sub("_[kv]$", "", str(name)) for voice in voices for name in voice.tensors})
    mixed: dict[str, Tensor] = {}
    for name in names:
        parts = [voice.tensors[name] if "_extra" in name else voice.matrix(name) for voice in voices]
        if len({None if part is None else part.shape for part in parts}) > 1:
            raise InputError(f"The voices differ in {name}, so they are of different models.")
        mixed[name] = torch.stack(
            [weight * part.detach() for weight, part in zip(weights, parts, strict=True) if part is not None]
        ).sum(dim=0)
    return InitialState(mixed, scale=1.0)


def _parts(name: str) -> tuple[str, str, int | None]:
    """Returns the block that a tensor belongs to, which half of a product it is ("" for none), and its extra number."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise CheckpointError(f"A voice has no tensor {name!r}; this is none, or of a newer version.")
    block, half, extra = match.groups()
    return block, half or "", None if extra is None else int(extra)


def _named(state: DecoderState, with_alignment: bool) -> list[tuple[str, MixerState]]:
    named = [(f"layer{i}", layer) for i, layer in enumerate(state.layers)]
    return [*named, ("alignment", state.alignment)] if with_alignment and state.alignment else named


class VoiceTable(nn.Module):
    """A sum of r outer products for every voice and recurrent block, random at first.

    Args:
        like: State of one stream, for the shapes.
        voices: Number of voices S.
        rank: Products r of each state.
        spread: Standard deviation of a product's second factor at first; that of the other is 1.
    """

    def __init__(self, like: DecoderState, voices: int, *, rank: int = 1, spread: float = 0.02) -> None:
        super().__init__()
        shapes = [layer[0].shape[1:] for layer in like.layers]
        self.keys = nn.ParameterList(torch.randn(voices, rank, h, k, 1) for h, k, _ in shapes)
        self.values = nn.ParameterList(spread * torch.randn(voices, rank, h, 1, v) for h, _, v in shapes)

    def forward(self, fresh: DecoderState, voices: Tensor) -> DecoderState:
        """Returns the state to start B streams from; gradients flow to the table.

        Args:
            fresh: The model's own start of B streams.
            voices: (B,) int numbers of the voices; a negative one leaves the model's own start.
        """
        known = (voices >= 0).view(-1, 1, 1, 1)
        rows = voices.clamp_min(0)
        layers: list[MixerState] = []
        for key, value, layer in zip(self.keys, self.values, fresh.layers, strict=True):
            product = (key[rows] @ value[rows]).sum(dim=1)  # (B, H, K, V)
            layers.append((torch.where(known, product.to(layer[0].dtype), layer[0]), *layer[1:]))
        return DecoderState(tuple(layers), fresh.alignment, fresh.position)

    def voice(self, number: int) -> InitialState:
        """Returns a copy of one voice, in the form of a tuned one."""
        tensors: dict[str, Tensor] = {}
        for i, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            tensors[f"layer{i}_k"] = key[number : number + 1].detach().clone()
            tensors[f"layer{i}_v"] = value[number : number + 1].detach().clone()
        return InitialState(tensors, scale=1.0)
