"""What ``mmattn infer|convert|calibrate|data`` do for CRASH. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmattn.core.batch.inputs import InferRequest, InputItem, expand_inputs
from mmattn.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mmattn.video.crash.datasets.feature_folder import Filled
    from mmattn.video.crash.predictor import CrashPredictor
    from mmattn.viz.gallery import GalleryItem

__all__ = ["add_arguments", "calibrate", "convert", "data_check", "data_make", "infer", "live"]

NOTE = (
    "The bar is the highest threshold at which an alert is raised. Boxes are coloured by the attention they get. "
    "Advisory only: a risk score is no basis for driving a vehicle."
)
SHOWN = {"video": ".overlay.mp4", "curve": ".curve.png"}
"""Endings of the files that a card shows."""
DATASETS = ("dad", "ccd", "a3d")
TARGETS = ("features", "clips", "boxes")


def infer(request: InferRequest) -> int:
    """Scores videos and feature files: curve, alerts, overlay video and numbers for each, one page for all."""
    from mmattn.core.batch.page import write_page
    from mmattn.core.batch.runner import run_batch
    from mmattn.media.video import VIDEO_SUFFIXES
    from mmattn.video.crash.stream.alerts import AlertRule

    options = request.options
    # A wrong option is told before anything is read or written.
    AlertRule(options.alert_threshold, options.persistence, options.cooldown)

    def make_predictor(items: Sequence[InputItem]) -> CrashPredictor:
        features_only = all(item.path.suffix.lower() == ".npz" for item in items)
        return _predictor(
            request.checkpoint, request.device, options=options, features_only=features_only, **request.overrides
        )

    finish = partial(
        write_page,
        card=_gallery_item,
        title="CRASH: accidents seen coming",
        note=NOTE,
        threshold=options.alert_threshold,
        labels=("no alert", "alert"),
    )
    return run_batch(request, suffixes={*VIDEO_SUFFIXES, ".npz"}, make_predictor=make_predictor, finish=finish)


def live(request: InferRequest) -> int:
    """Watches a camera or stream until it ends."""
    from mmattn.media.stream.live_source import LiveSource
    from mmattn.video.crash.live import watch

    source = LiveSource(str(request.live))
    if request.dry_run:
        print(f"would watch the {source.kind} {source.address}; nothing was opened.")
        return 0
    predictor = _predictor(request.checkpoint, request.device, options=request.options, **request.overrides)
    count = watch(predictor, source, request.output, seconds=request.live_seconds, overwrite=request.overwrite)
    print(f"{count} alerts -> {request.output}", file=sys.stderr)
    return 0


def convert(args: argparse.Namespace) -> int:
    """Turns a published checkpoint into ours, or a public dataset into forms that are read faster."""
    if args.file.is_dir():
        return _convert_dataset(args)
    from mmattn.video.crash.weights.convert import convert as convert_file

    folder = convert_file(args.file, args.output, dataset=args.dataset)
    print(f"Wrote {folder}. Use it with: mmattn infer crash VIDEOS --checkpoint {folder} --output OUT")
    return 0


def calibrate(args: argparse.Namespace) -> int:
    """Finds the threshold for a rate of false alarms from videos of normal driving."""
    from mmattn.core.calibration import measure_items, write_calibration
    from mmattn.media.video import VIDEO_SUFFIXES
    from mmattn.video.crash.config import CrashInferOptions
    from mmattn.video.crash.stream.alerts import AlertRule, threshold_for_rate

    rule = AlertRule(persistence=args.persistence, cooldown=args.cooldown)
    items = expand_inputs([args.folder], suffixes=VIDEO_SUFFIXES)
    options = CrashInferOptions(persistence=args.persistence, cooldown=args.cooldown, overlay=False)
    predictor = _predictor(args.checkpoint, args.device, options=options)

    def curve(video: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        result = predictor.predict(video)
        return result.risk, result.times

    curves, failed = measure_items(items, curve, unit="video")
    found = threshold_for_rate(curves, args.false_alarms_per_hour, rule)
    print(
        f"threshold {found.threshold:.3f}: {found.alerts} false alarms in {found.hours:.2f} h of {len(curves)} videos, "
        f"{found.per_hour:.2f} per hour"
    )
    print(f"With so much footage the true rate is at most {found.at_most:.1f} per hour (95 % confidence).")
    print(
        f"Use it with: mmattn infer crash VIDEOS --output OUT --alert-threshold {found.threshold:.3f} "
        f"--persistence {rule.persistence} --cooldown {rule.cooldown:g}"
    )
    if args.output is not None:
        facts = {**found.to_json(), "persistence": rule.persistence, "cooldown": rule.cooldown, "videos": len(curves)}
        write_calibration(args.output, facts)
    return 1 if failed else 0


def data_make(args: argparse.Namespace) -> int:
    """Draws generated clips as videos with ``annotations.csv`` (layout ``videos``).

    Raises:
        InputError: If fewer than one clip is asked for.
    """
    from mmattn.video.crash.synthetic.videos import write_videos

    if args.clips < 1:
        raise InputError(f"--clips is {args.clips}, expected at least 1.")
    written = write_videos(args.path, split=args.split, count=args.clips)
    print(f"Wrote {written} clips to {args.path}.")
    print(f"Check them with: mmattn data check crash {args.path} --layout videos")
    return 0


def data_check(args: argparse.Namespace) -> int:
    """Says whether a dataset folder is complete and names what is wrong."""
    from mmattn.core.datasets.scan import print_findings
    from mmattn.video.crash.datasets.check import check
    from mmattn.video.crash.datasets.layouts import LAYOUTS

    look = partial(check, root=args.path, feature=args.feature, features_root=args.features_root)
    return print_findings(*LAYOUTS.check(args.path, args.layout, look))


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """Adds CRASH's own flags to a command's parser."""
    if command == "convert":
        parser.add_argument(
            "--dataset", choices=DATASETS, help="what the weights were trained on; default: told from the path"
        )
        parser.add_argument(
            "--to",
            choices=TARGETS,
            help="for a dataset folder: half-precision features (default), a file per clip of DAD's batches, or A3D's "
            "boxes without pickles (default when --output is the dataset itself)",
        )
        parser.add_argument("--layout", help="for a dataset folder: dad, ccd or a3d; default: guessed")
        parser.add_argument("--feature", help="for a dataset folder: kind of features, such as vgg16")
        parser.add_argument(
            "--checkpoint",
            default="embedded",
            metavar="SOURCE",
            help="for a folder of videos: the model whose perception makes the features (default: embedded)",
        )
        parser.add_argument("--boxes", metavar="PATH", help="for a folder of videos: boxes of another detector")
    elif command == "calibrate":
        parser.add_argument(
            "--false-alarms-per-hour", type=float, default=1.0, metavar="N", help="wanted rate (default: 1)"
        )
        parser.add_argument("--persistence", type=int, default=3, metavar="N", help="frames in a row (default: 3)")
        parser.add_argument("--cooldown", type=float, default=2.0, metavar="S", help="seconds (default: 2)")
    elif command == "data_make":
        parser.add_argument("--split", default="test", help="which split of the generator (default: test)")
        parser.add_argument("--clips", type=int, default=12, metavar="N", help="number of clips (default: 12)")
    elif command == "data_check":
        parser.add_argument("--layout", help="name of the layout, such as dad or ccd; default: guessed")
        parser.add_argument("--feature", help="kind of features, such as vgg16; default: the only one there is")
        parser.add_argument("--features-root", type=Path, metavar="DIR", help="features of a dataset of videos")


def _convert_dataset(args: argparse.Namespace) -> int:
    from mmattn.video.crash.datasets.conversion import convert_detections, convert_features, split_dad_batches

    target = args.to or _guessed_target(args.file, args.output)
    if target == "clips":
        print(f"Wrote {split_dad_batches(args.file, args.output)} clips below {args.output}.")
        return 0
    if target == "boxes":
        return _report(convert_detections(args.file, args.output), args.output)
    layout = args.layout or _guessed_layout(args.file)
    if layout in DATASETS:
        return _report(convert_features(layout, args.file, args.output, feature=args.feature), args.output)
    from mmattn.video.crash.extract import extract_features
    from mmattn.video.crash.perception.build import perception_settings

    predictor = _predictor(args.checkpoint, "cpu")
    if predictor.perception is None:
        raise InputError(f"The model {args.checkpoint!r} has no perception.", "Name one that has with --checkpoint.")
    settings = perception_settings(predictor.perception, args.checkpoint)
    filled = extract_features([args.file], args.output, predictor.perception, settings=settings, boxes=args.boxes)
    return _report(filled, args.output)


def _guessed_target(root: Path, output: Path) -> str:
    if any(root.glob("features/*/batch_*.npz")) and not any(root.glob("*_features")):
        return "clips"
    if output.resolve() == root.resolve() and any(root.glob("detections/*/*.pkl")):
        return "boxes"
    return "features"


def _guessed_layout(root: Path) -> str | None:
    """Returns the layout of a folder; None for plain videos."""
    from mmattn.video.crash.datasets.layouts import LAYOUTS

    return next(iter(LAYOUTS.guess(root)), None)


def _report(filled: Filled, output: Path) -> int:
    """Prints what a conversion did and returns the exit code."""
    kept = f", {filled.kept} were there" if filled.kept else ""
    print(f"Wrote {filled.made} clips to {output}{kept}.")
    for error in filled.errors[:10]:
        print(f"failed: {error['id']}: {error['error']}", file=sys.stderr)
    if filled.errors:
        print(f"{len(filled.errors)} clips failed.", file=sys.stderr)
    return 1 if filled.errors else 0


def _predictor(checkpoint: str, device: str, **settings: Any) -> CrashPredictor:
    from mmattn.video.crash.predictor import CrashPredictor

    return CrashPredictor.from_pretrained(checkpoint, device=device, **settings)


def _gallery_item(record: dict[str, Any]) -> GalleryItem:
    from mmattn.core.batch.page import by_ending
    from mmattn.viz.gallery import GalleryItem

    alerts = ", ".join(f"{alert['time']:.1f} s" for alert in record["alerts"][:6]) or "none"
    more = f" and {len(record['alerts']) - 6} more" if len(record["alerts"]) > 6 else ""
    facts = {"alerts": alerts + more, "highest risk": f"{record['score']:.2f} at {record['peak_seconds']:.1f} s"}
    if record.get("warnings"):
        facts["do not trust"] = record["warnings"][0]["message"]
    return GalleryItem(
        title=Path(record["input"]).name,
        score=record["sustained_risk"],
        label=record["label"],
        pictures=by_ending(record["outputs"], SHOWN),
        details={**facts, "frames left out": record["left_out"]} if record["left_out"] else facts,
    )
