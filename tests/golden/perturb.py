"""Shows that the golden tests can fail: perturbs every expected entry and requires every case to notice.

``python -m tests.golden.perturb`` checks all golden test modules, ``python -m tests.golden.perturb test_crane`` one.
The convention that makes this generic is written in ``tests/golden/fixtures.py``.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.golden.fixtures import Tolerance, golden_dir, load_tensors, metadata

__all__ = ["main", "perturb_folder", "perturb_json", "perturb_tensor"]

_HERE = Path(__file__).parent
_FACTOR = 100.0

ExpectedTolerance = Callable[[str, str], Tolerance | float | None]


def perturb_tensor(expected: Tensor, tolerance: Tolerance | float) -> Tensor:
    """Returns a tensor that a test with this tolerance must reject.

    Floats move up by 100 tolerances (by 1 where the tolerance is 0, and to 0 where they are not finite), integers by
    100 tolerances or by 1, booleans are flipped.
    """
    if expected.dtype == torch.bool:
        return ~expected
    step = _FACTOR * Tolerance.of(tolerance).allowed(expected)
    step = torch.where(step > 0, step, torch.ones_like(step))
    if not expected.dtype.is_floating_point:
        return expected + step.ceil().to(torch.int64).to(expected.dtype)
    # Rounding to a narrow dtype must not swallow the step.
    resolution = 4 * torch.finfo(expected.dtype).eps * torch.nan_to_num(expected.double()).abs()
    moved = torch.where(expected.isfinite(), expected.double() + torch.maximum(step, resolution), torch.zeros(()))
    return moved.to(expected.dtype)


def perturb_json(value: object, tolerance_of: Callable[[str], Tolerance | float | None], path: str = "") -> object:
    """Returns a JSON value with every expected leaf changed; ``path`` is the dotted way to it."""
    if isinstance(value, dict):
        return {key: perturb_json(item, tolerance_of, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list):
        return [perturb_json(item, tolerance_of, f"{path}.{i}" if path else str(i)) for i, item in enumerate(value)]
    tolerance = tolerance_of(path)
    if tolerance is None or value is None:
        return value
    if isinstance(value, str):
        return value + "~perturbed"
    if isinstance(value, bool):
        return not value
    dtype = torch.int64 if isinstance(value, int) else torch.float64
    return perturb_tensor(torch.tensor(value, dtype=dtype), tolerance).item()


def perturb_folder(source: Path, target: Path, expected_tolerance: ExpectedTolerance) -> int:
    """Copies a fixture folder with every expected entry changed; returns how many files changed."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("released_*"))
    changed = 0
    for path in sorted(target.iterdir()):
        path.chmod(0o644)
        before = path.read_bytes()
        if path.suffix == ".safetensors":
            tensors = load_tensors(path)
            save_file(_perturb_all(tensors, path.name, expected_tolerance), path, metadata=metadata(path))
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            moved = _perturb_all(tensors, path.name, expected_tolerance)
            np.savez(path, **{name: tensor.numpy() for name, tensor in moved.items()})  # type: ignore[arg-type]
        elif path.suffix == ".json":
            content = json.loads(before)
            moved_json = perturb_json(content, lambda key, name=path.name: expected_tolerance(name, key))  # type: ignore[misc]
            if moved_json != content:
                path.write_text(json.dumps(moved_json), encoding="utf-8")
        changed += path.read_bytes() != before
    return changed


def _perturb_all(tensors: dict[str, Tensor], file: str, expected_tolerance: ExpectedTolerance) -> dict[str, Tensor]:
    moved = {}
    for key, tensor in tensors.items():
        tolerance = expected_tolerance(file, key)
        moved[key] = (tensor if tolerance is None else perturb_tensor(tensor, tolerance)).contiguous()
    return moved


def _outcomes(module: str, golden_root: Path) -> dict[str, str]:
    """Runs one golden test module; returns passed, failed or skipped by case id."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", str(_HERE / f"{module}.py"), "-q", "--no-header", "--tb=no", "-p",
             "no:cacheprovider", f"--junitxml={report}"],
            cwd=_HERE.parent.parent,
            env={**os.environ, "MMATTN_GOLDEN_DIR": str(golden_root)},
            stdout=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        outcomes = {}
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            kinds = {child.tag for child in case}
            outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            outcomes[case.attrib["name"]] = outcome
    return outcomes


def check_module(module: str) -> list[str]:
    """Returns what is wrong with one golden test module: cases that can not fail, or did not pass to begin with."""
    declared = importlib.import_module(f"tests.golden.{module}")
    source = golden_dir(declared.FOLDER)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / declared.FOLDER
        if perturb_folder(source, target, declared.expected_tolerance) == 0:
            return [f"{module}: expected_tolerance() declares no expected entry"]
        clean, perturbed = _outcomes(module, source.parent), _outcomes(module, Path(scratch))
    problems = [
        f"{module}::{name} {outcome} on the clean fixtures"
        for name, outcome in clean.items()
        if outcome == "failed" or (outcome == "skipped" and "released" not in name)
    ]
    problems += [
        f"{module}::{name} still {perturbed.get(name, 'missing')} on perturbed fixtures"
        for name, outcome in clean.items()
        if outcome == "passed" and perturbed.get(name) != "failed"
    ]
    print(f"{module}: {len(clean)} cases, {sum(o == 'failed' for o in perturbed.values())} fail on perturbed fixtures")
    return problems or ([] if clean else [f"{module}: no cases"])


def main(modules: list[str]) -> int:
    """Checks the named golden test modules, or all of them; returns the exit status."""
    names = modules or sorted(path.stem for path in _HERE.glob("test_*.py"))
    problems = [problem for name in names for problem in check_module(name.removesuffix(".py"))]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
