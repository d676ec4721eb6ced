"""Generated clips as data of the risk model: features that the embedded perception saw, or that it would have seen.

A feature folder (see :mod:`.datasets.feature_folder`) is filled once and read by every run. Training clips are of two
kinds: drawn ones that the detector really looked at, and simulated ones, cheaper, with its errors imitated (none by
default). Validation and test clips are always drawn and looked at, unless the ceiling of exact states is asked for. The
id of a clip says what it is: ``test/cut_in/near/000012``. Features of another detector or of other imitated errors are
refused, never mixed with these.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import cv2
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from tqdm import tqdm

from mmattn.core.datasets.features import fingerprint
from mmattn.errors import InputError
from mmattn.video.crash.data import CrashDataModule
from mmattn.video.crash.datasets.clip_table import listed_clips, write_clip_table
from mmattn.video.crash.datasets.feature_folder import ClipFeatures, FeatureFolder, Manifest
from mmattn.video.crash.datasets.records import ListedClip
from mmattn.video.crash.perception.embedded import EmbeddedPerception
from mmattn.video.crash.perception.features import BOX_FEATURES, FEATURES, FRAME_FEATURES
from mmattn.video.crash.perception.protocol import FramePerception
from mmattn.video.crash.perception.tracking import KIND_NAMES
from mmattn.video.crash.synthetic.drawing.render import decode, render
from mmattn.video.crash.synthetic.files import clip_path, read_clip, write_clip
from mmattn.video.crash.synthetic.mirroring import WithMirrored
from mmattn.video.crash.synthetic.simulated_perception import EXACT, FITTED, perceive
from mmattn.video.crash.synthetic.world.clips import draw_clip, plan
from mmattn.video.crash.synthetic.world.physics import FPS, FRAMES
from mmattn.video.crash.weights.store import load_detector

__all__ = ["SyntheticCrashDataModule", "clip_id", "fill_features"]

Kind = Literal["detected", "simulated", "exact"]
SIMULATED_FROM = 100_000
"""Simulated training clips are other clips than the drawn ones: their numbers start here."""
_VERSION = 1


class Wanted(NamedTuple):
    """A clip whose features are wanted: how it is perceived, its split and its number there."""

    kind: Kind
    split: str
    number: int


def clip_id(wanted: Wanted) -> str:
    """Returns the name of a clip in a feature folder.

    >>> clip_id(Wanted("detected", "val", 0))
    'val/rear_end_others/collision/000000'
    """
    _, kind, outcome = plan(wanted.split, wanted.number)
    return f"{wanted.split}/{kind}/{outcome}/{wanted.number:06d}"


def fill_features(
    root: str | Path,
    wanted: list[Wanted],
    detector: str | Path | None,
    *,
    clips: str | Path | None = None,
    num_boxes: int = 12,
    workers: int = 1,
) -> FeatureFolder:
    """Computes the features that a folder lacks.

    Args:
        root: The feature folder.
        wanted: The clips; simulated and exact ones are looked at by no detector.
        detector: Folder that the detector's training wrote, or "embedded"; None where all states are exact.
        clips: Folder where drawn clips are kept; None draws those that are looked at and keeps no pictures.
        num_boxes: Box slots N.
        workers: Processes that draw and look.

    Raises:
        InputError: If the folder holds features made in another way.
        CheckpointError: If the detector cannot be read.
    """
    source = feature_source(num_boxes, detector)
    folder = FeatureFolder.create(root, Manifest(fingerprint(source), FEATURES, num_boxes, float(FPS), source))
    jobs = [(folder, one, detector, clips) for one in wanted if not folder.has(clip_id(one))]
    progress = tqdm(total=len(jobs), desc="Looking at clips", unit="clip", mininterval=10, disable=not jobs)
    if workers <= 1 or len(jobs) < 2:
        for job in jobs:
            perceive_job(job)
            progress.update()
        return folder
    # Spawned, not forked: torch's and OpenCV's thread pools do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=one_thread) as pool:
        for _ in pool.map(perceive_job, jobs, chunksize=4):
            progress.update()
    return folder


def feature_source(num_boxes: int, detector: str | Path | None) -> dict[str, Any]:
    """Returns all that features depend on besides the clip: what the manifest of a folder says of them.

    Raises:
        CheckpointError: If the detector cannot be read.
    """
    source = {"version": _VERSION, "num_boxes": num_boxes, "features": [*BOX_FEATURES, *FRAME_FEATURES]}
    if detector is None:
        return {**source, "detector": "none: exact states"}
    tensors, _ = load_detector(detector)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        # Half precision, in which it ships, is the same detector.
        value = tensors[name].half() if tensors[name].is_floating_point() else tensors[name]
        digest.update(name.encode() + value.numpy().tobytes())
    return {**source, "detector": digest.hexdigest()[:32], "noise": asdict(FITTED)}


def one_thread() -> None:
    """Keeps a worker process to one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def perceive_job(job: tuple[FeatureFolder, Wanted, str | Path | None, str | Path | None]) -> None:
    """Perceives one clip and stores its features."""
    folder, wanted, detector, clips = job
    num_boxes = folder.manifest.num_boxes
    if wanted.kind == "detected":
        session = load_perception(str(detector), num_boxes).open()
        frames = session.push(list(decode(pictures_of(wanted, clips))), [t / FPS for t in range(FRAMES)])
    else:
        clip = draw_clip(wanted.split, wanted.number)
        noise = EXACT if wanted.kind == "exact" else FITTED
        frames = perceive(clip.seen, noise, np.random.default_rng([clip.seed, 4]), num_boxes)
    folder.store(clip_id(wanted), as_features(frames, num_boxes))


def pictures_of(wanted: Wanted, clips: str | Path | None) -> list[bytes]:
    """Returns the pictures of a clip, from the folder of drawn clips where there is one."""
    if clips is None:
        return render(draw_clip(wanted.split, wanted.number))
    path = clip_path(clips, wanted.split, wanted.number)
    if not path.is_file():
        write_clip(path, wanted.split, wanted.number)
    return read_clip(path).pictures


@cache
def load_perception(detector: str, num_boxes: int) -> EmbeddedPerception:
    """Returns the perception of a detector's folder, the same one for every clip of a process."""
    perception = EmbeddedPerception.from_folder(detector)
    perception.num_boxes = num_boxes
    return perception


def as_features(frames: list[FramePerception], num_boxes: int) -> ClipFeatures:
    """Returns what was perceived as a clip of a feature folder."""
    boxes = np.zeros((len(frames), num_boxes, 6), np.float32)
    for seen, row in zip(frames, boxes, strict=True):
        n = len(seen.boxes)
        row[:n, :4], row[:n, 4] = seen.boxes, seen.scores
        row[:n, 5] = [KIND_NAMES.index(name) for name in seen.classes]
    features = np.stack([seen.features for seen in frames])
    return ClipFeatures(features, np.stack([seen.valid for seen in frames]), np.arange(len(frames)) / FPS, boxes)


def listed(wanted: Wanted, folder: FeatureFolder, split: str, clips: str | Path | None = None) -> ListedClip:
    """Returns a generated clip as an entry of the folder's table; a drawn one tells what a new draft would."""
    name = clip_id(wanted)
    path = None if clips is None else clip_path(clips, wanted.split, wanted.number)
    clip = draw_clip(wanted.split, wanted.number) if path is None or not path.is_file() else read_clip(path)
    toa = float(clip.toa) if clip.label else None
    return ListedClip(
        name, str(folder.file(name)), f"generated {wanted.split}", split, clip.label, toa, float(clip.ref)
    )


class SyntheticCrashDataModule(CrashDataModule):
    """Generated clips, made when they are missing.

    Args:
        root: Feature folder; filled when a run starts.
        detector: "embedded", or the folder that the detector's training wrote.
        clips: Folder where the drawn clips are kept, 0.5 MB each, so that another detector need not wait for them; null
            keeps no pictures.
        detected: Training clips that the detector looks at, about a second each.
        simulated: Training clips with imitated errors.
        val: Validation clips.
        test: Clips of the main test.
        test_head_on: Clips of the unseen type.
        exact: Give all clips their exact states: the ceiling. Needs a folder of its own.
        num_boxes: Box slots N.
        mirror: Train on every clip and on its mirror image, which makes an epoch twice as long.
        workers: Processes that draw and look.
        with_boxes: Whether items have their boxes.
        batch_size: Clips per training batch.
        eval_batch_size: Clips per batch in validation and test.
        num_workers: Loading processes.
        seed: Seed of the training order.

    Raises:
        InputError: If a number of clips is negative or there are none to train on.
    """

    configure_hints: ClassVar[Mapping[str, str]] = {
        "train": "Set data.init_args.detected or simulated above 0.",
        "val": "Set data.init_args.val above 0.",
        "test": "Set data.init_args.test above 0.",
    }

    def __init__(
        self,
        root: str = "runs/crash_features",
        detector: str = "embedded",
        clips: str | None = "runs/crash_clips",
        detected: int = 3000,
        simulated: int = 0,
        val: int = 400,
        test: int = 600,
        test_head_on: int = 450,
        exact: bool = False,
        num_boxes: int = 12,
        mirror: bool = True,
        workers: int = 2,
        with_boxes: bool = False,
        batch_size: int = 32,
        eval_batch_size: int | None = 100,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            layout="features", root=root, val_split=0.0, with_boxes=with_boxes, batch_size=batch_size,
            eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed,
        )  # fmt: skip
        self.counts = {"detected": detected, "simulated": simulated, "val": val, "test": test,
                       "test_head_on": test_head_on}  # fmt: skip
        if min(self.counts.values()) < 0 or detected + simulated < 1:
            raise InputError(f"The numbers of clips are {self.counts}, expected none below 0 and some to train on.")
        self.detector = None if exact else detector
        self.clips = clips
        self.exact = exact
        self.num_boxes = num_boxes
        self.wrap_train = WithMirrored if mirror else None
        self.workers = workers

    def prepare_data(self) -> None:
        """Draws, perceives and lists the clips that are missing; a test alone needs no training clips."""
        wanted = list(self._wanted())
        root = str(self.root)
        folder = fill_features(
            root, [one for one, _ in wanted], self.detector, clips=self.clips, num_boxes=self.num_boxes,
            workers=self.workers,
        )  # fmt: skip
        known = listed_clips(root)
        table = {
            clip_id(one): known.get(clip_id(one)) or listed(one, folder, split, self.clips) for one, split in wanted
        }
        # Rows of other runs stay: drawing a clip again only to list it takes a tenth of a second.
        write_clip_table(root, (known | table).values())

    def _clips(self) -> list[ListedClip]:
        wanted = {clip_id(one) for one, _ in self._wanted()}
        return [clip for clip in super()._clips() if clip.id in wanted]

    def _wanted(self) -> Iterator[tuple[Wanted, str]]:
        """Yields every clip that this run needs and the split it is listed under."""
        looked: Kind = "exact" if self.exact else "detected"
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:
            for number in range(self.counts["detected"]):
                yield Wanted(looked, "train", number), "train"
            for number in range(self.counts["simulated"]):
                yield Wanted("exact" if self.exact else "simulated", "train", SIMULATED_FROM + number), "train"
        for split in ("val", "test", "test_head_on"):
            for number in range(self.counts[split]):
                yield Wanted(looked, split, number), split.removesuffix("_head_on")
