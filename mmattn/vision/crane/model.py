"""Crane: zero-shot anomaly detection with a frozen CLIP and learned prompts.

Source: arXiv 2504.11055. A picture goes through the dual-path vision tower (:mod:`.network.tower`, with D-Attn from
:mod:`.network.dattn` for Crane+), two learned prompts through the text tower (:mod:`.network.prompts`), and
:mod:`.network.scoring` compares them. Plain ``nn.Module``: no files, no training logic, no ``no_grad`` inside.

Shapes: B images (3, S, S) float32 with CLIP's normalisation, N patches, E width of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmattn.core.weights.loading import load_into
from mmattn.errors import InputError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.network.clip import build_clip, text_tower
from mmattn.vision.crane.network.foundation import Foundation, build_foundation
from mmattn.vision.crane.network.prompts import PromptLearner, encode_prompts
from mmattn.vision.crane.network.scoring import CraneOutput, score_features
from mmattn.vision.crane.network.tower import VisionFeatures, VisionTower

__all__ = ["CraneModel", "StaticCrane"]

_PROMPTS = "prompt_learner."
_HINT = "It was trained with another CLIP or other prompt lengths."


class CraneModel(nn.Module):
    """The network.

    Args:
        config: Architecture and scoring rule.
        clip: open_clip's ``CLIP``.
        foundation: What steers D-Attn; None is plain Crane. The embedded model's trunk is found in ``clip``.

    Raises:
        InputError: If the config does not fit the CLIP.
    """

    def __init__(self, config: CraneConfig, clip: nn.Module, foundation: Foundation | None = None) -> None:
        super().__init__()
        tower: Any = text_tower(clip)
        layers = len(tower.transformer.resblocks)
        if config.depth > layers:
            raise InputError(f"depth is {config.depth}, expected at most {layers}, the blocks of the text tower.")
        if config.foundation not in ("none", "trunk") and foundation is None:
            raise InputError(f"The config asks for the foundation {config.foundation!r}, but none was given.")
        if config.foundation == "trunk" and config.trunk == "none":
            raise InputError("The foundation is 'trunk', but the model has no trunk.", "Set trunk: efficientnet_lite0.")
        self.config = config
        self.clip = clip
        self.foundation = foundation
        self.tower = VisionTower(clip.visual, config)
        context_length, text_width = tower.positional_embedding.shape
        self.prompt_learner = PromptLearner(
            config,
            text_width=text_width,
            embed_dim=self.tower.visual.proj.shape[1],
            context_length=context_length,
        )
        self._static_text: tuple[tuple[int, ...], Tensor] | None = None

    @classmethod
    def from_config(cls, config: CraneConfig, *, pretrained: bool = False) -> Self:
        """Builds the model with CLIP and foundation of a config, in evaluation mode.

        Args:
            config: What to build.
            pretrained: Load the CLIP and foundation weights the config names; otherwise they are random.

        Raises:
            InputError, WeightsUnavailableError, CheckpointError: As :func:`.network.clip.build_clip`.
        """
        clip = build_clip(config, pretrained=pretrained)
        foundation = None if config.foundation == "trunk" else build_foundation(config, pretrained=pretrained)
        return cls(config, clip, foundation).eval()

    def forward(self, images: Tensor) -> CraneOutput:
        """Returns scores and maps of images (B, 3, S, S)."""
        vision = self.encode_image(images)
        condition = vision.image_features if self.config.inference_context else None
        return self.score(vision, self.encode_text(condition))

    def encode_image(self, images: Tensor) -> VisionFeatures:
        """Returns image and patch features of images (B, 3, S, S)."""
        features = None if self.foundation is None else self.foundation(images)
        if self.config.trunk == "none":
            return self.tower(images, features)._replace(memory=features)
        # The trunk serves the patch embedding, the memories and, if asked to, D-Attn; it runs once for all of them.
        embedding = self.tower.visual.conv1
        seen = embedding.features(images)
        steering = seen if self.config.foundation == "trunk" else features
        return self.tower(images, steering, embeddable=embedding.describe(seen))._replace(memory=seen)

    def memory_features(self, images: Tensor, vision: VisionFeatures | None = None) -> Tensor:
        """Returns the patch features (B, C, h, w) that few-shot memories compare.

        They are those of the foundation or of the embedded trunk, whichever is loaded, else the E-Attn features.

        Args:
            images: (B, 3, S, S).
            vision: Their features, if already known.
        """
        if vision is None and self.config.trunk != "none":
            features: Tensor = self.tower.visual.conv1.features(images)
            return features
        if vision is None and self.foundation is not None:
            return self.foundation(images)
        vision = self.encode_image(images) if vision is None else vision
        if vision.memory is not None:
            return vision.memory
        return vision.patch_features[-1].transpose(1, 2).unflatten(2, vision.grid)

    def encode_text(self, image_features: Tensor | None = None) -> Tensor:
        """Returns text features in the order [normal, abnormal], not normalised.

        Static features are kept and used again until a tensor of the text side changes, when no gradient is asked for.

        Args:
            image_features: (B, E) that condition the prompts; None gives static ones.

        Returns:
            (1, 2, E), or (B, 2, E) when conditioned.
        """
        keep = image_features is None and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        state = self._text_state() if keep else None
        if state is not None and self._static_text is not None and self._static_text[0] == state:
            return self._static_text[1]
        tower = text_tower(self.clip)
        prompts, ids = self.prompt_learner(tower.token_embedding, image_features)
        deep = list(self.prompt_learner.compound_prompts_text)
        text = encode_prompts(self.clip, prompts, ids, deep, deep_fp16=self.config.deep_prompt_fp16).transpose(0, 1)
        self._static_text = None if state is None else (state, text)
        return text

    def score(self, vision: VisionFeatures, text: Tensor) -> CraneOutput:
        """Returns scores (B,) and maps (B, S, S); the map is smoothed with ``config.sigma``, the raw one is not.

        Args:
            vision: Features of B images.
            text: (1, 2, E) or (B, 2, E).
        """
        return score_features(vision, text, self.config)

    def prompt_state_dict(self) -> dict[str, Tensor]:
        """Returns the learned tensors alone, named as in the published checkpoints."""
        return dict(self.prompt_learner.state_dict())

    def load_prompts(self, state: Mapping[str, Tensor]) -> None:
        """Loads the learned tensors alone; buffers that only repeat CLIP's own embeddings are ignored.

        Raises:
            CheckpointError: If names or shapes do not fit.
        """
        repeats = ("token_prefix_", "token_suffix_", "tokenized_prompts_")
        load_into(self.prompt_learner, state, what="The prompt file", hint=_HINT, ignored=repeats)

    def tensors(self) -> dict[str, Tensor]:
        """Returns what a checkpoint of this model holds.

        Prompts alone when the CLIP is re-created by name (``config.clip_pretrained``), everything otherwise.
        """
        if self.config.clip_pretrained is None:
            return dict(self.state_dict())
        return {_PROMPTS + name: tensor for name, tensor in self.prompt_state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads what :meth:`tensors` returned.

        Raises:
            CheckpointError: If names or shapes do not fit.
        """
        if all(name.startswith(_PROMPTS) for name in tensors) and self.config.clip_pretrained is not None:
            self.load_prompts({name.removeprefix(_PROMPTS): tensor for name, tensor in tensors.items()})
        else:
            load_into(self, tensors, hint=_HINT)

    def _text_state(self) -> tuple[int, ...] | None:
        """Names the values of the text side by place and version; None when torch does not count versions."""
        parameters = list(self.prompt_learner.parameters())
        parameters += [p for name, p in self.clip.named_parameters() if not name.startswith("visual.")]
        if any(parameter.is_inference() for parameter in parameters):
            return None
        return tuple(number for p in parameters for number in (p.data_ptr(), p._version))


class StaticCrane(nn.Module):
    """Images in, scores and maps out, with the texts computed beforehand: the form that is exported.

    Args:
        model: A Crane model whose prompts are not conditioned on the image.

    Raises:
        InputError: If they are.
    """

    text: Tensor

    def __init__(self, model: CraneModel) -> None:
        super().__init__()
        if model.config.inference_context:
            raise InputError("Prompts that are conditioned on each picture cannot be exported.", "Turn it off first.")
        self.model = model
        with torch.no_grad():
            self.register_buffer("text", model.encode_text().detach().clone())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores (B,) and smoothed maps (B, S, S) of images (B, 3, S, S)."""
        output = self.model.score(self.model.encode_image(images), self.text)
        return output.score, output.anomaly_map
