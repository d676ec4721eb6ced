"""``mmattn infer lina`` from the command line to the files, with a model that says noise."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmattn.cli import main
from mmattn.errors import InputError
from mmattn.media.audio import SYNTHETIC_SPEECH, read_audio, read_comment, write_audio
from mmattn.speech.lina import results
from mmattn.speech.lina.clone_command import find_recordings
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.voices import cloning
from mmattn.speech.lina.voices.files import load_voice, save_voice
from tests.speech.lina.speech_folders import vctk
from tests.speech.lina.tiny_folder import write_model, write_recording

CONSENT = "I, Anna, agree."
QUICK = ["--checkpoint", "model", "--device", "cpu", "--max-seconds", "0.6", "--retries", "0"]
CLONE = ["infer", "lina", "--checkpoint", "model", "--device", "cpu", "--save-voice", "anna.safetensors"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_model(folder / "model")
    write_model(folder / "other", seed=5)
    return folder


@pytest.fixture
def desk(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models, a script, and recordings; the current one."""
    for name in ("model", "other"):
        (tmp_path / name).symlink_to(made / name)
    (tmp_path / "script.txt").write_text("Hello there.\n\n*** !!!\nThe end.\n")
    for number, text in enumerate(["Hello there my friend.", "One more line of text."]):
        write_recording(tmp_path / f"wavs/{number}.wav", text, 1.5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cloning, "_UPDATES", 3)
    monkeypatch.setattr(results, "WORD_SECONDS", 0.0)  # noise may end at once
    return tmp_path


def infer(*words: str) -> int:
    return main(["infer", "lina", *words, *QUICK])


def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs a command that is refused with one message and returns that."""
    before = {path for path in Path().rglob("*") if path.is_file()}
    assert main(list(words)) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("error:") == 1
    assert {path for path in Path().rglob("*") if path.is_file()} == before
    return err


def test_every_line_is_spoken_and_one_that_cannot_be_stops_no_other(desk: Path, capsys: pytest.CaptureFixture[str]):
    assert infer("script.txt", "--output", "out", "--seed", "4") == 1
    one, last = records("out/results.jsonl")
    assert [one["text"], last["text"]] == ["Hello there.", "The end."]
    assert one["outputs"] == ["script/0001.wav", "script/0001.json", "script/0001.png"]
    assert (one["voice"], one["seed"]) == ("slt", 4)
    (error,) = records("out/errors.jsonl")
    assert error["input"] == f"{desk}/script.txt:3"
    assert "nothing that can be spoken" in error["error"]
    assert read_comment("out/script/0001.wav") == SYNTHETIC_SPEECH
    assert json.loads(Path("out/script/0004.json").read_text())["text"] == "The end."
    page = Path("out/index.html").read_text()
    assert "script/0001.wav" in page
    assert "script.txt:3" in page
    assert "2 done, 1 failed" in capsys.readouterr().err

    Path("script.txt").write_text("Hello there.\n\nMended.\nThe end.\n")
    stamp = Path("out/script/0001.wav").stat().st_mtime_ns
    assert infer("script.txt", "--output", "out", "--seed", "4") == 0
    assert "1 done, 2 done before" in capsys.readouterr().err
    assert Path("out/script/0001.wav").stat().st_mtime_ns == stamp
    assert len(records("out/results.jsonl")) == 3


def test_speech_with_problems_is_counted_on_the_last_line(desk: Path, capsys: pytest.CaptureFixture[str]):
    Path("lines.txt").write_text("Hello there.\nIt goes on and on and on.\n")
    assert infer("lines.txt", "--output", "out", "--max-seconds", "0.1") == 0
    assert all("did not stop" in record["problems"] for record in records("out/results.jsonl"))
    assert capsys.readouterr().err.endswith("\n2 of 2 spoken with problems: see index.html\n")


def test_a_click_in_the_place_of_speech_fails(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(results.LinaResult, "is_nothing", True)
    words = ["--prompt", "wavs/0.wav", "--prompt-text", "Hello there my friend."]
    assert infer("--text", "The end.", "--output", "out", *words) == 1
    (error,) = records("out/errors.jsonl")
    assert re.fullmatch(r"The model stopped after 0\.\d\d s of 'The end\.'\.", error["error"])
    assert "--prompt-text is exactly what is said" in capsys.readouterr().err


@pytest.mark.parametrize(("named", "expected"), [(None, 1), ("2", 2)])
def test_a_small_model_takes_one_thread_unless_told(
    desk: Path, monkeypatch: pytest.MonkeyPatch, named: str | None, expected: int
):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if named is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", named)
    try:
        torch.set_num_threads(2)
        assert infer("--text", "Hello there.", "--output", "out") == 0
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_line_sounds_the_same_alone_and_in_a_batch(desk: Path):
    Path("lines.txt").write_text("Hello there.\nThe end.\n")
    assert infer("lines.txt", "--output", "many", "--batch-size", "2") == 0
    assert infer("--text", "The end.", "--output", "one", "--format", "flac") == 0
    alone, batched = read_audio("one/text.flac").samples, read_audio("many/lines/0002.wav").samples
    np.testing.assert_allclose(alone, batched, atol=2e-3)


def test_a_file_as_a_whole_is_one_recording(desk: Path):
    Path("book/one").mkdir(parents=True)
    Path("book/one/page.txt").write_text("Hello there.\n\nThe end.\n")
    assert infer("book", "--whole", "--output", "out") == 0
    (record,) = records("out/results.jsonl")
    assert record["outputs"][0] == "one/page.wav"
    assert [sentence["text"] for sentence in record["sentences"]] == ["Hello there.", "The end."]


def test_a_dry_run_names_the_lines_and_writes_nothing(desk: Path, capsys: pytest.CaptureFixture[str]):
    assert infer("script.txt", "--output", "out", "--dry-run", "--limit", "1") == 0
    assert f"would process {desk}/script.txt:1 -> script/0001" in capsys.readouterr().out
    assert not Path("out").exists()


def test_a_voice_is_cloned_saved_and_speaks(desk: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*CLONE, "--clone", "wavs", "--consent", f" {CONSENT} "]) == 0
    err = capsys.readouterr().err
    assert "cloning" in err
    assert "3/3" in err
    assert "-> anna.safetensors" in err
    voice = load_voice("anna.safetensors", None)
    assert (voice.name, voice.consent) == ("anna", CONSENT)
    assert infer("--text", "Hello.", "--voice", "anna.safetensors", "--output", "out") == 0
    assert records("out/results.jsonl")[0]["voice"] == "anna"
    assert sorted(path.name for path in desk.iterdir() if path.is_file()) == ["anna.safetensors", "script.txt"]


def test_cloning_and_speaking_go_in_one_command(desk: Path):
    words = ["--clone", "wavs", "--save-voice", "anna.safetensors", "--consent", CONSENT]
    assert infer("--text", "Hello.", "--output", "out", *words) == 0
    assert records("out/results.jsonl")[0]["voice"] == "anna"
    # The results are those of the voice: the folder can be continued with it.
    assert infer("--text", "Hello.", "--output", "out", "--voice", "anna.safetensors") == 0


def test_another_voice_under_the_same_name_counts_as_another_voice(desk: Path, capsys: pytest.CaptureFixture[str]):
    shipped = load_voice("model/voices/slt.safetensors", None)
    save_voice("anna.safetensors", shipped)
    words = ["--text", "Hello.", "--voice", "anna.safetensors", "--output", "out"]
    assert infer(*words) == 0
    # The same voice may lie elsewhere.
    Path("voices").mkdir()
    Path("voices/anna.safetensors").write_bytes(Path("anna.safetensors").read_bytes())
    assert infer("--text", "Hello.", "--voice", "voices/anna.safetensors", "--output", "out") == 0
    assert "1 done before" in capsys.readouterr().err
    shipped.state.tensors["layer0_k"].data += 1
    save_voice("anna.safetensors", shipped)
    assert "voice was 'anna.safetensors (content " in told(capsys, "infer", "lina", *words, *QUICK)
    assert infer(*words, "--overwrite") == 0


def test_another_prompt_under_the_same_name_counts_as_another_prompt(desk: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--text", "Hello.", "--prompt", "wavs/0.wav", "--prompt-text", "Hello there my friend.", "--output", "out"]
    assert infer(*words) == 0
    assert infer(*words) == 0
    assert "1 done before" in capsys.readouterr().err
    write_recording(Path("wavs/0.wav"), None, 1.6)
    assert "prompt was '0.wav (content " in told(capsys, "infer", "lina", *words, *QUICK)


@pytest.mark.parametrize("earlier", ["slt", "anna.safetensors"])
def test_an_output_of_another_voice_is_told_before_cloning(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, earlier: str
):
    Path("anna.safetensors").write_bytes(Path("model/voices/slt.safetensors").read_bytes())
    assert infer("--text", "Hello.", "--voice", earlier, "--output", "out") == 0
    Path("anna.safetensors").unlink()
    monkeypatch.setattr(LinaPredictor, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    words = [*CLONE[2:], "--clone", "wavs", "--consent", CONSENT, "--text", "Hello.", "--output", "out"]
    for more in ([], ["--dry-run"]):
        err = told(capsys, "infer", "lina", *words, *QUICK[4:], *more)
        assert f"voice was '{earlier}" in err
        assert "is 'anna.safetensors (not cloned yet)'" in err


def test_an_output_that_is_no_folder_of_ours_is_told_before_cloning(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(LinaPredictor, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    words = [*CLONE, "--clone", "wavs", "--consent", CONSENT, "--text", "Hello."]
    for place in ("script.txt", "script.txt/out"):
        assert "Not a directory" in told(capsys, *words, "--output", place)
    Path("theirs").mkdir()
    Path("theirs/results.jsonl").write_text("1\n")
    assert "no run of mmattn explains" in told(capsys, *words, "--output", "theirs")


def test_a_seed_that_cannot_be_used_is_told_before_cloning(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(LinaPredictor, "clone", lambda *_, **__: pytest.fail("a voice was cloned"))
    words = [*CLONE, "--clone", "wavs", "--consent", CONSENT, "--text", "Hello.", "--output", "out", "--seed", "-1"]
    assert "The seed is -1" in told(capsys, *words)


def test_one_of_several_speakers_is_cloned_if_chosen(desk: Path, capsys: pytest.CaptureFixture[str]):
    for speaker, count in (("anna", 2), ("ben", 1)):
        for number in range(count):
            write_recording(desk / f"set/train/{speaker}/{number}.wav", "Hello there my friend.", 1.5)
    words = [*CLONE, "--clone", "set", "--consent", CONSENT]
    err = told(capsys, *words)
    assert "are of 2 speakers: anna (2), ben (1)." in err
    assert "--speaker anna" in err
    assert "no speaker 'carl' in 'set'" in told(capsys, *words, "--speaker", "carl")
    assert "with one recording" in told(capsys, *CLONE, "--clone", "wavs/0.wav", *words[-2:], "--speaker", "anna")
    assert main([*words, "--speaker", "anna", "--dry-run"]) == 0
    assert "a voice from 2 recordings" in capsys.readouterr().out
    assert main([*words, "--speaker", "ben"]) == 0
    assert load_voice("anna.safetensors", None).name == "anna"


def test_of_many_speakers_the_first_are_named(tmp_path: Path):
    for number in range(11):
        write_recording(tmp_path / f"s{number:02d}/a.wav", "Hello.")
    with pytest.raises(InputError, match=r"11 speakers: s00 \(1\), .*, s07 \(1\) and 3 more\."):
        find_recordings(tmp_path)
    assert find_recordings(tmp_path, "s10") == [(tmp_path / "s10/a.wav", "Hello.")]


def test_a_speaker_of_a_published_set_is_chosen(tmp_path: Path):
    assert [text for _, text in find_recordings(vctk(tmp_path), "p225")] == ["Sentence p225_001.", "Sentence p225_002."]


def test_a_dry_clone_names_what_it_would_do(desk: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*CLONE, "--clone", "wavs", "--consent", CONSENT, "--dry-run"]) == 0
    assert "would clone a voice from 2 recordings -> anna.safetensors" in capsys.readouterr().out
    assert not Path("anna.safetensors").exists()


def test_a_recording_is_gone_on_from(desk: Path):
    words = ["--prompt", "wavs/0.wav", "--prompt-text", "Hello there my friend."]
    assert infer("--text", "The end.", "--output", "out", *words) == 0
    assert infer("--text", "The end.", "--output", "plain") == 0
    prompted, plain = read_audio("out/text.wav").samples, read_audio("plain/text.wav").samples
    assert not np.array_equal(prompted, plain)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "Hi", "--output", "out", "--voice", "nobody"], "This model has the voices slt."),
        (["--text", "Hi", "--output", "out", "--voice", "stranger.safetensors"], "was made for model"),
        (["--text", "Hi", "--output", "out", "--prompt", "wavs/0.wav"], "prompt is given without prompt_text"),
        (
            ["--text", "Hi", "--output", "out", "--prompt", "gone.wav", "--prompt-text", "x"],
            "There is no file gone.wav",
        ),
        (["--text", "Hi", "--output", "out", "--prompt", "torn.wav", "--prompt-text", "x"], "torn.wav"),
        (["--text", "Hi", "--output", "out", "--seed", "-1"], "The seed is -1"),
        (["--text", "Hi", "--output", "out", "--temperature", "-1"], "temperature"),
        (["--text", "Hi"], "required: --output"),
        (["--output", "out"], "required: INPUT"),
        (["--text", "Hi", "script.txt", "--output", "out"], "--text takes no INPUT"),
        (["gone.txt", "--output", "out"], "'gone.txt' does not exist"),
        (["--text", "Hi", "--output", "out", "--save-voice", "a.safetensors"], "--save-voice needs --clone"),
        (["--text", "Hi", "--output", "out", "--speaker", "anna"], "--speaker needs --clone"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_anything_is_written(
    desk: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    Path("torn.wav").write_bytes(b"RIFF nothing")
    Path("stranger.safetensors").write_bytes(Path("other/voices/slt.safetensors").read_bytes())
    assert message in told(capsys, "infer", "lina", *words, *QUICK)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clone", "wavs"], "the statement of the speaker"),
        (["--clone", "wavs", "--consent", " "], "the statement of the speaker"),
        (["--clone", "gone", "--consent", CONSENT], "--clone 'gone' does not exist"),
        (["--clone", "mute", "--consent", CONSENT], "mute/a.txt is missing"),
        (["--clone", "script.txt", "--consent", CONSENT], "script.txt"),
        (["--clone", "torn", "--consent", CONSENT], "torn/a.wav"),
        (["--clone", "silent", "--consent", CONSENT], "silent/a.wav is silent"),
        (["--clone", "brief", "--consent", CONSENT], "too little to learn a voice from"),
        (["--clone", "wavs", "--consent", CONSENT, "--voice", "slt"], "--clone and --voice are both given"),
        (["--clone", "wavs", "--consent", CONSENT, "--save-voice", "anna.wav"], "ends in .safetensors"),
        (["--clone", "wavs", "--consent", CONSENT, "--save-voice", "no/anna.safetensors"], "folder does not exist"),
        (["--clone", "wavs", "--consent", CONSENT, "--save-voice", "old.safetensors"], "'old.safetensors' exists"),
        (["--clone", "wavs", "--consent", CONSENT, "script.txt"], "required: --output"),
        (["--clone", "wavs", "--consent", CONSENT, "gone.txt", "--output", "out"], "'gone.txt' does not exist"),
    ],
)
def test_a_clone_that_cannot_be_made_leaves_nothing_behind(
    desk: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    write_recording(desk / "mute/a.wav", None)
    write_recording(desk / "brief/a.wav", "Hi.", 0.2)
    write_recording(desk / "torn/a.wav", "Hi.").write_bytes(b"RIFF nothing")
    write_recording(desk / "silent/a.wav", "Hi.")
    write_audio(desk / "silent/a.wav", np.zeros(8000, np.float32), 8000)
    Path("old.safetensors").write_bytes(b"dear")
    assert message in told(capsys, *CLONE, *words)


def test_files_without_text_fail_alone(desk: Path):
    Path("texts").mkdir()
    for name, content in (("empty", b""), ("latin", b"\xe9t\xe9"), ("fine", b"Hello."), ("other", "日本".encode())):
        Path(f"texts/{name}.txt").write_bytes(content)
    assert infer("texts", "--output", "out") == 1
    assert [Path(record["input"]).name for record in records("out/results.jsonl")] == ["fine.txt:1"]
    errors = {Path(record["input"]).name: record["error"] for record in records("out/errors.jsonl")}
    assert "has no text in it" in errors["empty.txt"]
    assert "is not UTF-8" in errors["latin.txt"]
    assert "nothing that can be spoken" in errors["other.txt:1"]
    files = sorted(path.name for path in Path("out").rglob("*") if path.is_file())
    assert files == ["0001.json", "0001.png", "0001.wav", "errors.jsonl", "index.html", "results.jsonl", "run.json"]


def test_a_dataset_is_checked(desk: Path, capsys: pytest.CaptureFixture[str]):
    for name in "abc":
        write_recording(desk / f"set/train/anna/{name}.wav", "Hello there my friend.", 1.5)
    assert main(["data", "check", "lina", "set"]) == 0
    capsys.readouterr()
    Path("set/train/anna/b.wav").write_bytes(b"RIFF nothing")
    assert main(["data", "check", "lina", "set", "--layout", "folder"]) == 1
    assert "b.wav" in capsys.readouterr().out
    assert "looks like no speech dataset" in told(capsys, "data", "check", "lina", "model")
    assert "does not exist" in told(capsys, "data", "check", "lina", "gone")


def test_help_answers_without_the_model_and_names_every_flag(capsys: pytest.CaptureFixture[str]):
    assert main(["infer", "lina", "--help"]) == 0
    out = capsys.readouterr().out
    for flag in (
        "--voice",
        "--clone",
        "--save-voice",
        "--consent",
        "--speaker",
        "--text",
        "--whole",
        "--format",
        "--prompt-text",
    ):
        assert flag in out
    assert main(["convert", "lina", "--help"]) == 0
    assert "--tokenizer" in capsys.readouterr().out
