import errno
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmattn.core.batch import records
from mmattn.core.batch.runner import read_ahead
from mmattn.core.seeding import seed_everything
from mmattn.errors import InputError, OutputError
from tests.core.fake_runner import CountOptions, CountPredictor, CountResult, Harness


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, text in {"a/x.txt": "1", "b/x.txt": "22", "c.txt": "333", "d.txt": "4444", "e.txt": "55555"}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(text)
    return tmp_path / "in"


@pytest.fixture
def harness(photos: Path, tmp_path: Path) -> Harness:
    return Harness(tmp_path / "out", [photos])


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def lengths(output: Path) -> dict[str, int]:
    return {record["outputs"][0]: record["length"] for record in lines(output / "results.jsonl")}


def done(output: Path) -> dict[str, bool]:
    return {item["name"]: item["done"] for item in json.loads((output / "run.json").read_text())["items"]}


ALL = {
    "c.txt.count.txt": 3,
    "d.txt.count.txt": 4,
    "e.txt.count.txt": 5,
    "a/x.txt.count.txt": 1,
    "b/x.txt.count.txt": 2,
}


def test_a_run_writes_outputs_records_and_the_overview(harness: Harness, photos: Path) -> None:
    assert harness.run() == 0
    assert lengths(harness.output) == ALL
    assert {name: int((harness.output / name).read_text()) for name in ALL} == ALL
    first = lines(harness.output / "results.jsonl")[0]
    assert list(first) == ["input", "outputs", "seconds", "length", "contents"]
    assert first["contents"] == {"c.txt.count.txt": {"bytes": 1, "sha256": hashlib.sha256(b"3").hexdigest()}}
    assert first["input"] == str(photos / "c.txt")
    assert first["seconds"] >= 0
    assert lines(harness.output / "errors.jsonl") == []
    assert (harness.output / "index.html").read_text() == "5 results"
    assert sorted(p.name for p in harness.output.iterdir()) == [
        *["a", "b", "c.txt.count.txt", "d.txt.count.txt", "e.txt.count.txt"],
        *["errors.jsonl", "index.html", "results.jsonl", "run.json"],
    ]
    assert harness.predictors[0].batches == [2, 2, 1]


def test_run_json_says_what_was_run(harness: Harness, photos: Path) -> None:
    harness.run(checkpoint="some/where", seed=7)
    run = json.loads((harness.output / "run.json").read_text())
    assert run["system"] == "count"
    assert run["options"] == {"checkpoint": str(Path("some/where").absolute()), "seed": 7, "unit": "bytes"}
    assert run["execution"] == {"device": "auto", "batch_size": 2, "workers": 1}
    assert set(run["versions"]) == {"mmattn", "python", "torch", "numpy", "pillow"}
    assert run["state"] == "finished"
    stat = (photos / "c.txt").stat()
    expected = {"input": str(photos / "c.txt"), "name": "c.txt", "size": 3, "mtime": stat.st_mtime, "done": True}
    assert run["items"][0] == expected


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_workers_and_batch_size_do_not_change_the_results(harness: Harness, workers: int, batch_size: int) -> None:
    assert harness.run(workers=workers, batch_size=batch_size) == 0
    assert lengths(harness.output) == ALL


def test_running_again_loads_no_model_and_does_nothing(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.run()
    before = (harness.output / "results.jsonl").read_bytes()
    assert harness.run(batch_size=1, workers=0, device="cpu") == 0
    assert len(harness.predictors) == 1
    assert (harness.output / "results.jsonl").read_bytes() == before
    assert "0 done, 5 done before -> " in capsys.readouterr().err


def test_an_item_whose_input_or_output_changed_is_done_again(harness: Harness, photos: Path) -> None:
    harness.run()
    (photos / "c.txt").write_text("longer than before")
    os.utime(photos / "d.txt", (1, 1))
    (harness.output / "a" / "x.txt.count.txt").unlink()
    assert harness.run(batch_size=1) == 0
    assert harness.predictors[1].batches == [1, 1, 1]
    assert lengths(harness.output) == ALL | {"c.txt.count.txt": 18}
    assert (harness.output / "c.txt.count.txt").read_text() == "18"


def test_a_bad_item_takes_no_other_with_it_and_is_tried_again(
    harness: Harness, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "d.txt").write_text("bad")
    assert harness.run(batch_size=5) == 1
    assert harness.predictors[0].batches == [5, 1, 1, 1, 1, 1]
    assert lengths(harness.output) == {k: v for k, v in ALL.items() if k != "d.txt.count.txt"}
    expected = {
        "input": str(photos / "d.txt"),
        "error": "RuntimeError: the model cannot look at this",
        "hint": "",
    }
    assert lines(harness.output / "errors.jsonl") == [expected]
    assert done(harness.output)["d.txt"] is False
    err = capsys.readouterr().err
    assert "failed: " in err
    assert "4 done, 1 failed (see errors.jsonl)" in err

    (photos / "d.txt").write_text("good")
    before = lines(harness.output / "results.jsonl")
    assert harness.run(batch_size=5) == 0
    assert harness.predictors[1].batches == [5]
    assert lines(harness.output / "results.jsonl")[:4] == before
    assert lines(harness.output / "errors.jsonl") == []
    assert lengths(harness.output) == ALL


def test_an_item_that_cannot_be_read_or_saved_is_an_error_with_its_hint(
    harness: Harness, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "c.txt").write_text("unsavable")
    (photos / "e.txt").write_text("nan")
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "d.txt":
            raise InputError("'d.txt' is no text.", "Convert it.")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert harness.run() == 1
    assert {Path(e["input"]).name: (e["error"], e["hint"]) for e in lines(harness.output / "errors.jsonl")} == {
        "d.txt": ("'d.txt' is no text.", "Convert it."),
        "c.txt": ("ValueError: this result cannot be written", ""),
        "e.txt": ("ValueError: the result has a number that is NaN or infinite", ""),
    }
    assert set(lengths(harness.output)) == {"a/x.txt.count.txt", "b/x.txt.count.txt"}
    assert not list(harness.output.rglob("*half*"))


def test_a_predictor_that_returns_too_few_results_fails_those_items_only(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CountPredictor.predict_batch
    monkeypatch.setattr(CountPredictor, "predict_batch", lambda self, items: whole(self, items)[: 1 if items[0] else 0])
    assert harness.run(batch_size=5) == 0
    assert harness.predictors[0].batches == [5, 1, 1, 1, 1, 1]
    assert lengths(harness.output) == ALL


def test_other_options_are_refused_by_name(harness: Harness) -> None:
    harness.run()
    before = (harness.output / "run.json").read_bytes()
    with pytest.raises(InputError) as caught:
        harness.run(options=CountOptions(unit="words"), seed=3, overrides={"sigma": 2.0})
    text = str(caught.value)
    assert (
        "holds results of other options: seed was 0, is 3; unit was 'bytes', is 'words'; sigma was unset, is 2.0"
        in text
    )
    assert "--overwrite" in text
    assert (harness.output / "run.json").read_bytes() == before


def test_overwrite_starts_over_and_removes_only_what_earlier_results_list(harness: Harness, photos: Path) -> None:
    harness.run()
    (harness.output / "mine.txt").write_text("keep")
    harness.inputs = [photos / "c.txt"]
    assert harness.run(options=CountOptions(unit="words"), overwrite=True) == 0
    assert lengths(harness.output) == {"c.txt.count.txt": 3}
    assert (harness.output / "mine.txt").read_text() == "keep"
    assert not (harness.output / "a" / "x.txt.count.txt").exists()
    assert list(done(harness.output)) == ["c.txt"]


def test_overwrite_never_deletes_outside_the_folder(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep")
    harness.output.mkdir()
    record = {"input": "x", "outputs": ["../precious.txt", str(tmp_path / "precious.txt")]}
    (harness.output / "results.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=r"has a results\.jsonl that no run of mmattn explains"):
        harness.run()
    assert harness.run(overwrite=True) == 0
    assert (tmp_path / "precious.txt").read_text() == "keep"


def test_a_run_over_other_inputs_adds_to_the_folder(harness: Harness, photos: Path) -> None:
    (photos / "a" / "x.txt").write_text("bad")
    harness.inputs = [photos / "a", photos / "c.txt"]
    assert harness.run() == 1
    harness.inputs = [photos / "d.txt"]
    assert harness.run() == 0
    assert lengths(harness.output) == {"c.txt.count.txt": 3, "d.txt.count.txt": 4}
    assert [Path(e["input"]).name for e in lines(harness.output / "errors.jsonl")] == ["x.txt"]
    assert done(harness.output) == {"x.txt": False, "c.txt": True, "d.txt": True}
    assert [len(records) for records in harness.finished] == [1, 2]


def test_another_input_of_the_same_name_does_not_replace_an_earlier_result(harness: Harness, photos: Path) -> None:
    harness.inputs = [photos / "a"]
    harness.run()
    harness.inputs = [photos / "b"]
    harness.run()
    first, second = lines(harness.output / "results.jsonl")
    assert first["outputs"] == ["x.txt.count.txt"]
    assert second["outputs"][0].startswith("b-")
    assert [first["length"], second["length"]] == [1, 2]
    harness.inputs = [photos / "a", photos / "b"]
    assert harness.run() == 0
    assert len(harness.predictors) == 2


def test_limit_takes_the_first_inputs(harness: Harness) -> None:
    assert harness.run(limit=2) == 0
    assert set(lengths(harness.output)) == {"c.txt.count.txt", "d.txt.count.txt"}
    assert harness.planned == ["c.txt", "d.txt"]
    assert harness.run() == 0
    assert lengths(harness.output) == ALL
    assert harness.predictors[1].batches == [2, 1]


def test_a_dry_run_lists_and_writes_nothing(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.run(dry_run=True, limit=1) == 0
    out = capsys.readouterr().out
    assert f"would process {harness.inputs[0]}/c.txt -> c.txt\n" in out
    assert "1 to do, 0 done already; nothing was written." in out
    assert not harness.output.exists()
    assert harness.predictors == []


def test_a_predictor_that_cannot_be_loaded_leaves_everything_as_it_was(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.run()
    before = {p: p.read_bytes() for p in harness.output.rglob("*.*") if p.is_file()}

    def refuse(items: object) -> CountPredictor:
        raise InputError("no weights")

    monkeypatch.setattr(harness, "load", refuse)
    with pytest.raises(InputError, match="no weights"):
        harness.run(overwrite=True)
    assert {p: p.read_bytes() for p in harness.output.rglob("*.*") if p.is_file()} == before
    harness.output = harness.output.with_name("fresh")
    with pytest.raises(InputError, match="no weights"):
        harness.run()
    assert not harness.output.exists()


def test_a_torn_last_line_is_repaired_and_its_item_done_again(harness: Harness) -> None:
    harness.run()
    file = harness.output / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert harness.run() == 0
    assert harness.predictors[1].batches == [1]
    assert lengths(harness.output) == ALL


def test_a_damaged_run_json_is_refused(harness: Harness) -> None:
    harness.run()
    (harness.output / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json' is damaged or not of a run of mmattn\. .*--overwrite"):
        harness.run()


def test_the_results_of_another_system_are_refused(harness: Harness) -> None:
    harness.run()
    run = json.loads((harness.output / "run.json").read_text())
    (harness.output / "run.json").write_text(json.dumps(run | {"system": "crash"}))
    with pytest.raises(InputError, match="other options: system was 'crash', is 'count'"):
        harness.run()


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    save = CountResult.save

    def fill(self: CountResult, directory: Path, name: str) -> list[Path]:
        if name == "e.txt":
            raise ValueError("cannot encode") from OSError(errno.ENOSPC, "No space left on device")
        return save(self, directory, name)

    monkeypatch.setattr(CountResult, "save", fill)
    with pytest.raises(
        OutputError, match=r"Cannot write to '.*out': No space left on device\. Finished results are kept"
    ):
        harness.run(batch_size=1)
    assert set(lengths(harness.output)) == {"c.txt.count.txt", "d.txt.count.txt"}
    assert json.loads((harness.output / "run.json").read_text())["state"] == "failed"
    monkeypatch.undo()
    assert harness.run() == 0
    assert lengths(harness.output) == ALL


def test_a_line_that_does_not_fit_on_the_disk_is_an_error(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(records.os, "write", lambda handle, data: write(handle, data[:7]))
    with pytest.raises(OutputError, match="No space left on device"):
        harness.run()
    monkeypatch.undo()
    assert harness.run() == 0
    assert lengths(harness.output) == ALL


def test_an_output_that_cannot_be_made_is_an_error_before_the_model_is_loaded(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        harness.output = output
        with pytest.raises(OutputError, match=f"Cannot write to '{output}': "):
            harness.run()
    assert harness.predictors == []


def test_two_runs_into_one_folder_exclude_each_other(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Harness(harness.output, harness.inputs)

    def finish(output: Path, records: object) -> None:
        with pytest.raises(OutputError, match=r"Another run is writing to '.*out'\. Wait for it to end"):
            other.run()

    monkeypatch.setattr(harness, "finish", finish)
    assert harness.run() == 0
    assert other.run() == 0
    assert other.predictors == []


def test_ctrl_c_keeps_what_is_done_and_writes_the_overview(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = CountResult.save

    def interrupt(self: CountResult, directory: Path, name: str) -> list[Path]:
        paths = save(self, directory, name)
        if name == "e.txt":
            raise KeyboardInterrupt
        return paths

    monkeypatch.setattr(CountResult, "save", interrupt)
    assert harness.run(batch_size=1) == 130
    assert set(lengths(harness.output)) == {"c.txt.count.txt", "d.txt.count.txt"}
    assert not (harness.output / "e.txt.count.txt").exists()
    assert (harness.output / "index.html").read_text() == "2 results"
    assert json.loads((harness.output / "run.json").read_text())["state"] == "interrupted"
    assert "2 done, interrupted with 3 left; run the same command to go on" in capsys.readouterr().err
    monkeypatch.undo()
    assert harness.run() == 0
    assert lengths(harness.output) == ALL


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "ctrl-c"])
def test_a_process_that_is_stopped_loses_no_finished_item(harness: Harness, kind: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.core.fake_runner", str(harness.inputs[0]), str(harness.output), "0.5"]
    # A suite that was started in the background ignores Ctrl-C, and its children would inherit that.
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3], preexec_fn=listens
    )
    results = harness.output / "results.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not results.exists() or results.read_bytes().count(b"\n") < 2):
        time.sleep(0.02)
    process.send_signal(kind)
    _, err = process.communicate(timeout=60)
    kept = lines(results)
    assert 2 <= len(kept) < 5
    assert all((harness.output / record["outputs"][0]).is_file() for record in kept)
    if kind == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in err
        assert (harness.output / "index.html").read_text() == f"{len(kept)} results"
    else:
        assert process.returncode == -signal.SIGKILL
    assert harness.run(batch_size=1) == 0
    assert len(harness.predictors[0].batches) == 5 - len(kept)
    assert lines(results)[: len(kept)] == kept
    assert lengths(harness.output) == ALL
    assert all(done(harness.output).values())


def test_reading_runs_ahead_by_a_bounded_number_of_items(harness: Harness) -> None:
    from mmattn.core.batch.inputs import expand_inputs

    items = expand_inputs([str(i) for i in harness.inputs], suffixes=[".txt"])
    seen: list[str] = []
    batches = read_ahead([[item] for item in items], lambda path: seen.append(path.name), workers=1)
    next(batches)
    time.sleep(0.1)
    assert len(seen) <= 2
    batches.close()


def test_seeds_depend_on_the_run_and_the_item_only() -> None:
    import torch

    def draw(seed: int, *names: str) -> float:
        seed_everything(seed, names)
        return torch.rand(()).item()

    assert draw(0, "a") == draw(0, "a")
    assert len({draw(0, "a"), draw(1, "a"), draw(0, "b"), draw(0, "a", "b")}) == 4


@pytest.mark.parametrize(("name", "value", "least"), [("batch_size", 0, 1), ("workers", -1, 0), ("limit", 0, 1)])
def test_numbers_out_of_range_name_the_flag(harness: Harness, name: str, value: int, least: int) -> None:
    flag = "--" + name.replace("_", "-")
    with pytest.raises(InputError, match=rf"^{flag} is {value}, expected a whole number of at least {least}\.$"):
        harness.run(**{name: value})
