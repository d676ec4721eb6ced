"""The table of scores per class against scikit-learn and hand-made means."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mmattn.errors import InputError
from mmattn.metrics.aupro import aupro, aupro_exact
from mmattn.vision.crane.evaluation.scores import ClassScores, CraneEvaluation, ScoreTable

SIZE = 24


def batch(
    cls_names: list[str], seed: int, *, dataset: str = "demo"
) -> tuple[dict[str, object], torch.Tensor, torch.Tensor]:
    """Returns a batch with alternating labels, noisy scores and maps that see the defect."""
    rng = np.random.default_rng(seed)
    label = torch.tensor([i % 2 for i in range(len(cls_names))])
    mask = torch.zeros(len(cls_names), 1, SIZE, SIZE)
    mask[label == 1, :, 4:10, 5:12] = 1
    maps = torch.from_numpy(rng.random((len(cls_names), SIZE, SIZE), np.float32)) * 0.8 + 0.2 * mask[:, 0]
    scores = torch.from_numpy(rng.random(len(cls_names), np.float32)) * 0.8 + 0.2 * label
    items = {
        "label": label,
        "mask": mask,
        "has_mask": torch.ones(len(cls_names), dtype=torch.bool),
        "cls_name": cls_names,
        "dataset": [dataset] * len(cls_names),
    }
    return items, scores, maps


def test_scores_of_a_class_equal_scikit_learn_over_all_its_pictures() -> None:
    first, second = batch(["cup"] * 6, 1), batch(["cup"] * 4, 2)
    with CraneEvaluation() as evaluation:
        evaluation.update(*first)
        evaluation.update(*second)
        (row,) = evaluation.compute().rows
    labels = torch.cat([first[0]["label"], second[0]["label"]]).numpy()  # type: ignore[list-item]
    scores = torch.cat([first[1], second[1]]).numpy()
    masks = torch.cat([first[0]["mask"], second[0]["mask"]])[:, 0].numpy() > 0  # type: ignore[list-item]
    maps = torch.cat([first[2], second[2]]).numpy()
    assert (row.dataset, row.cls_name, row.pictures, row.anomalous) == ("demo", "cup", 10, 5)
    assert row.image_auroc == pytest.approx(roc_auc_score(labels, scores))
    assert row.image_ap == pytest.approx(average_precision_score(labels, scores))
    assert row.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert row.pixel_ap == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))
    assert row.pixel_aupro == aupro(maps, masks)
    assert row.pixel_aupro_exact == aupro_exact(maps, masks)


def test_a_class_is_scored_and_its_maps_dropped_when_its_last_picture_comes(tmp_path: Path) -> None:
    with CraneEvaluation({("demo", "cup"): 4, ("demo", "plate"): 2}, folder=tmp_path) as evaluation:
        assert evaluation.update(*batch(["cup"] * 3, 1)) == []
        assert len(list(tmp_path.rglob("*.maps"))) == 1
        (done,) = evaluation.update(*batch(["cup", "plate"], 2))
        assert done.cls_name == "cup"
        assert [file.stat().st_size for file in tmp_path.rglob("*.maps")] == [0]
        assert [row.cls_name for row in evaluation.compute().rows] == ["cup", "plate"]
    assert list(tmp_path.iterdir()) == []


def test_half_precision_maps_give_nearly_the_same_scores() -> None:
    rows = []
    for precision in ("float32", "float16"):
        with CraneEvaluation(precision=precision) as evaluation:  # type: ignore[arg-type]
            evaluation.update(*batch(["cup"] * 6, 3))
            rows.append(evaluation.compute().rows[0])
    assert rows[0].pixel_auroc == pytest.approx(rows[1].pixel_auroc, abs=1e-3)
    assert rows[0].pixel_aupro == pytest.approx(rows[1].pixel_aupro, abs=1e-2)
    assert rows[0].image_auroc == rows[1].image_auroc


def test_pictures_without_annotation_count_at_image_level_only() -> None:
    items, scores, maps = batch(["brain"] * 6, 4)
    items["has_mask"] = items["label"] == 0
    with CraneEvaluation() as evaluation:
        evaluation.update(items, scores, maps)
        (row,) = evaluation.compute().rows
    assert not math.isnan(row.image_auroc)
    assert all(math.isnan(v) for v in (row.pixel_auroc, row.pixel_ap, row.pixel_f1, row.pixel_aupro))


def test_all_anomalous_classes_have_pixel_scores_only() -> None:
    items, scores, maps = batch(["colon"] * 6, 5)
    items["mask"][:, :, 2:5, 2:5] = 1  # type: ignore[index]
    items["label"] = torch.ones(6, dtype=torch.int64)
    with CraneEvaluation() as evaluation:
        evaluation.update(items, scores, maps)
        (row,) = evaluation.compute().rows
    assert all(math.isnan(v) for v in (row.image_auroc, row.image_ap, row.image_f1))
    assert 0 < row.pixel_auroc < 1


def test_scores_without_maps_leave_the_pixel_level_undefined() -> None:
    items, scores, _ = batch(["cup"] * 4, 6)
    with CraneEvaluation() as evaluation:
        evaluation.update(items, scores)
        assert math.isnan(evaluation.compute().rows[0].pixel_auroc)


def test_classes_of_the_same_name_in_two_datasets_stay_apart() -> None:
    with CraneEvaluation() as evaluation:
        evaluation.update(*batch(["brain"] * 4, 7, dataset="headct"))
        evaluation.update(*batch(["brain"] * 4, 8, dataset="br35h"))
        assert [(r.dataset, r.pictures) for r in evaluation.compute().rows] == [("headct", 4), ("br35h", 4)]


TABLE = ScoreTable(
    (
        ClassScores("a", "x", 10, 4, image_auroc=0.5, pixel_auroc=0.9),
        ClassScores("a", "y", 2, 2, pixel_auroc=0.8),
        ClassScores("b", "z", 3, 1, image_auroc=1.0),
    )
)


def test_means_are_unweighted_and_leave_undefined_scores_out() -> None:
    first, second = TABLE.means()
    assert (first.dataset, first.cls_name, first.pictures, first.anomalous) == ("a", "mean", 12, 6)
    assert first.image_auroc == 0.5
    assert first.pixel_auroc == pytest.approx(0.85)
    assert math.isnan(first.image_ap)
    assert math.isnan(second.pixel_auroc)


def test_text_is_aligned_in_percent_with_undefined_scores_named() -> None:
    lines = str(TABLE).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split()[:5] == ["dataset", "class", "pictures", "anomalous", "I-AUROC"]
    assert lines[1].split()[:6] == ["a", "x", "10", "4", "50.0", "n/a"]
    assert [line.split()[1] for line in lines[1:]] == ["x", "y", "mean", "z", "mean"]


def test_json_and_csv_hold_the_same_numbers(tmp_path: Path) -> None:
    content = json.loads(TABLE.write_json(tmp_path / "t.json").read_text())
    assert content["classes"][1]["image_auroc"] is None
    assert content["means"][0]["pixel_auroc"] == pytest.approx(0.85)
    with TABLE.write_csv(tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cls_name"] for row in rows] == ["x", "y", "z", "mean", "mean"]
    assert rows[1]["image_auroc"] == ""
    assert float(rows[0]["pixel_auroc"]) == 0.9


def test_nan_scores_and_maps_are_refused() -> None:
    with CraneEvaluation() as evaluation:
        with pytest.raises(InputError, match="of the class cup is NaN"):
            evaluation.add("demo", "cup", score=math.nan, label=0)
        broken = np.full((2, 2), np.nan, np.float32)
        with pytest.raises(InputError, match="of the class cup is NaN"):
            evaluation.add("demo", "cup", score=0.0, label=0, anomaly_map=broken, mask=np.zeros((2, 2), bool))


def test_pictures_of_a_finished_class_and_maps_of_another_size_are_refused() -> None:
    with CraneEvaluation({("demo", "cup"): 1}) as evaluation:
        evaluation.add("demo", "cup", score=0.5, label=0)
        with pytest.raises(InputError, match="class cup of demo was already scored with 1 pictures"):
            evaluation.add("demo", "cup", score=0.5, label=0)
        evaluation.add("demo", "pot", score=0.5, label=0, anomaly_map=np.zeros((4, 4)), mask=np.zeros((4, 4), bool))
        with pytest.raises(InputError, match=r"shape \(3, 4\).*before it \(4, 4\)"):
            evaluation.add("demo", "pot", score=0.5, label=0, anomaly_map=np.zeros((3, 4)), mask=np.zeros((3, 4), bool))
