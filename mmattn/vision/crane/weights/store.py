"""A Crane checkpoint folder: the learned prompts alone where CLIP is re-created by its name, or the whole model."""

from __future__ import annotations

from mmattn.core.weights.loading import check_sizes
from mmattn.core.weights.stored_model import StoredModel
from mmattn.errors import CheckpointError, InputError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.model import CraneModel

__all__ = ["StoredCrane"]

_SIZES = ("embed_dim", "vision_width", "vision_layers", "text_width", "text_layers", "context_length", "vocab_size")


class StoredCrane(StoredModel[CraneConfig]):
    """What a checkpoint folder holds; there is no part beside the model."""

    SYSTEM, CONFIG, WHAT = "crane", CraneConfig, "a Crane model"

    def build(self, config: CraneConfig | None = None, *, pretrained: bool = True) -> CraneModel:
        """Returns the model with these tensors, in evaluation mode.

        Args:
            config: Another config of the same sizes; None takes the stored one.
            pretrained: Load the CLIP and foundation weights that the config names; False leaves them random.

        Raises:
            CheckpointError: If the tensors do not fit, or the stored config describes no model.
            InputError: If a given config describes none.
            WeightsUnavailableError: If weights that the config names are neither on disk nor reachable.
        """
        wanted = config or self.config
        clip = wanted.clip_architecture
        if clip is not None:
            patches = (clip.image_size // clip.patch_size) ** 2
            check_sizes(
                {**{name: getattr(clip, name) for name in _SIZES}, "image_size": patches},
                self.tensors,
                what="The model",
            )
        try:
            model = CraneModel.from_config(wanted, pretrained=pretrained and wanted.clip_pretrained is not None)
        except InputError as error:
            if wanted != self.config:
                raise
            raise CheckpointError(
                f"The config of '{self.folder}' describes no model: {error.message}", self.HINT
            ) from error
        model.load_tensors(self.tensors)
        return model
