"""Perceptions by crops: a detector, and as backbone that of the release or any image network of timm or open_clip.

A backbone is built by ``(name, weights, options)``. Every builder raises :class:`InputError` for an unknown name,
:class:`WeightsUnavailableError` if the weights are neither a file, nor cached, nor reachable, :class:`CheckpointError`
if a file does not fit, and :class:`MissingExtraError` if its library is not installed.

Of timm and open_clip, the features are what the network gives for a picture: pooled and without a classifier (timm),
or the embedding that is compared with texts (open_clip). Crops are squashed to the network's square, so that all of a
box is seen, and normalised as the network was trained. A risk model has to be trained on features of the same backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmattn.core.weights.loading import load_into
from mmattn.core.weights.pretrained import missing_weights, open_clip_file
from mmattn.core.weights.torch_file import read_state
from mmattn.errors import InputError, MissingExtraError
from mmattn.video.crash.perception.crop_perception import Backbone, CropOptions, CropPerception
from mmattn.video.crash.perception.crops import Crops
from mmattn.video.crash.perception.released import released_backbone
from mmattn.video.crash.perception.road_detectors import NoDetector, RoadDetector, TorchvisionDetector

__all__ = ["build_backbone_perception", "build_detector", "open_clip_backbone", "timm_backbone"]

_OPTION = "backbone_weights in perception_options"
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def build_backbone_perception(
    library: Literal["released", "timm", "open_clip"],
    options: Mapping[str, Any],
    *,
    num_boxes: int = 19,
    fps: float = 10.0,
    device: torch.device | None = None,
    detector: RoadDetector | None = None,
) -> CropPerception:
    """Builds the perception and loads its weights.

    Args:
        library: Where the backbone's name is looked up.
        options: Fields of :class:`CropOptions`; ``backbone`` must be given, except for "released".
            ``backbone_weights`` is a tag, the path of a file, or empty for the library's first choice.
        num_boxes: Box slots N.
        fps: Frames per second of the risk model.
        device: Where the networks run; None is the CPU.
        detector: Used in the place of the named one, whose weights are then not needed.

    Raises:
        InputError: If an option or the backbone's name is unknown.
        WeightsUnavailableError: If weights are neither a file, nor cached, nor reachable.
        CheckpointError: If a file does not fit.
        MissingExtraError: If the library is not installed.
    """
    chosen = CropOptions.from_dict(options)
    if not chosen.backbone and library != "released":
        raise InputError(
            f"The perception {library!r} needs the name of a backbone.",
            'Set perception_options to, for example, {"backbone": "'
            + ("resnet50" if library == "timm" else "ViT-B-32")
            + '"}.',
        )
    device = device or torch.device("cpu")
    found = detector or build_detector(chosen, device)
    backbone = BUILDERS[library](chosen.backbone, chosen.backbone_weights, options=chosen)
    return CropPerception(
        found,
        backbone.network,
        backbone.crops,
        feature_dim=backbone.feature_dim,
        num_boxes=num_boxes,
        fps=fps,
        device=device,
        options=chosen,
    )


def timm_backbone(name: str, weights: str = "", *, options: CropOptions | None = None) -> Backbone:
    """Returns a network of timm without its classifier.

    Args:
        name: Timm's name, such as "resnet50" or "vit_small_patch14_dinov2".
        weights: A tag, such as "a1_in1k", the path of a file, or empty for timm's first choice.
        options: How frame and boxes are fitted.

    Raises:
        InputError: If timm has no such network, or cannot build it.
        MissingExtraError: If timm is not installed.
        WeightsUnavailableError: If weights are neither a file, nor cached, nor reachable.
        CheckpointError: If a file does not fit.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "vision", "This backbone") from error
    if not timm.is_model(name.partition(".")[0]):
        raise _unknown("timm", name, timm.list_models())
    file = Path(weights).expanduser()
    is_file = bool(weights) and file.is_file()
    full_name = f"{name}.{weights}" if weights and not is_file else name
    try:
        network: Any = timm.create_model(full_name, pretrained=not is_file, num_classes=0)
    except OSError as error:
        raise missing_weights(
            f"timm/{full_name}", f"https://huggingface.co/timm/{full_name}", option=_OPTION
        ) from error
    except RuntimeError as error:
        raise InputError(f"timm cannot build {full_name!r}: {str(error).splitlines()[0].rstrip('.')}.") from error
    if is_file:
        # Timm itself accepts files that fit in part.
        heads = network.pretrained_cfg["classifier"]
        heads = heads if isinstance(heads, tuple | list) else (heads,)
        load_into(network, read_state(file), what=f"'{file}'", ignored=tuple(f"{head}." for head in heads if head))
    data = timm.data.resolve_model_data_config(network)
    return _backbone(network.eval(), data["input_size"][1:], data["mean"], data["std"], data["interpolation"], options)


def open_clip_backbone(name: str, weights: str = "", *, options: CropOptions | None = None) -> Backbone:
    """Returns the vision tower of an open_clip model.

    Args:
        name: open_clip's name, such as "ViT-B-32".
        weights: A tag, such as "laion2b_s34b_b79k", the path of a file of the whole model or its vision tower, or
            empty for open_clip's first choice.
        options: How frame and boxes are fitted.

    Raises:
        InputError: If open_clip has no such model.
        MissingExtraError: If open_clip is not installed.
        WeightsUnavailableError: If weights are neither a file, nor cached, nor reachable.
        CheckpointError: If a file does not fit.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError("open-clip-torch", "vision", "This backbone") from error
    if name not in open_clip.list_models():
        raise _unknown("open_clip", name, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(name)
    file = Path(weights).expanduser() if weights else None
    tag = weights if weights in tags else (tags[0] if tags else "")
    if file is None or not file.is_file():
        file = open_clip_file(name, weights or tag, option=_OPTION)
    tower = open_clip.create_model(name, precision="fp32", load_weights=False).visual
    state = read_state(file)
    if any(key.startswith("visual.") for key in state):
        state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    load_into(tower, state, what=f"'{file}'")
    known = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    mean, std = known.get("mean") or _CLIP_MEAN, known.get("std") or _CLIP_STD
    return _backbone(tower.eval(), tower.image_size, mean, std, known.get("interpolation", "bicubic"), options)


BUILDERS: dict[str, Callable[..., Backbone]] = {
    "released": released_backbone,
    "timm": timm_backbone,
    "open_clip": open_clip_backbone,
}


def build_detector(options: CropOptions, device: torch.device) -> RoadDetector:
    """Returns the detector of the options.

    Raises:
        InputError: If there is no such detector.
        WeightsUnavailableError: If its weights are neither a file, nor cached, nor reachable.
    """
    if options.detector == "none":
        return NoDetector()
    return TorchvisionDetector.from_name(
        options.detector,
        options.detector_weights,
        device=device,
        threshold=options.score_threshold,
        size=options.detector_size,
    )


def _unknown(library: str, name: str, known: list[str]) -> InputError:
    near = get_close_matches(name, known, n=6)
    return InputError(f"{library} has no model {name!r}.", f"Similar names: {', '.join(near)}." if near else "")


def _backbone(
    network: nn.Module, size: Any, mean: Any, std: Any, resample: str, options: CropOptions | None
) -> Backbone:
    """Returns the network with crops made as it was trained; runs it once to learn its width."""
    sides = {int(side) for side in (size if isinstance(size, tuple | list) else (size,))}
    if len(sides) != 1:
        raise InputError(f"The backbone takes pictures of {tuple(size)} pixels, expected a square.")
    side = sides.pop()
    fit = options or CropOptions()
    crops = Crops(
        size=side,
        shorter_side=side,
        frame=fit.frame_resize or "squash",
        box=fit.box_resize or "squash",
        mean=tuple(mean),
        std=tuple(std),
        resample="bilinear" if resample == "bilinear" else "bicubic",
    )
    with torch.inference_mode():
        features: Tensor = network(torch.zeros(1, 3, side, side))
    if features.ndim != 2:
        raise InputError(f"The backbone gives features of shape {tuple(features.shape[1:])}, expected one vector.")
    return Backbone(network, crops, features.shape[1])
