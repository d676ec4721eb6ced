"""The one door to a Crane model: from a file or an array to a :class:`CraneResult`. Scripts, apps and tests use it.

``CranePredictor.from_pretrained("embedded").predict("part.jpg")`` gives ``score``, ``anomaly_map`` and a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mmattn.core.config_fields import chosen
from mmattn.core.device import resolve_device
from mmattn.errors import InputError
from mmattn.media.image import read_image
from mmattn.media.video import is_video, open_video, sample_times
from mmattn.vision.crane.config import RECIPES, CraneConfig, CraneInferOptions
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.memory import MutualMemory, NormalMemory, PatchMemory, blend
from mmattn.vision.crane.network.preprocess import Preprocess
from mmattn.vision.crane.results import CraneResult, CraneVideoResult
from mmattn.vision.crane.weights.store import StoredCrane

__all__ = ["CranePredictor", "Item", "Picture", "shrink"]

MAX_PICTURE_SIDE = 1600
MAX_FRAME_SIDE = 960


class Picture(NamedTuple):
    """A picture that was read already.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        key: What a mutual memory knows it by, its resolved path.
    """

    image: np.ndarray
    key: str | None = None


Item: TypeAlias = str | Path | np.ndarray | Picture


def shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    """Returns the (H, W, 3) uint8 picture with its longer side at most ``max_side`` pixels."""
    longest = max(image.shape[:2])
    if longest <= max_side:
        return image
    from PIL import Image

    height, width = (max(1, round(side * max_side / longest)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


class CranePredictor:
    """A loaded model with its preprocessing, its threshold and, when asked for, a memory.

    Args:
        model: The network, in eval mode on ``device``.
        device: Where it runs.
        options: Choices of this run.
        name: What the apps call this model.
    """

    def __init__(
        self,
        model: CraneModel,
        *,
        device: torch.device,
        options: CraneInferOptions | None = None,
        name: str = "crane",
    ) -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.options = options or CraneInferOptions()
        self.name = name
        self.memory: PatchMemory | None = None
        self._preprocess = Preprocess(model.config.image_size)
        _check_options(self.options)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "embedded",
        *,
        device: str = "auto",
        options: CraneInferOptions | None = None,
        **overrides: Any,
    ) -> CranePredictor:
        """Loads a checkpoint.

        Args:
            source: "embedded", a checkpoint folder, or ``hf:repo[/folder][@revision]``.
            device: "auto", "cpu", "cuda", ...
            options: Choices of this run; a recipe in them changes how the model is built.
            **overrides: Fields of :class:`CraneConfig` that change scoring or name weights, such as ``sigma``.

        Raises:
            CheckpointError: If the checkpoint is of another system or its tensors do not fit.
            WeightsUnavailableError: If weights are neither on disk nor reachable.
            InputError: If an option is out of range or the recipe is unknown.
        """
        options = options or CraneInferOptions()
        stored = StoredCrane.load(source)
        model = stored.build(_apply(stored.config, options.recipe, overrides))
        name = "embedded" if str(source) == "embedded" else Path(str(source)).name
        predictor = cls(model, device=resolve_device(device), options=options, name=name)
        if options.normal_images is not None:
            predictor.remember_normals(_pictures_of(options.normal_images))
        return predictor

    def predict(self, item: Item) -> CraneResult | CraneVideoResult:
        """Returns the result of one picture (path, uint8 RGB array, :class:`Picture`) or one video (path)."""
        return self.predict_batch([item])[0]

    def predict_batch(self, items: Sequence[Item]) -> list[CraneResult | CraneVideoResult]:
        """Returns one result per item, in order. Scores do not depend on what else is in the batch."""
        videos = {
            i: self._predict_video(Path(item))
            for i, item in enumerate(items)
            if isinstance(item, str | Path) and is_video(Path(item))
        }
        pictures = [i for i in range(len(items)) if i not in videos]
        images = [self.read(items[i]) for i in pictures]
        results = self._predict_images(images, [_key(items[i]) for i in pictures]) if images else []
        found: dict[int, CraneResult | CraneVideoResult] = {**videos, **dict(zip(pictures, results, strict=True))}
        return [found[i] for i in range(len(items))]

    def read(self, item: Item) -> np.ndarray:
        """Returns (H, W, 3) uint8 RGB of a path or array.

        Raises:
            InputError: If an array is not (H, W, 3) uint8.
        """
        if isinstance(item, Picture):
            item = item.image
        if not isinstance(item, np.ndarray):
            return read_image(Path(item))
        if item.ndim != 3 or item.shape[2] != 3 or item.dtype != np.uint8:
            raise InputError(
                f"The picture is an array {item.shape} of {item.dtype}, expected (H, W, 3) of uint8 RGB.",
                "Convert it before the call.",
            )
        return item

    @torch.inference_mode()
    def scores_and_maps(self, images: Sequence[np.ndarray], keys: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Returns scores (B,) and maps (B, S, S), both float32 in [0, 1] on the CPU.

        Args:
            images: B pictures (H, W, 3) uint8 RGB of any size.
            keys: Name of each picture, so that a mutual memory leaves the picture itself out.
        """
        batch = torch.stack([self._preprocess(image) for image in images]).to(self.device)
        vision = self.model.encode_image(batch)
        condition = vision.image_features if self.model.config.inference_context else None
        output = self.model.score(vision, self.model.encode_text(condition))
        scores, maps = output.score, output.anomaly_map
        if self.memory is not None:
            features = self.model.memory_features(batch, vision)
            distances = torch.stack([self.memory.distances(f, key=k) for f, k in zip(features, keys, strict=True)])
            weight, sigma = self.options.memory_weight, self.model.config.sigma
            scores, maps = blend(scores, maps, distances, weight=weight, sigma=sigma)
        return scores.float().cpu(), maps.float().cpu()

    @torch.inference_mode()
    def memory_features(self, image: np.ndarray) -> Tensor:
        """Returns the patch features (C, h, w) that memories compare, float32 on the CPU."""
        batch = self._preprocess(image)[None].to(self.device)
        return self.model.memory_features(batch)[0].float().cpu()

    def remember_normals(self, pictures: Sequence[Item], *, max_patches: int = 50_000) -> None:
        """Turns the few-shot mode on: fuses the map with the distance to these flawless pictures."""
        features = (self.memory_features(self.read(picture)) for picture in pictures)
        memory = NormalMemory.fit(features, max_patches=max_patches)
        self.memory = NormalMemory(memory.bank.to(self.device), memory.scale)

    def remember_mutually(self, pictures: Sequence[str | Path], store: Path, *, max_references: int = 256) -> None:
        """Turns the mutual mode on: each picture is compared with the others of the same folder.

        Args:
            pictures: Paths of all pictures, at least three of which can be read; unreadable ones are left out here
                and reported when they are scored.
            store: File for the features, float16; its size is ``max_references * N * C * 2`` bytes.
            max_references: Pictures kept for comparison.
        """

        def readable() -> Iterator[tuple[str, Tensor]]:
            for picture in pictures:
                try:
                    yield _key(picture) or "", self.memory_features(self.read(picture))
                except (OSError, ValueError):
                    continue

        self.memory = MutualMemory.fit(readable(), store, count=len(pictures), max_references=max_references)

    def _predict_images(self, images: Sequence[np.ndarray], keys: Sequence[str | None]) -> list[CraneResult]:
        scores, maps = self.scores_and_maps(images, keys)
        return [
            CraneResult(
                score=float(score),
                anomaly_map=anomaly_map.numpy(),
                image=shrink(image, MAX_PICTURE_SIDE),
                image_size=(image.shape[0], image.shape[1]),
                threshold=self.options.threshold,
                pixel_threshold=self.options.pixel_threshold,
                map_format=self.options.map_format,
                display_range=self.options.display_range,
            )
            for score, anomaly_map, image in zip(scores, maps, images, strict=True)
        ]

    def _predict_video(self, path: Path) -> CraneVideoResult:
        with open_video(path) as reader:
            indices = sample_times(reader, self.options.video_fps)
            times = np.asarray(reader.timestamps)[indices]
            frames, scores, maps = [], [], []
            for index in indices:
                frame = reader.get_batch([index])[0]
                score, anomaly_map = self.scores_and_maps([frame], [None])
                frames.append(shrink(frame, MAX_FRAME_SIDE))
                scores.append(float(score[0]))
                maps.append(anomaly_map[0].numpy().astype(np.float16))
        return CraneVideoResult(
            times=times,
            scores=np.array(scores),
            anomaly_maps=np.stack(maps),
            frames=np.stack(frames),
            fps=min(self.options.video_fps, reader.fps),
            threshold=self.options.threshold,
            pixel_threshold=self.options.pixel_threshold,
            display_range=self.options.display_range,
        )


def _apply(config: CraneConfig, recipe: str | None, overrides: dict[str, Any]) -> CraneConfig:
    """The stored config with a recipe and scoring overrides; None leaves a field as stored."""
    if recipe is not None:
        if recipe not in RECIPES:
            raise InputError(f"There is no recipe {recipe!r}.", f"Choose one of: {', '.join(RECIPES)}.")
        settings = dict(RECIPES[recipe])
        if config.trunk != "none":
            # The embedded model has other layers and one foundation of its own.
            settings.pop("feature_layers")
            settings["foundation"] = "none" if settings["foundation"] == "none" else "trunk"
        config = replace(config, **settings)
    if overrides.get("clip_pretrained") is not None and config.clip_pretrained is None:
        raise InputError("This checkpoint holds its own CLIP, so other CLIP weights do not fit.", "Leave them out.")
    return chosen(config, overrides)


def _check_options(options: CraneInferOptions) -> None:
    for name in ("threshold", "pixel_threshold", "memory_weight"):
        value = getattr(options, name)
        if not 0.0 <= value <= 1.0:
            flag = name.replace("_", "-")
            raise InputError(f"{name} is {value}, expected a number in [0, 1].", f"Pass --{flag} 0.5.")
    if not options.video_fps > 0:
        raise InputError(f"video_fps is {options.video_fps}, expected more than 0.", "Pass --video-fps 2.")
    if options.mutual and options.normal_images is not None:
        raise InputError("--mutual and --normal-images exclude each other.", "Choose one of them.")


def _pictures_of(folder: str) -> list[Path]:
    from mmattn.core.batch.inputs import expand_inputs
    from mmattn.media.image import IMAGE_SUFFIXES

    return [item.path for item in expand_inputs([folder], suffixes=IMAGE_SUFFIXES)]


def _key(item: Item) -> str | None:
    if isinstance(item, Picture):
        return item.key
    return None if isinstance(item, np.ndarray) else str(Path(item).resolve())
