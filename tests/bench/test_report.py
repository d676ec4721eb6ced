"""The table and the JSON of a benchmark."""

import json
from pathlib import Path

import torch

from mmattn.bench.report import Measure, Report, without_targets
from mmattn.bench.timer import Agreement, Comparison, Options, Peer, Timing


def example() -> Report:
    report = Report("demo", machine={"cpu": "an example"})
    fine = Agreement(max_abs=1e-6, max_rel=2e-6, tolerance=1e-4)
    report.add("window", [Comparison("dense", 1, Timing((0.5, 0.5)), Timing((2.0, 2.0)), fine, target=3.0)])
    report.add("random", [Comparison("dense", 2, Timing((1.0, 1.0)), Timing((2.0, 2.0)), None, target=3.0)])
    report.measures.append(Measure("slope", 1.25, target=1.1))
    return report


def test_table_is_aligned_and_says_which_targets_were_missed():
    lines = example().table().splitlines()
    assert lines[0].split() == [
        *("case", "against", "threads", "ours", "theirs", "ratio", "pairwise", "target", "met", "difference")
    ]
    assert len({line.index("x  ") for line in lines[1:3]}) == 1
    assert "4.00x" in lines[1]
    assert "yes" in lines[1]
    assert "2.00x" in lines[2]
    assert "NO" in lines[2]
    assert lines[3] == "slope: 1.25 (target <= 1.1: NOT MET)"


def test_missed_targets_are_listed_by_name():
    assert example().missed == ["random against dense, 2 thread(s)", "slope"]


def test_a_quick_run_keeps_its_numbers_and_loses_its_verdicts():
    quick = without_targets(example())
    assert quick.missed == []
    assert quick.comparisons[0][1].ratio == 4.0
    assert quick.measures[0].value == 1.25
    assert "too small" in quick.table()


def test_json_holds_machine_times_ratio_target_and_agreement(tmp_path: Path):
    path = tmp_path / "made" / "demo.json"
    example().write(path)
    data = json.loads(path.read_text())
    assert data["machine"] == {"cpu": "an example"}
    first, second = data["comparisons"]
    assert first["ours"] == {"median": 0.5, "iqr": 0.0, "seconds": [0.5, 0.5]}
    assert (first["ratio"], first["target"], first["met"]) == (4.0, 3.0, True)
    assert first["agreement"] == {"max_abs": 1e-6, "max_rel": 2e-6, "tolerance": 1e-4, "ok": True}
    assert second["agreement"] is None
    assert data["measures"][0]["met"] is False


def test_a_disagreement_is_loud():
    report = Report("demo", machine={})
    wrong = Agreement(max_abs=1.0, max_rel=0.5, tolerance=1e-4)
    report.add("window", [Comparison("dense", 1, Timing((1.0,)), Timing((2.0,)), wrong, target=None)])
    assert not report.agrees
    assert "DISAGREES" in report.table()


def test_the_machine_is_described_by_name_cores_and_versions():
    machine = Report("demo").machine
    assert {"cpu", "cores", "memory_gib", "python", "torch", "date"} <= machine.keys()
    assert machine["cores"] >= 1


def test_a_case_is_compared_at_every_number_of_threads():
    report, seen = Report("demo"), []

    def ours() -> float:
        seen.append(torch.get_num_threads())
        return 1.0

    options = Options(threads=(1, 2), repeats=1)
    report.compare("case", ours, {"peer": Peer(lambda: 1.5, target=2.0)}, options, tolerance=1.0)
    assert [(case, c.peer, c.threads, c.target) for case, c in report.comparisons] == [
        ("case", "peer", 1, 2.0),
        ("case", "peer", 2, 2.0),
    ]
    assert set(seen) == {1, 2}
    assert report.agrees
