import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mmattn import __version__
from mmattn.cli import COMMANDS, main
from mmattn.commands import app
from mmattn.commands.systems import SYSTEMS
from mmattn.core.batch.inputs import InferRequest
from mmattn.errors import MediaError
from tests.commands.fake_system import commands as fake_commands
from tests.commands.fake_system.config import FakeInferOptions

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, Any]]:
    """Registers the fake system, in an empty folder, and returns what its commands were called with."""
    monkeypatch.setitem(SYSTEMS, "fake", "tests.commands.fake_system")
    monkeypatch.chdir(tmp_path)
    fake_commands.calls.clear()
    return fake_commands.calls


def test_help_lists_every_command_with_examples(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert "mmattn infer crane photos/ --output results" in out


def test_without_arguments_the_help_goes_to_stderr_with_exit_code_2(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("usage: mmattn COMMAND")


def test_version_is_printed(run: Run) -> None:
    assert run("--version") == (0, f"mmattn {__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        *[(command,) for command in COMMANDS],
        *[(command, "crane") for command in ("infer", "convert", "export", "calibrate")],
        *[("data", action) for action in ("make", "check")],
        *[("data", action, "crane") for action in ("make", "check")],
    ],
    ids=" ".join,
)
def test_the_help_of_every_command_has_an_example(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: mmattn ")
    example = out.partition("example:\n")[2]
    assert example.startswith(f"  mmattn {words[0]} ")


def test_a_misspelt_command_is_guessed(run: Run) -> None:
    code, _, err = run("infr", "crane")
    assert code == 2
    assert "There is no command 'infr'" in err
    assert "Did you mean infer?" in err


@pytest.mark.parametrize("words", [("infer",), ("convert",), ("app",), ("data", "make")], ids=" ".join)
def test_an_unknown_system_lists_those_that_exist(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words, "cran", "x", "--output", "o")[:3] if words != ("app",) else run("app", "cran")
    assert (code, out) == (2, "")
    assert "There is no system 'cran'." in err
    assert "hint: Systems: crane, crash, lina. Did you mean crane?" in err


@pytest.mark.parametrize("command", ["infer", "convert", "export", "calibrate"])
def test_the_system_must_come_first(run: Run, command: str) -> None:
    code, _, err = run(command, "--output", "o", "crane")
    assert code == 2
    assert "the first argument must be a system: crane, crash" in err


def test_infer_hands_over_what_was_typed(run: Run, calls: list[tuple[str, Any]]) -> None:
    words = "infer fake a.png --output out b/ --batch-size 8 --limit 3 --threshold 0.2 --mutual --sigma 2 --no-soft"
    assert run(*words.split(), "--checkpoint", "hf:a/b", "--device", "cpu", "--seed", "5", "--workers", "0")[0] == 0
    expected = InferRequest(
        system="fake",
        inputs=["a.png", "b/"],
        output=Path("out"),
        checkpoint="hf:a/b",
        device="cpu",
        batch_size=8,
        workers=0,
        seed=5,
        limit=3,
        options=FakeInferOptions(threshold=0.2, mutual=True),
        overrides={"sigma": 2.0, "soft": False},
    )
    assert calls == [("infer", expected)]


def test_infer_returns_the_exit_code_of_the_run(run: Run, calls: list[tuple[str, Any]]) -> None:
    assert run("infer", "fake", "bad.png", "--output", "o")[0] == 1
    assert run("infer", "fake", "good.png", "--output", "o", "--dry-run", "--overwrite")[0] == 0
    assert (calls[1][1].dry_run, calls[1][1].overwrite) == (True, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("x.png",), "the following arguments are required: --output"),
        (("--output", "o"), "the following arguments are required: INPUT"),
        (("x.png", "--output", "o", "--recipe", "none"), "invalid choice: 'none'"),
        (("x.png", "--output", "o", "--batch-size", "two"), "invalid int value: 'two'"),
        (("x.png", "--output", "o", "--batch-size", "0"), "--batch-size is 0, expected a whole number of at least 1."),
        (("x.png", "--output", "o", "--sigm", "2"), "unrecognized arguments: --sigm"),
    ],
    ids=["output", "input", "recipe", "type", "range", "abbreviation"],
)
def test_infer_refuses_bad_arguments(
    run: Run, calls: list[tuple[str, Any]], words: tuple[str, ...], message: str
) -> None:
    code, _, err = run("infer", "fake", *words)
    assert code == 2
    assert message in err
    assert calls == []


def test_convert_passes_the_systems_own_flags(run: Run, calls: list[tuple[str, Any]]) -> None:
    Path("w.pth").write_text("")
    assert run("convert", "fake", "w.pth", "--output", "o", "--variant", "large")[0] == 0
    ((name, args),) = calls
    assert (name, args.file, args.output, args.variant) == ("convert", Path("w.pth"), Path("o"), "large")


def test_calibrate_and_data_pass_their_arguments(run: Run, calls: list[tuple[str, Any]]) -> None:
    Path("set").mkdir()
    assert run("calibrate", "fake", "set", "--device", "cpu")[0] == 0
    assert run("data", "make", "fake", "new")[0] == 0
    assert run("data", "check", "fake", "set")[0] == 1
    assert [name for name, _ in calls] == ["calibrate", "data_make", "data_check"]
    assert (calls[0][1].folder, calls[0][1].checkpoint, calls[0][1].device) == (Path("set"), "embedded", "cpu")
    assert calls[1][1].path == Path("new")


@pytest.mark.parametrize(
    "words", [("convert", "fake", "no", "--output", "o"), ("calibrate", "fake", "no"), ("data", "check", "fake", "no")]
)
def test_a_path_that_does_not_exist_is_named(run: Run, calls: list[tuple[str, Any]], words: tuple[str, ...]) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert " 'no' does not exist." in err
    assert calls == []


def test_a_command_the_system_lacks_names_the_systems_that_have_it(run: Run, calls: list[tuple[str, Any]]) -> None:
    code, _, err = run("export", "fake", "--output", "o")
    assert code == 2
    assert "System 'fake' has no command 'export'." in err
    assert "Systems that have it: crane." in err


def test_data_knows_two_actions(run: Run) -> None:
    code, _, err = run("data", "delete", "crane", "x")
    assert code == 2
    assert "There is no 'mmattn data delete'." in err


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("our.pth", "mmattn: error: 'our.pth' does not fit.\nhint: Use another.\n"),
        (
            "built-in.pth",
            "mmattn: error: sizes differ\nhint: The same command with --debug shows where this comes from.\n",
        ),
        ("os.pth", "mmattn: error: Permission denied: 'os.pth'\nhint: The same command with --debug"),
        (
            "extra.pth",
            "'mmattn convert' needs the package 'open_clip', which is not installed.\nhint: Install it with: pip",
        ),
    ],
    ids=["ours", "value", "system", "extra"],
)
def test_errors_are_one_message_without_a_traceback(
    run: Run, calls: list[tuple[str, Any]], file: str, message: str
) -> None:
    Path(file).write_text("")
    code, out, err = run("convert", "fake", file, "--output", "o")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(run: Run, calls: list[tuple[str, Any]]) -> None:
    Path("our.pth").write_text("")
    code, _, err = run("convert", "fake", "our.pth", "--output", "o", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("mmattn: error: 'our.pth' does not fit.\nhint: Use another.\n")


def test_a_missing_module_of_our_own_is_no_missing_extra(run: Run, calls: list[tuple[str, Any]]) -> None:
    Path("bug.pth").write_text("")
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        run("convert", "fake", "bug.pth", "--output", "o")


def test_a_warning_is_one_line_without_source_code(
    run: Run, calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(args: object) -> int:
        warnings.warn("'x.wav' is clipped.", stacklevel=1)
        return 0

    monkeypatch.setattr(fake_commands, "convert", convert)
    Path("x.pth").write_text("")
    usual = warnings.formatwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        # As Python does by itself; pytest collects warnings instead.
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        assert run("convert", "fake", "x.pth", "--output", "o") == (0, "", "warning: 'x.wav' is clipped.\n")
        assert "test_cli.py" in run("convert", "fake", "x.pth", "--output", "o", "--debug")[2]
    assert warnings.formatwarning is usual


def test_a_folder_in_the_place_of_a_file_is_named(
    run: Run, calls: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(args: object) -> int:
        try:
            Path().read_bytes()
        except OSError as error:
            raise MediaError("Cannot open '.': is a directory.") from error
        return 0

    monkeypatch.setattr(fake_commands, "convert", convert)
    Path("x.pth").write_text("")
    code, _, err = run("convert", "fake", "x.pth", "--output", "o")
    expected = "mmattn: error: Cannot open '.': is a directory.\nhint: It is a folder, expected a single file.\n"
    assert (code, err) == (2, expected)


def test_no_dataset_is_made_where_a_file_is(run: Run, calls: list[tuple[str, Any]]) -> None:
    Path("afile").write_text("")
    for path in ("afile", "afile/below"):
        code, _, err = run("data", "make", "fake", path)
        assert (code, calls) == (2, [])
        assert "PATH 'afile' is a file, expected a folder to write to." in err


@pytest.mark.parametrize(("system", "inputs"), [("crane", "photos/"), ("crash", "drives/"), ("lina", "script.txt")])
def test_the_example_of_infer_suits_the_system(run: Run, system: str, inputs: str) -> None:
    assert f"mmattn infer {system} {inputs} --output results" in run("infer", system, "--help")[1]


def test_a_misspelt_config_is_told_before_lightning_is_imported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmattn.core.training.lightning_cli", None)
    code, _, err = run("fit", "--config", "lina/nope")
    assert code == 2
    assert "Config 'lina/nope' is neither" in err
    assert "lina/embedded, lina/embedded_codec" in err


def test_an_interruption_is_exit_code_130(run: Run, calls: list[tuple[str, Any]]) -> None:
    Path("interrupt.pth").write_text("")
    assert run("convert", "fake", "interrupt.pth", "--output", "o") == (130, "", "interrupted\n")


@pytest.fixture
def ui(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the pages, so that no server starts."""
    seen = SimpleNamespace(predictors=None, apps=None, launched=None)

    def build_app(predictors: dict[str, Any]) -> str:
        seen.predictors = predictors
        return "the page"

    def build_hub(apps: dict[str, Any]) -> str:
        seen.apps = apps
        return "the hub"

    def launch(demo: object, **options: object) -> None:
        seen.launched = (demo, options)

    modules = {
        "mmattn.ui.fake": SimpleNamespace(build_app=build_app),
        "mmattn.ui.hub": SimpleNamespace(build_hub=build_hub),
        "mmattn.ui.serve": SimpleNamespace(launch=launch),
    }

    def find(name: str) -> ModuleType | SimpleNamespace:
        return modules[name]

    monkeypatch.setattr(app, "import_module", find)
    return seen


def test_app_loads_the_named_models_and_serves(
    run: Run, calls: list[tuple[str, Any]], ui: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMATTN_AUTH", "anna:secret")
    words = "app fake --checkpoint small=embedded runs/mine --device cpu --host 0.0.0.0 --port 8000 --share"
    words += " --trusted-host a.example b.example"
    assert run(*words.split())[0] == 0
    assert {name: p.source for name, p in ui.predictors.items()} == {"small": "embedded", "mine": "runs/mine"}
    assert ui.predictors["small"].options.recipe is None
    options = {"host": "0.0.0.0", "port": 8000, "share": True}
    more = {"trusted": ["a.example", "b.example"], "accounts": [("anna", "secret")]}
    assert ui.launched == ("the page", options | more)


def test_app_is_not_shared_without_accounts(run: Run, ui: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMATTN_AUTH", raising=False)
    code, _, told = run("app", "fake", "--share")
    assert code == 2
    assert "--auth-file" in told
    assert ui.launched is None


def test_app_offers_every_checkpoint_with_every_recipe(
    run: Run, calls: list[tuple[str, Any]], ui: SimpleNamespace
) -> None:
    assert run(*["app", "fake", "--checkpoint", "a=embedded", "b=runs/b", "--recipe", "plain", "plus"])[0] == 0
    assert {name: p.options.recipe for name, p in ui.predictors.items()} == {
        "a, plain": "plain",
        "a, plus": "plus",
        "b, plain": "plain",
        "b, plus": "plus",
    }


def test_app_without_a_system_serves_every_installed_one(
    run: Run, calls: list[tuple[str, Any]], ui: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mmattn.core.weights.checkpoint.files", lambda package: tmp_path)
    code, _, err = run("app")
    assert code == 2
    assert "No system has an embedded model in this installation." in err
    (tmp_path / "assets" / "fake").mkdir(parents=True)
    (tmp_path / "assets" / "fake" / "model.safetensors").write_bytes(b"")
    assert run("app")[0] == 0
    assert ui.apps == {"Fake": "the page"}
    assert ui.launched[0] == "the hub"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("app fake --recipe minus", "System 'fake' has no recipe 'minus'.\nhint: Recipes: plain, plus."),
        ("app fake --checkpoint a=x a=y", "Two checkpoints are called 'a'."),
        ("app fake --checkpoint =x", "--checkpoint '=x' is not of the form NAME=SOURCE."),
        ("app --checkpoint a=x", "--checkpoint and --recipe need a SYSTEM."),
    ],
)
def test_app_refuses_bad_arguments(
    run: Run, calls: list[tuple[str, Any]], ui: SimpleNamespace, words: str, message: str
) -> None:
    code, _, err = run(*words.split())
    assert code == 2
    assert message in err
    assert ui.launched is None


def test_info_shows_versions_devices_backends_and_models(run: Run) -> None:
    code, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["mmattn"] == __version__
    assert facts["packages"]["torch"].startswith("2.")
    assert facts["devices"]["cpu"].endswith("1 threads")
    assert facts["backends"]["cpu"].startswith("cpu (")
    assert set(facts["embedded_models"]) == set(SYSTEMS)
    text = run("info")[1]
    assert all(f"\n{title}\n" in text for title in ("packages", "devices", "attention backends", "embedded models"))


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_training_without_a_config_says_so_at_once(run: Run, command: str) -> None:
    code, _, err = run(command)
    assert code == 2
    assert f"usage: mmattn {command} --config FILE|NAME" in err
    assert "required: --config" in err


def test_training_forwards_to_the_lightning_command_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def cli_main(args: list[str]) -> int:
        seen.append(args)
        return 0

    monkeypatch.setitem(sys.modules, "mmattn.core.training.lightning_cli", SimpleNamespace(cli_main=cli_main))
    assert run("fit", "--config", "crane/embedded", "--trainer.max_epochs", "1")[0] == 0
    assert run("test", "--help-all")[0] == 0
    assert seen == [["fit", "--config", "crane/embedded", "--trainer.max_epochs", "1"], ["test", "--help"]]


def shell(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.e2e
def test_the_module_runs_as_a_program_with_its_exit_code() -> None:
    result = shell("-m", "mmattn", "infer", "cran")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("mmattn: error: There is no system 'cran'.\nhint: ")


@pytest.mark.e2e
@pytest.mark.parametrize("words", [["--help"], ["infer", "crane", "--help"], ["fit", "--help"], ["bench", "--help"]])
def test_help_imports_no_heavy_package(words: list[str]) -> None:
    code = (
        "import sys; from mmattn.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'lightning', 'gradio', 'transformers', 'PIL', 'cv2'} & set(sys.modules);"
        "print('HEAVY', sorted(heavy), code)"
    )
    assert shell("-c", code, *words).stdout.endswith("HEAVY [] 0\n")


@pytest.mark.e2e
def test_a_closed_pipe_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "mmattn", "--help"]
    root, environment = Path(__file__).parents[1], {**os.environ, "PYTHONUNBUFFERED": ""}
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=root, env=environment, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (2, b"")
