"""What every test of risks does around its scores: thresholds from the validation clips, logs, tables, pictures.

CRASH's task and those of its baselines share it.

Shapes: B clips, T frames.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmattn.core.training.task import BaseTask
from mmattn.media.image import write_png
from mmattn.metrics.calibration import Reliability
from mmattn.video.crash.data import CrashDataModule
from mmattn.video.crash.evaluation.scores import CrashEvaluation, OperatingPoint, ScoredClips, choose_operating_point
from mmattn.video.crash.evaluation.table import ScoreTable
from mmattn.video.crash.model import CrashOutput

__all__ = [
    "Batch",
    "file_name",
    "log_scores",
    "risk_of",
    "validation_batches",
    "validation_point",
    "write_curves",
    "write_test",
]

Batch = dict[str, Any]
"""Items of :class:`~mmattn.video.crash.datasets.clips.CrashDataset`, collated."""


def risk_of(output: CrashOutput) -> Tensor:
    """Returns the risk (B, T) of a model's output."""
    return output.logits.float().softmax(dim=-1)[..., 1]


def validation_batches(task: BaseTask) -> Iterable[Batch]:
    """Returns the validation clips of a task's data, in batches on the CPU; none if it has none."""
    data = getattr(task.trainer, "datamodule", None)
    dataset = data.val_dataset() if isinstance(data, CrashDataModule) else None
    if not isinstance(data, CrashDataModule) or dataset is None or len(dataset) == 0:
        return []
    batches: Iterable[Batch] = data.loader(dataset, data.eval_batch_size)
    return batches


@torch.no_grad()
def validation_point(task: BaseTask, risks: Callable[[Batch], Tensor]) -> OperatingPoint:
    """Scores the validation clips of a task's data and returns threshold and temperature.

    Args:
        task: The task.
        risks: Maps a batch to (B, T).
    """
    collected = CrashEvaluation()
    count = 0
    for batch in validation_batches(task):
        collected.update(batch, risks(task.transfer_batch_to_device(batch, task.device, 0)))
        count += len(batch["label"])
    if not count:
        return OperatingPoint()
    source = f"{count} validation clips"
    if task.trainer.datamodule.select_on_test:  # type: ignore[attr-defined]
        source = "the test clips themselves (select_on_test)"
    return choose_operating_point(collected.clips(), source)


def log_scores(task: BaseTask, table: ScoreTable, prefix: str = "test") -> None:
    """Logs the numbers of a table that are defined."""
    for row in table.rows:
        scores = row.scores()
        task.log_dict({f"{prefix}/{row.dataset}/{name}": v for name, v in scores.items() if not math.isnan(v)})


def write_test(folder: Path, table: ScoreTable, diagrams: dict[str, Reliability]) -> None:
    """Writes a table as JSON and CSV, and a reliability diagram for each dataset."""
    from mmattn.viz.curves import plot_reliability

    table.write_json(folder / "metrics.json")
    table.write_csv(folder / "metrics.csv")
    for dataset, bins in diagrams.items():
        title = f"{dataset}: largest risk of a clip"
        picture = plot_reliability(bins.edges, bins.counts, bins.confidence, bins.frequency, title=title)
        write_png(folder / f"reliability_{file_name(dataset)}.png", picture)


def write_curves(folder: Path, clips: ScoredClips, threshold: float, examples: int) -> None:
    """Writes the curves of the first clips of each dataset and label."""
    from mmattn.viz.curves import plot_curve

    drawn: Counter[tuple[str, int]] = Counter()
    for i, name in enumerate(clips.id):
        place = (clips.dataset[i], int(clips.label[i]))
        if drawn[place] >= examples:
            continue
        drawn[place] += 1
        fps = float(clips.fps[i])
        times = [frame / fps for frame in range(clips.risk.shape[1])]
        accident = float(clips.toa[i]) / fps
        events = {"accident": accident} if clips.label[i] and accident <= times[-1] else None
        limit = None if math.isnan(threshold) else threshold
        picture = plot_curve(times, clips.risk[i], threshold=limit, events=events, ylabel="risk", title=name)
        write_png(folder / f"{file_name(clips.dataset[i])}_{file_name(name)}.png", picture)


def file_name(text: str) -> str:
    """Returns a name that can be a file's and cannot lead out of its folder.

    >>> file_name("test/cut_in/../000001")
    'test_cut_in_000001'
    """
    return re.sub(r"[^\w-]+", "_", text)
