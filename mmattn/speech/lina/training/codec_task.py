"""Training of the embedded codec.

    loss = spectra of wave and copy at three resolutions (:mod:`.codec_losses`) + commitment * mean |z - sg(z^)|^2

Without an adversary: a small codec becomes intelligible in minutes, and a little buzzing stays. The encoder's vectors z
first pass unquantised, until they have settled; then k-means places the codebooks, which from there on follow moving
averages (:mod:`mmattn.layers.codebooks`). The gradient passes the quantiser unchanged. Half of each batch uses all
codebooks, the other half the first 1 to Q of them, so that one model serves every number of codebooks.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmattn.core.training.task import BaseTask
from mmattn.errors import InputError
from mmattn.layers.codebooks import CodebookLearner
from mmattn.speech.lina.codec.embedded import EmbeddedCodec, EmbeddedCodecConfig
from mmattn.speech.lina.codec.protocol import decode_windowed
from mmattn.speech.lina.training.codec_losses import MultiResolutionLoss, log_mel_distance
from mmattn.speech.lina.weights.store import load_codec, save_codec

__all__ = ["CodecTask", "learning_rate_factor"]

_CARD = """# A codec of Lina

Written by `mmattn fit` with `mmattn.speech.lina.training.codec_task.CodecTask`. It knows the voices and the recording
conditions of its training data.
"""


class CodecTask(BaseTask):
    """Trains and tests :class:`EmbeddedCodec`.

    Args:
        config: Sizes; null takes those of ``initial_checkpoint``, or else the defaults.
        initial_checkpoint: Codec to start from, quantised at once: "embedded", a folder or hf:repo[/folder][@revision].
        test_checkpoint: Codec that a test takes when no other weights are named.
        lr: Peak learning rate of AdamW.
        betas: Of AdamW.
        weight_decay: Of AdamW.
        warmup_steps: Steps in which the rate rises.
        flat: Share of all steps after which it begins to fall, along a cosine.
        final: Share of the peak at the end.
        unquantized_steps: Steps before the codebooks are placed.
        kept_steps: Of so many of the last of these steps, the vectors place the codebooks.
        commitment: Weight of the distance between vectors and codewords.
        size_penalty: Weight of the vectors' mean square before they are quantised.
        decay: Of the codebooks' moving averages, per step.
        dead_share: Codewords used less than this part of the average are put elsewhere.
        partial_share: Share of a batch that uses a random number of codebooks.
    """

    codec: EmbeddedCodec
    is_quantized: Tensor
    uses: Tensor

    def __init__(
        self,
        config: EmbeddedCodecConfig | None = None,
        initial_checkpoint: str | None = None,
        test_checkpoint: str | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.8, 0.98),
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        flat: float = 0.3,
        final: float = 0.03,
        unquantized_steps: int = 150,
        kept_steps: int = 40,
        commitment: float = 1.0,
        size_penalty: float = 0.01,
        decay: float = 0.98,
        dead_share: float = 0.05,
        partial_share: float = 0.5,
    ) -> None:
        if lr <= 0 or not 0 <= flat <= 1 or kept_steps < 1 or unquantized_steps < kept_steps:
            raise InputError(
                f"lr is {lr}, flat {flat}, kept_steps {kept_steps}, unquantized_steps {unquantized_steps}; expected "
                "lr > 0, flat in [0, 1] and 1 <= kept_steps <= unquantized_steps."
            )
        self.config, self.initial_checkpoint, self.test_checkpoint = config, initial_checkpoint, test_checkpoint
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.warmup_steps, self.flat, self.final = warmup_steps, flat, final
        self.unquantized_steps, self.commitment, self.size_penalty = unquantized_steps, commitment, size_penalty
        self.decay, self.dead_share, self.partial_share = decay, dead_share, partial_share
        self.recent: deque[Tensor] = deque(maxlen=kept_steps)
        super().__init__()

    def configure_models(self) -> None:
        """Builds the codec and the statistics of its codebooks."""
        if self.initial_checkpoint is None:
            self.codec = EmbeddedCodec(self.config)
        else:
            self.codec = _embedded(self.initial_checkpoint).train()
        config = self.codec.config
        self.learner = CodebookLearner(
            config.codebooks, config.codebook_size, config.code_dim, self.decay, self.dead_share
        )
        if self.initial_checkpoint is not None:
            self.learner.adopt(self.codec.quantizer)
        # Saved with the weights, so that a resumed run does not place the codebooks again.
        self.register_buffer("is_quantized", torch.tensor(self.initial_checkpoint is not None))

    def configure_losses(self) -> None:
        """Builds the spectral loss."""
        self.spectral = MultiResolutionLoss(self.codec.sample_rate)

    def configure_metrics(self) -> None:
        """Starts the counts of the codewords that validation meets."""
        self.register_buffer("uses", torch.zeros_like(self.learner.count), persistent=False)

    def setup(self, stage: str) -> None:
        """Takes the weights of ``test_checkpoint`` for a test that names no others."""
        names_others = self.initial_checkpoint is not None or getattr(self.trainer, "ckpt_path", None) is not None
        if stage == "test" and self.test_checkpoint is not None and not names_others:
            self.codec = _embedded(self.test_checkpoint)
            self.is_quantized.fill_(True)

    def configure_optimizers(self) -> Any:
        """Returns AdamW and its schedule."""
        optimizer = torch.optim.AdamW(
            self.codec.parameters(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )
        total = int(self.trainer.estimated_stepping_batches)
        factor = partial(learning_rate_factor, total=total, warmup=self.warmup_steps, flat=self.flat, final=self.final)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        """Returns the loss of crops (B, samples)."""
        x = self.codec.encoder(batch)  # (B, T, F)
        if self.is_quantized:
            quantized = self._quantize(x)
            extra = self.commitment * (x - quantized).square().mean()
            # The gradient of the copy goes to the encoder as if nothing had been rounded.
            decoded = self.codec.decoder(x + (quantized - x).detach())
        else:
            extra = self.size_penalty * x.square().mean()
            decoded = self.codec.decoder(x)
            self._settle(x.detach())
        with torch.autocast(batch.device.type, enabled=False):
            spectral = self.spectral(decoded[:, : batch.shape[1]], batch)
        loss: Tensor = spectral + extra
        self.log_dict({"train/spectral": spectral, "train/extra": extra}, batch_size=len(batch))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def _settle(self, x: Tensor) -> None:
        """Keeps the vectors of an unquantised step and, after the last one, places the codebooks."""
        self.recent.append(x.flatten(0, 1))
        if self.global_step + 1 >= self.unquantized_steps:
            self.learner.start(self.codec.quantizer, torch.cat(list(self.recent)), frames_per_step=len(self.recent[-1]))
            self.is_quantized.fill_(True)
            self.recent.clear()

    def _quantize(self, x: Tensor) -> Tensor:
        """Returns the codewords of vectors (B, T, F), some items by the first codebooks only; moves the codebooks."""
        with torch.autocast(x.device.type, enabled=False), torch.no_grad():
            codes, words = self.codec.quantizer.stages(x)  # (Q, B, T), (Q, B, T, F)
            restarted = self.learner.step(self.codec.quantizer, x, codes, words)
            self.log("train/restarted", float(restarted), batch_size=len(x))
            count, size = len(codes), len(x)
            used = torch.randint(1, count + 1, (size,), device=x.device)
            used[: size - round(self.partial_share * size)] = count
            heard = torch.arange(count, device=x.device)[:, None] < used  # (Q, B)
            return (words * heard[..., None, None]).sum(0)

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Logs the distance of copies (B, samples) by 1, 2, 4, ... codebooks, and counts codewords."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Tensor, batch_index: int) -> None:
        """Logs for sounds (B, n) what validation does, and how far decoding in windows is from decoding at once."""
        self._evaluate(batch, "test")
        codes = self.codec.encode(batch)
        difference = (decode_windowed(self.codec, codes) - self.codec.decode(codes)).abs().max()
        self.log("test/stream_difference", difference, batch_size=len(batch), reduce_fx="max")

    def _evaluate(self, batch: Tensor, stage: str) -> None:
        codes = self.codec.encode(batch)
        x = self.codec.encoder(batch)
        distances = {"unquantized": self._distance(x, batch)}
        for count in _powers_of_two(self.codec.codebooks):
            distances[f"{count}"] = self._distance(self.codec.quantizer.decode(codes[:, :count]), batch)
        self.log_dict({f"{stage}/mel_{name}": value for name, value in distances.items()}, batch_size=len(batch))
        for q in range(self.codec.codebooks):
            self.uses[q] += torch.bincount(codes[:, q].flatten(), minlength=self.codec.codebook_size)

    def _distance(self, x: Tensor, batch: Tensor) -> Tensor:
        copy = self.codec.decoder(x)[:, : batch.shape[1]]
        return log_mel_distance(copy, batch, self.codec.sample_rate)

    def on_validation_epoch_end(self) -> None:
        """Logs the perplexity of each codebook, the number of codewords as if all were used alike."""
        self._log_perplexity("val")

    def on_test_epoch_end(self) -> None:
        """Logs the perplexity of each codebook."""
        self._log_perplexity("test")

    def _log_perplexity(self, stage: str) -> None:
        share = self.uses / self.uses.sum(1, keepdim=True).clamp_min(1)
        perplexity = torch.special.entr(share).sum(1).exp()
        self.log_dict({f"{stage}/perplexity_{q + 1}": value for q, value in enumerate(perplexity)})
        self.uses.zero_()

    def on_train_end(self) -> None:
        """Writes the checkpoint folder ``codec`` into the run folder, once there are codebooks."""
        if self.trainer.log_dir is not None and self.trainer.is_global_zero and self.is_quantized:
            save_codec(Path(self.trainer.log_dir) / "codec", self.codec, card=_CARD)


def learning_rate_factor(step: int, total: int, warmup: int, flat: float, final: float) -> float:
    """Returns the share of the peak rate: up along a line, level to ``flat`` of the steps, down a cosine to ``final``.

    >>> [round(learning_rate_factor(s, 100, 10, 0.5, 0.0), 2) for s in (4, 30, 75, 100)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step / max(total, 1) - flat) / max(1 - flat, 1e-9)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def _powers_of_two(limit: int) -> list[int]:
    return [1 << i for i in range(limit.bit_length())]


def _embedded(source: str) -> EmbeddedCodec:
    codec = load_codec(source)
    if not isinstance(codec, EmbeddedCodec):
        raise InputError(f"'{source}' holds a {type(codec).__name__}, which this task cannot train.")
    return codec
