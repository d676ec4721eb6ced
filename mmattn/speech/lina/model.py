"""Lina-Speech: a language model over a neural codec's tokens that reads a text.

Source: arXiv 2410.23320 and the public code theodorblackbird/lina-speech at commit 7be703a. Text tokens go through a
bidirectional encoder (:mod:`.network.text_encoder`); the decoder (:mod:`.network.decoder`) takes the sum of the
codebooks' embeddings of one delayed frame after the other and gives the logits of the next. Plain ``nn.Module``: no
files, no training logic, no ``no_grad`` inside. Causal in the audio.

Shapes: B batch, M text tokens, N audio columns (delayed, see :mod:`.network.batch`), Q codebooks, V audio ids, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.core.weights.loading import load_into
from mmattn.errors import InputError
from mmattn.kernels.products import Packable, Packed, Precision, StepLinear, step_product
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.network.batch import PAD, START, SpeechBatch
from mmattn.speech.lina.network.blocks import QkvTimeMixer
from mmattn.speech.lina.network.cross_attention import TextMemory, cross_mask
from mmattn.speech.lina.network.decoder import AttentiveDecoder, DecoderState
from mmattn.speech.lina.network.text_encoder import TextEncoder

__all__ = ["LinaModel", "LinaOutput"]


class LinaOutput(NamedTuple):
    """What the model says about N audio columns.

    Attributes:
        logits: (B, N, Q, V), of the column after each.
        state: After the last column.
        maps: (B, A, N, M) weights of the cross-attention, the last of which makes its output; None unless asked for.
    """

    logits: Tensor
    state: DecoderState
    maps: Tensor | None


class LinaModel(Packable):
    """The network.

    Args:
        config: Architecture.
    """

    def __init__(self, config: LinaConfig) -> None:
        super().__init__()
        self.config = config
        masked = config.text_mask_probability > 0.0
        self.text_embedding = nn.Embedding(config.text_vocab + masked, config.dim, padding_idx=PAD)
        self.text_encoder = TextEncoder(config.dim, config.text_heads, config.text_layers, config.text_dropout)
        self.audio_embedding = nn.Parameter(torch.randn(config.num_codebooks, config.audio_vocab, config.dim))
        self.decoder = AttentiveDecoder(config)
        self.head = (
            None
            if config.tie_embeddings
            else nn.Parameter(torch.randn(config.num_codebooks, config.audio_vocab, config.dim) * config.dim**-0.5)
        )

    @property
    def mask_token(self) -> int:
        """Text id that stands for every token of a text that is not given.

        Raises:
            InputError: If the model was not trained without text.
        """
        if self.config.text_mask_probability <= 0.0:
            raise InputError(
                "This model was never trained without text, which guidance needs.",
                "Leave guidance at 1, or use a model with text_mask_probability above 0.",
            )
        return self.config.text_vocab

    def forward(self, batch: SpeechBatch, *, state: DecoderState | None = None, with_maps: bool = False) -> LinaOutput:
        """Returns the logits (B, N - 1, Q, V) of every column but the first, given those before it.

        In training a text is replaced by mask tokens with the config's probability.

        Args:
            batch: Texts and audio.
            state: Before the first column; None is silence. Gradients flow into it.
            with_maps: Return the cross-attention's weights too.
        """
        text = batch.text
        if self.training and self.config.text_mask_probability > 0.0:
            dropped = torch.rand(len(text), device=text.device) < self.config.text_mask_probability
            text = torch.where(dropped[:, None] & batch.text_valid, self.mask_token, text)
        memory = self.remember(text, batch.text_valid)
        mask = cross_mask(batch.text_valid, batch.audio_valid)[:, :-1]
        start = self.initial_state(len(text)) if state is None else state
        return self._decode(batch.audio[:, :-1], memory, start, mask, with_maps)

    def remember(self, text: Tensor, valid: Tensor | None = None, positions: Tensor | None = None) -> TextMemory:
        """Returns what the decoder needs of B texts; made once, however many frames are generated.

        Args:
            text: (B, M) int.
            valid: (B, M) bool, False is padding; None is no padding.
            positions: (B, M) int; None counts from 0.
        """
        if valid is not None and bool(valid.all()):
            valid = None
        encoded = self.text_encoder(self.text_embedding(text), valid)
        return self.decoder.cross.remember(encoded, valid, positions)

    def initial_state(self, batch: int) -> DecoderState:
        """Returns the state before the first column of ``batch`` streams."""
        return self.decoder.initial_state(batch)

    def start_column(self, batch: int) -> Tensor:
        """Returns the first column (B, 1, Q) that every stream begins with."""
        device = self.audio_embedding.device
        return torch.full((batch, 1, self.config.num_codebooks), START, dtype=torch.long, device=device)

    def advance(self, audio: Tensor, memory: TextMemory, state: DecoderState, *, with_maps: bool = False) -> LinaOutput:
        """Takes in columns, any number of them, and returns the logits after each and the next state.

        One column at a time, all at once, or split anywhere: the results agree. The given state is not changed.

        Args:
            audio: (B, N, Q) int.
            memory: Of the texts, from :meth:`remember`.
            state: Of the streams so far.
            with_maps: Return the cross-attention's weights too.
        """
        return self._decode(audio, memory, state, memory.mask, with_maps)

    def pack(self, precision: Precision | str = "float32") -> None:
        """Lays weights out for fast steps of one column; call it once the model is on its device and in its precision.

        In float32 results change by rounding alone; see :mod:`mmattn.kernels.products` for the others, which add copies
        of the decoder's weights in half or a quarter of the memory. Gradients and calls with more columns do not use
        the layout, nor does a weight that was changed or moved since.

        Args:
            precision: Of the weights in these steps: "float32", "bfloat16" or "int8".

        Raises:
            InputError: If that is none of them, or int8 is asked for on another device than the CPU.
        """
        wanted, device = cast(Precision, precision), self.audio_embedding.device
        if precision not in get_args(Precision):
            raise InputError(f"precision is '{precision}', expected one of {', '.join(get_args(Precision))}.")
        if precision == "int8" and device.type != "cpu":
            raise InputError(f"int8 weights work on the CPU only, the model is on {device}.", "Use bfloat16.")
        for module in self.decoder.modules():
            if isinstance(module, QkvTimeMixer | StepLinear):
                module.pack(wanted)
        weight = self._head_weight
        self.packed = Packed(step_product(weight.flatten(0, 1), None, wanted), [weight], reads=wanted == "float32")

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over weights and goes to evaluation mode.

        Raises:
            CheckpointError: If names or sizes do not fit.
        """
        load_into(self, tensors)
        self.eval()

    def _decode(
        self, audio: Tensor, memory: TextMemory, state: DecoderState, mask: Tensor | None, with_maps: bool
    ) -> LinaOutput:
        hidden, after, maps = self.decoder(self._embed(audio), memory, state, mask=mask, with_maps=with_maps)
        # One product for all codebooks.
        packed, weight = self.packed, self._head_weight
        if packed is not None and hidden.shape[1] == 1 and packed.serves(hidden):
            rows = packed.value(hidden[:, 0])[:, None]
        else:
            rows = F.linear(hidden, weight.flatten(0, 1))
        return LinaOutput(rows.unflatten(-1, weight.shape[:2]), after, maps)

    @property
    def _head_weight(self) -> Tensor:
        """(Q, V, d) of the logits."""
        return self.audio_embedding if self.head is None else self.head

    def _embed(self, audio: Tensor) -> Tensor:
        """Returns the sum (B, N, d) of the codebooks' embeddings; the padding's row is not trained by it."""
        rows = [F.embedding(audio[..., i], weight, padding_idx=PAD) for i, weight in enumerate(self.audio_embedding)]
        return torch.stack(rows).sum(0) if len(rows) > 1 else rows[0]
