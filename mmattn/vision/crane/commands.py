"""What ``mmattn infer|convert|export|calibrate|data`` do for Crane. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmattn.core.batch.inputs import InferRequest, InputItem, expand_inputs
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.vision.crane.predictor import CranePredictor
    from mmattn.viz.gallery import GalleryItem

__all__ = ["add_arguments", "calibrate", "convert", "data_check", "data_make", "export", "infer"]

NOTE = (
    "Scores and maps run from 0 (normal) to 1 (damaged). Colours mean the same in every picture. "
    "Not for medical diagnosis."
)
SHOWN = {"picture": ".picture.jpg", "overlay": ".overlay.png", "video": ".overlay.mp4", "curve": ".curve.png"}
"""Endings of the files that a card shows: the untouched picture first, its overlay second."""


def infer(request: InferRequest) -> int:
    """Scores pictures and videos: overlay, raw map and numbers for each, one page for all."""
    from mmattn.core.batch.page import write_page
    from mmattn.core.batch.runner import run_batch
    from mmattn.media.image import IMAGE_SUFFIXES
    from mmattn.media.video import VIDEO_SUFFIXES

    finish = partial(
        write_page,
        card=_gallery_item,
        title="Crane: what looks damaged",
        note=NOTE,
        threshold=request.options.threshold,
    )
    with ExitStack() as stack:

        def make_predictor(items: Sequence[InputItem]) -> CranePredictor:
            predictor = _predictor(request.checkpoint, request.device, options=request.options, **request.overrides)
            if request.options.mutual:
                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mmattn-mutual-")))
                pictures = [item.path for item in items if item.path.suffix.lower() in IMAGE_SUFFIXES]
                predictor.remember_mutually(pictures, scratch / "features.f16")
            return predictor

        return run_batch(
            request,
            suffixes={*IMAGE_SUFFIXES, *VIDEO_SUFFIXES},
            make_predictor=make_predictor,
            read=_read_ahead,
            finish=finish,
        )


def convert(args: argparse.Namespace) -> int:
    """Turns a released ``epoch_N.pth`` into a checkpoint folder."""
    from mmattn.vision.crane.weights.convert import convert as convert_file

    folder = convert_file(args.file, args.output, variant=args.variant, clip_weights=args.clip_weights)
    print(f"Wrote {folder}. Use it with: mmattn infer crane PHOTOS --checkpoint {folder} --output OUT")
    return 0


def export(args: argparse.Namespace) -> int:
    """Writes the static-prompt model as a torch.export program and as ONNX."""
    from mmattn.vision.crane.weights.export import export_model

    predictor = _predictor(args.checkpoint, "cpu")
    differences = export_model(predictor.model, args.output, args.format or ["torch", "onnx"])
    for name, difference in differences.items():
        print(f"{args.output / name}: largest difference from the model {difference:.1e}")
    return 0


def calibrate(args: argparse.Namespace) -> int:
    """Finds the threshold for a false-alarm rate from a folder of normal pictures."""
    from mmattn.core.calibration import measure_items, write_calibration
    from mmattn.media.image import IMAGE_SUFFIXES
    from mmattn.vision.crane.evaluation.calibration import find_threshold

    items = expand_inputs([args.folder], suffixes=IMAGE_SUFFIXES)
    predictor = _predictor(args.checkpoint, args.device)

    def score(picture: Path) -> float:
        values, _ = predictor.scores_and_maps([predictor.read(picture)], [None])
        return float(values[0])

    scores, failed = measure_items(items, score, unit="picture")
    found = find_threshold(scores, args.false_alarm_rate)
    print(f"threshold {found.threshold:.4f} from {found.pictures} normal pictures")
    if not found.guaranteed:
        print(
            f"{found.pictures} pictures can promise a rate of {found.reachable_rate:.1%} at best, not "
            f"{found.false_alarm_rate:.1%}: this is their largest score. Give more pictures."
        )
    print(f"Use it with: mmattn infer crane PHOTOS --output OUT --threshold {found.threshold:.4f}")
    if args.output is not None:
        write_calibration(args.output, found.to_json())
    return 1 if failed else 0


def data_make(args: argparse.Namespace) -> int:
    """Draws the synthetic set into a folder in MVTec's layout.

    Raises:
        InputError: If fewer than one picture is asked for.
    """
    from mmattn.vision.crane.synthetic.scenes import make

    if args.per_category < 1:
        raise InputError(f"--per-category is {args.per_category}, expected at least 1.")
    count = make(args.path, split=args.split, per_category=args.per_category)
    print(f"Wrote {count} pictures to {args.path}.")
    print(f"Check it with: mmattn data check crane {args.path} --layout mvtec_style")
    return 0


def data_check(args: argparse.Namespace) -> int:
    """Says whether a dataset folder is complete and names what is wrong."""
    from mmattn.core.datasets.scan import print_findings
    from mmattn.vision.crane.datasets.layouts import LAYOUTS, check

    return print_findings(*LAYOUTS.check(args.path, args.layout, lambda name: check(name, args.path)))


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Adds Crane's own flags to a command's parser."""
    if command == "convert":
        parser.add_argument("--variant", choices=["crane", "crane_plus"], help="default: told from the folder's name")
        parser.add_argument("--clip-weights", metavar="FILE", help="local CLIP weights to check the file against")
    elif command == "export":
        parser.add_argument(
            "--format", action="append", choices=["torch", "onnx"], help="may be repeated; default: both"
        )
    elif command == "calibrate":
        parser.add_argument(
            "--false-alarm-rate", type=float, default=0.05, metavar="RATE", help="wanted rate, 0 to 1 (default 0.05)"
        )
    elif command == "data_make":
        parser.add_argument("--split", default="test", help="which split of the generator (default: test)")
        parser.add_argument(
            "--per-category", type=int, default=40, metavar="N", help="test pictures per category (default: 40)"
        )
    elif command == "data_check":
        parser.add_argument("--layout", help="name of the layout, such as mvtec or visa; default: guessed")


def _predictor(checkpoint: str, device: str, **settings: Any) -> CranePredictor:
    from mmattn.vision.crane.predictor import CranePredictor

    return CranePredictor.from_pretrained(checkpoint, device=device, **settings)


def _read_ahead(path: Path) -> Any:
    """Decodes a picture in a worker thread; a video is read while it is scored."""
    from mmattn.media.image import read_image
    from mmattn.media.video import is_video
    from mmattn.vision.crane.predictor import Picture

    return path if is_video(path) else Picture(read_image(path), str(path.resolve()))


def _gallery_item(record: dict[str, Any]) -> GalleryItem:
    from mmattn.core.batch.page import by_ending
    from mmattn.viz.gallery import GalleryItem

    return GalleryItem(
        title=Path(record["input"]).name,
        score=record["score"],
        label=record["label"],
        pictures=by_ending(record["outputs"], SHOWN),
        details={key: record[key] for key in ("map_max", "area_above_threshold", "worst_seconds") if key in record},
    )
