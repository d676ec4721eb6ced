"""Features of clips on disk: one memory-mapped half-precision file a clip, and what made them.

The format of everything that is computed once and read often, public features after conversion and features of a
user's own videos alike::

    manifest.json        what the features are: width, boxes, frame rate, and the fingerprint of what made them
    clips/ID.safetensors features (T, N + 1, F) float16, valid (T, N + 1) bool, times (T,) float64 seconds,
                         boxes (T, N, 6) float32 x1, y1, x2, y2, score, class in pixels (if there are any)
    clips.csv            annotations, if the folder is a dataset of its own (layout ``features``)
    errors.jsonl         clips that failed the last time they were tried, and why

Slot 0 of a frame is the whole frame, slots 1 to N are its boxes. A clip's file appears complete or not at all, so an
interrupted run continues where it stopped; features of another detector or backbone have another fingerprint and are
refused. Half precision holds what VGG-16 and ResNet-101 give (values of tens) to three digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmattn.core.datasets import features
from mmattn.core.datasets.features import FeatureStore, Rows
from mmattn.errors import InputError, describe
from mmattn.media.files import atomic_path

__all__ = ["ClipFeatures", "FeatureFolder", "Filled", "Manifest", "fill"]

FORMAT_VERSION = 1
MANIFEST, CLIPS, ERRORS = "manifest.json", "clips", "errors.jsonl"


class ClipFeatures(NamedTuple):
    """Features of one clip of T frames with N boxes each.

    Attributes:
        features: (T, N + 1, F) float.
        valid: (T, N + 1) bool, True where a slot holds something.
        times: (T,) float64 seconds from the start of the video, increasing.
        boxes: (T, N, 6) float32 x1, y1, x2, y2, score, class; None where there are none.
    """

    features: npt.NDArray[np.floating[Any]]
    valid: npt.NDArray[np.bool_]
    times: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Manifest:
    """What all clips of a folder have in common.

    Attributes:
        fingerprint: Name of everything that shapes the features, see :mod:`mmattn.core.datasets.features`.
        feature_dim: F.
        num_boxes: N.
        fps: Frames per second the videos were sampled at.
        source: What made them, plain JSON, for people.
    """

    fingerprint: str
    feature_dim: int
    num_boxes: int
    fps: float
    source: Mapping[str, Any]


class FeatureFolder(FeatureStore):
    """A folder in this format.

    Args:
        root: The folder; :meth:`open` and :meth:`create` check it first.
        manifest: Its manifest.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        super().__init__(root / CLIPS)
        self.root = root
        self.manifest = manifest

    @classmethod
    def open(cls, root: str | Path) -> FeatureFolder:
        """Opens an existing folder.

        Raises:
            InputError: If it is missing, has no manifest, or was written in a newer format.
        """
        folder = Path(root).expanduser()
        if not (folder / MANIFEST).is_file():
            raise InputError(
                f"'{folder}' is no folder of features: it has no {MANIFEST}.",
                "Make one from public features with: mmattn convert crash DATASET --output DIR",
            )
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            version = int(content.pop("format_version"))
            manifest = Manifest(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"'{folder / MANIFEST}' is damaged: {error}.", "Make the folder again.") from error
        if version > FORMAT_VERSION:
            raise InputError(f"'{folder}' has format {version}; this version reads up to {FORMAT_VERSION}.")
        return cls(folder, manifest)

    @classmethod
    def create(cls, root: str | Path, manifest: Manifest) -> FeatureFolder:
        """Opens a folder for writing; an existing one is continued if it holds the same kind of features.

        Raises:
            InputError: If it holds features made in another way, or other files.
            MediaError: If it cannot be written.
        """
        folder = Path(root).expanduser()
        if (folder / MANIFEST).is_file():
            existing = cls.open(folder)
            if existing.manifest.fingerprint != manifest.fingerprint:
                raise InputError(
                    f"'{folder}' holds features made in another way: {dict(existing.manifest.source)}, now "
                    f"{dict(manifest.source)}.",
                    "Choose another folder.",
                )
            return existing
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"'{folder}' exists and is no folder of features.", "Choose a new folder.")
        content = {"format_version": FORMAT_VERSION, **asdict(manifest), "source": dict(manifest.source)}
        with atomic_path(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return cls(folder, manifest)

    def file(self, key: str) -> Path:
        """Returns the file of a clip, whether it exists or not; slashes in an id make sub-folders.

        Raises:
            InputError: If the id would leave the folder.
        """
        name = PurePosixPath(key)
        if not key or name.is_absolute() or ".." in name.parts or "\\" in key or "\0" in key:
            raise InputError(f"The clip id {key!r} cannot be a file name.", "Use letters, digits, '_', '-', '/'.")
        return super().file(key)

    def store(self, clip_id: str, clip: ClipFeatures) -> None:
        """Writes one clip.

        Raises:
            InputError: As :meth:`check`.
            MediaError: If the folder cannot be written or the disk is full.
        """
        self.check(clip)
        self.put(clip_id, _rows(clip))

    def load(self, clip_id: str, *, with_boxes: bool = False) -> ClipFeatures:
        """Reads one clip; ``boxes`` is None unless asked for.

        Raises:
            InputError: If it is missing, damaged, of another size than the manifest says, or has no boxes.
        """
        file = self.file(clip_id)
        if not file.is_file():
            raise InputError(
                f"The features of the clip {clip_id!r} are missing ('{file}').", f"See '{self.root / ERRORS}'."
            )
        names = ("features", "valid", "times", *(("boxes",) if with_boxes else ()))
        clip = ClipFeatures(*(tensor.numpy() for tensor in self.get(clip_id, names).values()))
        self._check_shapes(clip, f"'{file}': ")
        return clip

    def check(self, clip: ClipFeatures) -> None:
        """Checks a clip before it is stored.

        Raises:
            InputError: If shapes do not fit each other or the manifest, there is no frame, times do not increase, or
                features are not finite in half precision.
        """
        self._check_shapes(clip)
        if not np.isfinite(clip.times).all() or (np.diff(clip.times) <= 0).any():
            raise InputError("The times of the frames are not increasing numbers.")
        with np.errstate(over="ignore"):
            is_finite = np.isfinite(clip.features.astype(np.float16)).all(axis=(1, 2))
        if not is_finite.all():
            frame = int(np.argmin(is_finite))
            raise InputError(f"Features of frame {frame} are not finite numbers that half precision holds.")

    def _check_shapes(self, clip: ClipFeatures, where: str = "") -> None:
        frames = clip.features.shape[0] if clip.features.ndim else 0
        slots, boxes = self.manifest.num_boxes + 1, self.manifest.num_boxes
        expected: dict[str, tuple[int, ...]] = {
            "features": (frames, slots, self.manifest.feature_dim), "valid": (frames, slots), "times": (frames,),
            "boxes": (frames, boxes, 6),
        }  # fmt: skip
        for name, array in clip._asdict().items():
            if array is not None and (array.shape != expected[name] or frames == 0):
                raise InputError(f"{where}{name} has shape {array.shape}, expected {expected[name]} with T above 0.")

    def note_errors(self, errors: Iterable[Mapping[str, str]]) -> None:
        """Replaces the report of clips that failed; without any the file is removed."""
        lines = [json.dumps(dict(error)) + "\n" for error in errors]
        if not lines:
            (self.root / ERRORS).unlink(missing_ok=True)
            return
        with atomic_path(self.root / ERRORS) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


class Filled(NamedTuple):
    """What :func:`fill` did.

    Attributes:
        made: Clips that were computed.
        kept: Clips that were there already.
        errors: Clips that failed: id, input, error, hint; also in ``errors.jsonl``.
    """

    made: int
    kept: int
    errors: list[dict[str, str]]


def fill(
    folder: FeatureFolder, clips: Iterable[tuple[str, str]], extract: Callable[[str], ClipFeatures], *, name: str = ""
) -> Filled:
    """Computes the clips that are not in the folder yet; one that fails is reported and does not stop the others.

    Args:
        folder: Where they go.
        clips: Id and input (usually a path) of each.
        extract: Makes the features of one input; what it raises as ``OSError`` or ``ValueError`` is that clip's error.
        name: Shown beside the progress bar.

    Raises:
        MediaError: If the folder cannot be written or the disk is full; what was finished stays.
    """
    wanted = dict(clips)
    errors: list[dict[str, str]] = []

    def make(missing: dict[str, str]) -> Iterator[tuple[str, Rows | None]]:
        for clip_id, source in missing.items():
            try:
                clip = extract(source)
                folder.check(clip)
            except (OSError, ValueError) as error:
                message, hint = describe(error)
                errors.append({"id": clip_id, "input": source, "error": message, "hint": hint})
                folder.note_errors(errors)
                yield clip_id, None
            else:
                yield clip_id, _rows(clip)

    missing = features.fill(folder, wanted, make, what=name or "Features", unit="clip")
    folder.note_errors(errors)
    return Filled(missing - len(errors), len(wanted) - missing, errors)


def _rows(clip: ClipFeatures) -> dict[str, Tensor]:
    """Returns a clip's arrays as they are stored."""
    dtypes = {"features": np.float16, "valid": np.bool_, "times": np.float64, "boxes": np.float32}
    return {
        name: torch.from_numpy(np.ascontiguousarray(array, dtypes[name]))
        for name, array in clip._asdict().items()
        if array is not None
    }
