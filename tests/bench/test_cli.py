"""`mmattn bench` from its arguments to its exit code."""

import importlib
import json
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest

import mmattn.bench
from mmattn.bench import cli
from mmattn.bench.report import Report
from mmattn.bench.timer import Agreement, Comparison, Options, Timing

seen: list[Options] = []


def stand_in(options: Options) -> Report:
    seen.append(options)
    report = Report("stand_in", machine={"cpu": "an example"})
    error = 0.0 if options.quick else 1.0
    verdict = Agreement(error, error, tolerance=1e-4)
    report.add("case", [Comparison("peer", 1, Timing((1.0,)), Timing((2.0,)), verdict, target=1.5)])
    return report


@pytest.fixture(autouse=True)
def benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("a_benchmark")
    module.__dict__["stand_in"] = stand_in
    monkeypatch.setitem(sys.modules, "a_benchmark", module)
    monkeypatch.setitem(mmattn.bench.BENCHMARKS, "stand_in", "a_benchmark:stand_in")


def test_table_is_printed_and_agreement_gives_exit_code_zero(capsys):
    assert cli.main(["stand_in", "--quick", "--threads", "1", "2", "--repeats", "9"]) == 0
    assert "2.00x" in capsys.readouterr().out
    assert seen[-1] == Options(threads=(1, 2), repeats=9, output=None, quick=True)


def test_disagreement_gives_exit_code_one(capsys):
    assert cli.main(["stand_in"]) == 1
    assert "DISAGREES" in capsys.readouterr().out


def test_json_goes_to_the_file_that_was_named(tmp_path: Path):
    path = tmp_path / "out.json"
    cli.main(["stand_in", "--quick", "--json", str(path)])
    assert json.loads(path.read_text())["comparisons"][0]["ratio"] == 2.0


def test_json_dash_prints_json_and_nothing_else(capsys):
    cli.main(["stand_in", "--quick", "--json", "-"])
    assert json.loads(capsys.readouterr().out)["benchmark"] == "stand_in"


def test_output_folder_receives_the_json_under_the_benchmark_name(tmp_path: Path):
    cli.main(["stand_in", "--quick", "--output", str(tmp_path / "made")])
    assert (tmp_path / "made" / "stand_in.json").exists()


@pytest.mark.parametrize("arguments", [["nothing"], ["stand_in", "--threads", "0"], ["stand_in", "--repeats", "x"]])
def test_usage_errors_exit_with_two(arguments):
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2


@pytest.mark.parametrize("name", sorted(mmattn.bench.BENCHMARKS))
def test_every_benchmark_takes_options_and_returns_a_report(name: str):
    module, _, function = mmattn.bench.BENCHMARKS[name].partition(":")
    hints = typing.get_type_hints(getattr(importlib.import_module(module), function or "run"))
    assert hints == {"options": Options, "return": Report}


def test_help_imports_no_torch():
    code = "import contextlib, sys; from mmattn.bench import cli\n"
    code += "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
