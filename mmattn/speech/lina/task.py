"""Training of the token model with Lightning.

Source: arXiv 2410.23320 and the public code theodorblackbird/lina-speech: the cross-entropy of the next token, AdamW, a
cosine after a warm-up, gradients clipped to a norm of 1 (``trainer.gradient_clip_val``). A small model on little data
needs more, all of it optional: guided attention that fades out (:mod:`.losses`), frames of the input hidden
from the model so that it reads the text (arXiv 2301.02111 has its first codebook only; here whole frames), an initial
state for every training voice (:mod:`.voices.state`), and forget gates that remember at first.

A validation speaks a few of its sentences, logs how many end by themselves and how long they are beside the recordings,
and writes a checkpoint folder ``step_N`` into the run folder that ``mmattn infer lina --checkpoint`` reads. A test
speaks the test split's texts and lets judges hear them (:mod:`.evaluation.spoken_task`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.errors import InputError
from mmattn.kernels.sampling import SamplingOptions
from mmattn.media.files import write_bytes
from mmattn.media.paths import contained
from mmattn.speech.lina.codec.embedded import EmbeddedCodec
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.data import LinaBatch, LinaDataModule
from mmattn.speech.lina.evaluation.spoken_task import SpokenTask
from mmattn.speech.lina.generation.steps import GenerationOptions, SpeechRequest, generate
from mmattn.speech.lina.losses import guided_attention_loss, lina_loss, top_k_accuracy
from mmattn.speech.lina.model import LinaModel, LinaOutput
from mmattn.speech.lina.network.batch import START, SpeechBatch
from mmattn.speech.lina.network.decoder import DecoderState
from mmattn.speech.lina.training.codec_task import learning_rate_factor
from mmattn.speech.lina.training.fit import check_fits, described
from mmattn.speech.lina.voices.files import Voice, fingerprint, save_voice
from mmattn.speech.lina.voices.state import VoiceTable
from mmattn.speech.lina.weights.store import StoredLina, load_codec

__all__ = ["LinaTask"]

_CARD = """# Lina, in training

Written by `mmattn fit` with `mmattn.speech.lina.task.LinaTask` at step {step}. It knows the voices and the recording
conditions of its training data.
"""
_MOST_FRAMES = 500
_TOP_K = 10


class LinaTask(SpokenTask):
    """Trains one token model.

    Args:
        config: The model; null takes the config of ``initial_checkpoint``, or else the published one.
        initial_checkpoint: Weights to start from: "embedded", a checkpoint folder or hf:repo[/folder][@revision].
        test_checkpoint: Checkpoint that a test speaks with when no other is named, by ``initial_checkpoint`` or
            ``--ckpt_path``; so one config holds a training and the numbers of what came out of it.
        test_options: Of :class:`~mmattn.speech.lina.predictor.LinaInferOptions` for a test, over those the checkpoint
            recommends.
        codec: Folder of the codec that made the tokens, kept in every checkpoint so that it speaks; null leaves it out.
        voices: Names of training speakers that have an initial state of their own; it is written as a voice file. The
            first one is what the model speaks with when none is asked for.
        voice_rank: Products of such a state.
        voice_statement: What the voice files say of the speaker's consent.
        lr: Peak learning rate of AdamW.
        voice_lr: That of the voices' states.
        betas: Of AdamW.
        weight_decay: Of AdamW, for the weights.
        warmup_steps: Steps in which the rate rises.
        flat: Share of all steps after which it begins to fall, along a cosine.
        final: Share of the peak at the end.
        codebook_weights: What a token of each codebook counts in the loss; null is alike, as published.
        guided_weight: Weight of the guided attention at first.
        guided_until: Share of all steps after which it is gone.
        guided_sigma: Width of its diagonal.
        frame_masking: Share of the input's frames that are hidden in training.
        recompute: Form the blocks' intermediate values again in the backward pass: much less memory, a third more time.
        gate_bias: The forget gates' biases are spread over [0, this] at first, so that some channels keep what they
            hold for long; 0 leaves them as published.
        spoken: Sentences that a validation speaks.
    """

    model: LinaModel

    def __init__(
        self,
        config: LinaConfig | None = None,
        initial_checkpoint: str | None = None,
        test_checkpoint: str | None = None,
        test_options: dict[str, Any] | None = None,
        codec: str | None = None,
        voices: list[str] | None = None,
        voice_rank: int = 1,
        voice_statement: str = "",
        lr: float = 5e-4,
        voice_lr: float = 5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.1,
        warmup_steps: int = 500,
        flat: float = 0.0,
        final: float = 0.0,
        codebook_weights: list[float] | None = None,
        guided_weight: float = 0.0,
        guided_until: float = 0.5,
        guided_sigma: float = 0.12,
        frame_masking: float = 0.0,
        recompute: bool = False,
        gate_bias: float = 0.0,
        spoken: int = 8,
    ) -> None:
        if lr <= 0 or not 0 <= frame_masking < 1 or voice_rank < 1 or guided_sigma <= 0 or spoken < 0:
            raise InputError(
                f"lr is {lr}, frame_masking {frame_masking}, voice_rank {voice_rank}, guided_sigma {guided_sigma}, "
                f"spoken {spoken}; expected lr > 0, frame_masking in [0, 1), voice_rank >= 1, guided_sigma > 0, "
                "spoken >= 0."
            )
        if voices and not voice_statement.strip():
            raise InputError("Voices are written with a statement on consent; voice_statement is empty.")
        self.config, self.initial_checkpoint, self.codec_folder = config, initial_checkpoint, codec
        self.test_checkpoint, self.test_options = test_checkpoint, test_options or {}
        self.voices, self.voice_rank, self.voice_statement = voices or [], voice_rank, voice_statement
        self.lr, self.voice_lr, self.betas, self.weight_decay = lr, voice_lr, betas, weight_decay
        self.warmup_steps, self.flat, self.final = warmup_steps, flat, final
        self.codebook_weights = codebook_weights
        self.guided_weight, self.guided_until, self.guided_sigma = guided_weight, guided_until, guided_sigma
        self.frame_masking, self.recompute = frame_masking, recompute
        self.gate_bias, self.spoken = gate_bias, spoken
        super().__init__()

    def configure_models(self) -> None:
        """Builds the model and the table of voices."""
        if self.initial_checkpoint is not None:
            stored = StoredLina.load(self.initial_checkpoint)
            # Models are built in evaluation mode, and Lightning trains every part in the mode it finds it in.
            self.model = stored.build(self.config).train()
        else:
            self.model = LinaModel(self.config or LinaConfig())
            self._spread_gates()
        self.model.decoder.recompute = self.recompute
        fresh = self.model.initial_state(1)
        self.table = VoiceTable(fresh, len(self.voices), rank=self.voice_rank) if self.voices else None

    def _spread_gates(self) -> None:
        if self.gate_bias == 0.0:
            return
        for layer in self.model.modules():
            if isinstance(layer, GatedLinearAttention):
                bias = layer.get_parameter("gk_proj.1.bias")
                per_head = torch.linspace(0.0, self.gate_bias, len(bias) // layer.num_heads)
                bias.data.copy_(per_head.repeat(layer.num_heads))

    def setup(self, stage: str) -> None:
        """Checks that the data fit the model.

        Raises:
            InputError: If they differ in codebooks or text ids, or a voice has no recordings.
        """
        data, config = getattr(self.trainer, "datamodule", None), self.model.config
        if not isinstance(data, LinaDataModule) or stage == "test":
            return
        check_fits(data, config)
        missing = sorted(set(self.voices) - set(data.speakers))
        if missing:
            raise InputError(
                f"There are no training recordings of {', '.join(missing)}; there are {', '.join(data.speakers)}."
            )
        # The data count all speakers, the table those that are named.
        self.numbers = torch.tensor([self.voices.index(s) if s in self.voices else -1 for s in data.speakers])

    def configure_optimizers(self) -> Any:
        """Returns AdamW and its schedule."""
        groups: list[dict[str, Any]] = [{"params": list(self.model.parameters())}]
        if self.table is not None:
            groups.append({"params": list(self.table.parameters()), "lr": self.voice_lr, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)
        factor = partial(learning_rate_factor, total=total, warmup=self.warmup_steps, flat=self.flat, final=self.final)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: LinaBatch, batch_index: int) -> Tensor:
        """Returns the loss () of some utterances."""
        guided = self._guided_weight()
        speech = batch.speech
        out = self._run(self._hide_frames(speech), batch.speakers, with_maps=guided > 0.0)
        loss = lina_loss(out.logits, speech.audio, speech.audio_valid, self.codebook_weights).total
        self.log("train/loss", loss, prog_bar=True, batch_size=len(speech.text))
        if out.maps is None:
            return loss
        off = guided_attention_loss(out.maps, speech.audio_valid[:, 1:], speech.text_valid, sigma=self.guided_sigma)
        self.log("train/guided", off, batch_size=len(speech.text))
        return loss + guided * off

    def _guided_weight(self) -> float:
        until = self.guided_until * int(self.trainer.estimated_stepping_batches)
        return self.guided_weight * max(0.0, 1.0 - self.global_step / until) if until > 0 else 0.0

    def _hide_frames(self, speech: SpeechBatch) -> SpeechBatch:
        """Returns the batch with some columns of the audio replaced by the start, which says nothing."""
        if self.frame_masking == 0.0:
            return speech
        hidden = torch.rand(speech.audio.shape[:2], device=speech.audio.device) < self.frame_masking
        return speech._replace(audio=speech.audio.masked_fill(hidden[..., None], START))

    def _run(self, speech: SpeechBatch, speakers: Tensor, *, with_maps: bool) -> LinaOutput:
        return self.model(speech, state=self._start(speakers), with_maps=with_maps)

    def _start(self, speakers: Tensor) -> DecoderState:
        """Returns the states of speakers (B,) as the data count them."""
        fresh = self.model.initial_state(len(speakers))
        if self.table is None:
            return fresh
        known = self.numbers.to(speakers.device)[speakers.clamp_min(0)]
        return self.table(fresh, torch.where(speakers < 0, -1, known))

    def validation_step(self, batch: LinaBatch, batch_index: int) -> None:
        """Logs the loss, how often the right token is likeliest or among ten, and speaks the first batch."""
        speech = batch.speech
        out = self._run(speech, batch.speakers, with_maps=True)
        losses = lina_loss(out.logits, speech.audio, speech.audio_valid)
        found = {"loss": losses.total} | {f"loss_{q + 1}": each for q, each in enumerate(losses.per_codebook)}
        for name, k in (("top1", 1), (f"top{_TOP_K}", _TOP_K)):
            each = top_k_accuracy(out.logits, speech.audio, speech.audio_valid, k)
            found |= {f"{name}_{q + 1}": value for q, value in enumerate(each)}
        if out.maps is not None:
            found["guided"] = guided_attention_loss(
                out.maps, speech.audio_valid[:, 1:], speech.text_valid, sigma=self.guided_sigma
            )
        self.log_dict({f"val/{name}": value for name, value in found.items()}, batch_size=len(speech.text))
        if batch_index == 0 and self.spoken and not self.trainer.sanity_checking:
            self._speak(batch)

    def _speak(self, batch: LinaBatch) -> None:
        """Logs how many sentences of a batch end by themselves, and their length beside the recordings'."""
        count = min(self.spoken, len(batch.speakers))
        start = self._start(batch.speakers[:count])
        speech = batch.speech
        requests = [
            SpeechRequest(speech.text[i][speech.text_valid[i]], state=start.select(torch.tensor([i])), seed=i)
            for i in range(count)
        ]
        sampling = SamplingOptions(temperature=0.8, top_k=50, sampled_codebooks=None)
        spoken = generate(self.model, requests, GenerationOptions(sampling=sampling, max_frames=_MOST_FRAMES))
        frames = speech.audio_valid[:count].sum(dim=1) - 1 - self.model.config.num_codebooks
        ratios = torch.tensor([item.codes.shape[1] for item in spoken]) / frames.cpu()
        near = ((ratios - 1.0).abs() <= 0.3).float().mean()
        finished = sum(item.finished for item in spoken) / count
        self.log_dict({"val/finished": finished, "val/duration_within_30": near}, batch_size=count)

    def on_validation_end(self) -> None:
        """Writes the checkpoint folder of this step."""
        if self.trainer.sanity_checking or self.trainer.log_dir is None or not self.trainer.is_global_zero:
            return
        if self.trainer.state.fn == "fit":
            self.export(Path(self.trainer.log_dir) / f"step_{self.global_step}")

    def tested_checkpoint(self, scratch: Path) -> str | Path:
        """Returns the checkpoint that is named, or what is in training as one."""
        named = self.initial_checkpoint or self.test_checkpoint
        return self.export(scratch) if named is None or self.trainer.ckpt_path is not None else named

    def export(self, folder: Path) -> Path:
        """Writes the model, its codec, tokenizer and voices as a checkpoint folder and returns its path."""
        data = getattr(self.trainer, "datamodule", None)
        config = described(data, self.model.config) if isinstance(data, LinaDataModule) else self.model.config
        codec: dict[str, Tensor] = {}
        if self.codec_folder is not None:
            codec = self._codec(config.num_codebooks).state_dict()
        tensors = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        if self.voices:
            config = replace(config, default_voice=self.voices[0])
        StoredLina(config, tensors, codec).save(folder, card=_CARD.format(step=self.global_step))
        if isinstance(data, LinaDataModule) and data.tokenizer_file is not None:
            write_bytes(folder / data.tokenizer_file.name, data.tokenizer_file.read_bytes())
        if self.table is not None:
            (folder / "voices").mkdir(exist_ok=True)
            for number, name in enumerate(self.voices):
                voice = Voice(self.table.voice(number), fingerprint(tensors), self.voice_statement, name)
                save_voice(contained(f"{name}.safetensors", folder / "voices"), voice)
        return folder

    def _codec(self, codebooks: int) -> EmbeddedCodec:
        codec = load_codec(str(self.codec_folder))
        if not isinstance(codec, EmbeddedCodec):
            raise InputError(f"A {type(codec).__name__} is not kept in checkpoints; leave codec out.")
        return codec.first(codebooks)
