"""The output folder of a run that something else deletes, renames, fills or lies about."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmattn.core.batch.inputs import InputItem
from mmattn.core.batch.journal import Plan
from mmattn.core.batch.output_folder import OutputFolder
from mmattn.errors import InputError, OutputError
from tests.core.fake_runner import CountPredictor, CountResult, Harness


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.txt").write_text("x" * number)
    return Harness(tmp_path / "out", [tmp_path / "in"])


def records(output: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("renamed"))


def replace(folder: Path) -> None:
    rename(folder)
    folder.mkdir()
    (folder / ".partial").mkdir()


@pytest.mark.parametrize("change", [shutil.rmtree, rename, replace], ids=["deleted", "renamed", "replaced"])
@pytest.mark.parametrize("when", ["predicting", "saving"])
def test_a_folder_that_is_gone_stops_the_run_at_once(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], when: str
) -> None:
    predict, save = CountPredictor.predict_batch, CountResult.save

    def predict_third(self: CountPredictor, items: list[bytes]) -> list[CountResult]:
        if when == "predicting" and len(self.batches) == 2:
            change(harness.output)
        return predict(self, items)

    def save_third(self: CountResult, directory: Path, name: str) -> list[Path]:
        paths = save(self, directory, name)
        if when == "saving" and name == "2.txt":
            change(harness.output)
        return paths

    monkeypatch.setattr(CountPredictor, "predict_batch", predict_third)
    monkeypatch.setattr(CountResult, "save", save_third)
    with pytest.raises(OutputError, match=r"out' was deleted, renamed or replaced while the run was writing to it"):
        harness.run(batch_size=1)
    assert len(harness.predictors[0].batches) == 3
    if change is replace:
        assert [path.name for path in harness.output.rglob("*")] == [".partial"]
    else:
        assert not harness.output.exists()
    if change is not shutil.rmtree:
        renamed = harness.output.with_name("renamed")
        assert [record["outputs"] for record in records(renamed)] == [["0.txt.count.txt"], ["1.txt.count.txt"]]
        shutil.rmtree(harness.output, ignore_errors=True)
        renamed.rename(harness.output)
        monkeypatch.undo()
        assert harness.run(batch_size=1) == 0
        assert len(harness.predictors[1].batches) == 4
        assert len(records(harness.output)) == 6


def test_a_folder_that_is_gone_stops_a_run_whose_items_fail(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CountPredictor, items: list[bytes]) -> list[CountResult]:
        self.batches.append(len(items))
        shutil.rmtree(harness.output)
        raise ValueError("cannot look at this")

    monkeypatch.setattr(CountPredictor, "predict_batch", fail)
    with pytest.raises(OutputError, match="was deleted, renamed or replaced"):
        harness.run(batch_size=1)
    assert harness.predictors[0].batches == [1]


@pytest.mark.parametrize("name", ["../stray", "/tmp/stray", "a/../../stray", "link/stray", ".", "a\0b"])
def test_names_in_run_json_never_lead_outside(harness: Harness, tmp_path: Path, name: str) -> None:
    harness.run()
    (tmp_path / "elsewhere").mkdir()
    (harness.output / "link").symlink_to(tmp_path / "elsewhere")
    run = json.loads((harness.output / "run.json").read_text())
    run["items"][3]["name"] = name
    (harness.output / "run.json").write_text(json.dumps(run))
    (tmp_path / "in" / "3.txt").write_text("changed")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"run\.json' is damaged or not of a run of mmattn"):
        harness.run()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_in_the_output_folder_leads_no_result_out(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir()
    (tmp_path / "in" / "a" / "x.txt").write_text("xx")
    (tmp_path / "elsewhere").mkdir()
    harness.output.mkdir()
    (harness.output / "a").symlink_to(tmp_path / "elsewhere")
    assert harness.run() == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (failed,) = [json.loads(line) for line in (harness.output / "errors.jsonl").read_text().splitlines()]
    assert "leads outside of" in failed["error"]
    assert len(records(harness.output)) == 6


def test_overwrite_deletes_links_and_nothing_behind_them(harness: Harness, tmp_path: Path) -> None:
    harness.run()
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("a.txt", "b.txt"):
        (precious / name).write_text("keep")
    (harness.output / "way").symlink_to(precious)
    (harness.output / "b.txt").symlink_to(precious / "b.txt")
    (harness.output / "folder").mkdir()
    lies = {"input": "x", "outputs": ["b.txt", "folder"]}, {"input": "y", "outputs": ["way/a.txt", "0.txt.count.txt"]}
    others = {"input": "z", "outputs": 5}, {"input": "w", "outputs": [["../precious/a.txt"]]}
    with (harness.output / "results.jsonl").open("a") as file:
        file.writelines(json.dumps(lie) + "\n" for lie in (*lies, *others))
    # Kept records of other inputs reach neither the page nor the new file when their outputs lie outside.
    assert harness.run() == 0
    assert {record["input"] for record in harness.finished[-1]} & {"y", "z", "w"} == set()
    assert harness.run(overwrite=True) == 0
    assert {path.name: path.read_text() for path in precious.iterdir()} == {"a.txt": "keep", "b.txt": "keep"}
    assert (harness.output / "folder").is_dir()


def test_a_link_called_partial_is_replaced_and_not_followed(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a.txt").write_text("keep")
    harness.output.mkdir()
    (harness.output / ".partial").symlink_to(tmp_path / "precious")
    assert harness.run() == 0
    assert [path.read_text() for path in (tmp_path / "precious").iterdir()] == ["keep"]
    assert len(records(harness.output)) == 6


def cut(file: Path) -> None:
    os.truncate(file, 0)


def change(file: Path) -> None:
    file.write_text("9")


def link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("damage", [Path.unlink, cut, change, link])
def test_an_output_that_is_not_as_written_is_made_again(harness: Harness, damage: Callable[[Path], None]) -> None:
    harness.run(batch_size=1)
    damage(harness.output / "3.txt.count.txt")
    assert harness.run(batch_size=1) == 0
    assert harness.predictors[1].batches == [1]
    assert (harness.output / "3.txt.count.txt").read_text() == "3"
    assert harness.run(batch_size=1) == 0
    assert len(harness.predictors) == 2


def test_records_without_contents_are_believed_where_the_files_exist(harness: Harness) -> None:
    harness.run(batch_size=1)
    old = [{key: value for key, value in record.items() if key != "contents"} for record in records(harness.output)]
    (harness.output / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
    (harness.output / "2.txt.count.txt").unlink()
    assert harness.run(batch_size=1) == 0
    assert harness.predictors[1].batches == [1]


@pytest.mark.parametrize("contents", [5, {"other": {}}, {"3.txt.count.txt": 7}, {"3.txt.count.txt": {"bytes": 1}}])
def test_a_record_of_odd_contents_counts_as_not_done(harness: Harness, contents: object) -> None:
    harness.run(batch_size=1)
    changed = [r | {"contents": contents} if "3.txt" in str(r["input"]) else r for r in records(harness.output)]
    (harness.output / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in changed))
    assert harness.run(batch_size=1) == 0
    assert harness.predictors[1].batches == [1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("place", ["result", "record"])
def test_a_failing_storage_is_one_error_and_costs_no_finished_result(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, number: int, place: str
) -> None:
    save, write = CountResult.save, os.write

    def save_third(self: CountResult, directory: Path, name: str) -> list[Path]:
        if place == "result" and name == "2.txt":
            (directory / "half").write_text("half")
            raise OSError(number, os.strerror(number))
        return save(self, directory, name)

    def write_third(handle: int, data: bytes) -> int:
        if place == "record" and b"2.txt" in data:
            raise OSError(number, os.strerror(number))
        return write(handle, data)

    monkeypatch.setattr(CountResult, "save", save_third)
    monkeypatch.setattr(os, "write", write_third)
    with pytest.raises(
        OutputError, match=rf"Cannot write to '.*out': {os.strerror(number)}\. Finished results are kept"
    ):
        harness.run(batch_size=1)
    assert len(records(harness.output)) == 2
    assert not (harness.output / ".partial").exists()
    monkeypatch.undo()
    assert harness.run(batch_size=1) == 0
    assert len(harness.predictors[1].batches) == 4
    assert (harness.output / "2.txt.count.txt").read_text() == "2"


def test_a_name_that_is_too_long_costs_its_item_alone(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "in" / f"{'y' * 248}.txt").write_text("x")  # with .count.txt 262 bytes
    assert harness.run() == 1
    assert len(records(harness.output)) == 6
    harness.output = tmp_path / ("z" * 300)
    with pytest.raises(OutputError, match="File name too long"):
        harness.run()


def test_everything_a_record_promises_is_on_the_disk_before_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    write = os.write

    def write_line(handle: int, data: bytes) -> int:
        events.append(f"record {json.loads(data)['length']}")
        return write(handle, data)

    def fsync(handle: int) -> None:
        events.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    harness.run(limit=1)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "write", write_line)
    harness.run(limit=2, batch_size=1)
    at = events.index("record 1")
    assert events[at - 2 : at + 2] == ["1.txt.count.txt", "out", "record 1", "results.jsonl"]
    events.clear()
    harness.run(limit=3, batch_size=1, fsync=False)
    assert events == ["record 2"]
    assert harness.run(limit=3) == 0
    assert len(harness.predictors) == 3


def test_a_batch_is_formed_by_the_inputs_and_not_by_what_is_done() -> None:
    items = [InputItem(Path(f"/in/{n}"), Path("/in"), str(n)) for n in range(10)]
    plan = Plan(items=items, todo=[items[4], items[9]])
    assert [[item.name for item in batch] for batch in plan.batches(4)] == [["4", "5", "6", "7"], ["8", "9"]]
    assert [item.name for batch in plan.batches(1) for item in batch] == ["4", "9"]
    assert Plan(items=items).batches(4) == []


def test_a_resumed_run_predicts_the_batches_of_an_uninterrupted_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def predict(self: CountPredictor, items: list[bytes]) -> list[CountResult]:
        self.batches.append(len(items))
        # What a model does with a batch: the last digits depend on its size, and draws on all that came before.
        return [CountResult(b"x" * (100 * len(items) + int(torch.randint(50, ())))) for _ in items]

    monkeypatch.setattr(CountPredictor, "predict_batch", predict)
    whole = Harness(harness.output.with_name("whole"), harness.inputs)
    whole.run(batch_size=4)
    save = CountResult.save

    def interrupt(self: CountResult, directory: Path, name: str) -> list[Path]:
        if name == "2.txt":
            raise KeyboardInterrupt
        return save(self, directory, name)

    monkeypatch.setattr(CountResult, "save", interrupt)
    assert harness.run(batch_size=4) == 130
    monkeypatch.setattr(CountResult, "save", save)
    assert harness.run(batch_size=4) == 0
    assert harness.predictors[1].batches == [4, 2]
    outputs = [f"{number}.txt.count.txt" for number in range(6)]
    assert [(harness.output / o).read_text() for o in outputs] == [(whole.output / o).read_text() for o in outputs]
    assert [record["length"] for record in records(harness.output)] == [r["length"] for r in records(whole.output)]


def test_a_run_stopped_before_it_wrote_run_json_can_be_started_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = OutputFolder.replace_file

    def stop(self: OutputFolder, name: str, text: str) -> None:
        if name == "run.json":
            raise KeyboardInterrupt
        write(self, name, text)

    monkeypatch.setattr(OutputFolder, "replace_file", stop)
    with pytest.raises(KeyboardInterrupt):
        harness.run()
    assert (harness.output / "results.jsonl").exists()
    monkeypatch.undo()
    assert harness.run() == 0
    assert len(records(harness.output)) == 6


def test_what_a_kill_left_of_the_page_is_removed_and_nothing_like_it(harness: Harness) -> None:
    harness.run()
    for name in (".index.0123456789ab.html", ".index.mine.html"):
        (harness.output / name).write_text("half")
    assert harness.run() == 0
    assert [path.name for path in harness.output.glob(".*")] == [".index.mine.html"]
