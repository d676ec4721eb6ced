"""Reading golden fixtures and comparing against them; every golden test module is written to this convention.

Fixtures are tensors computed by the original authors' code (or by an independent float64 formula). They live in
``$MMATTN_GOLDEN_DIR/<folder>/``, default ``tests/golden/data/<folder>/``.

The convention of a golden test module ``tests/golden/test_<system>.py``:

1. ``FOLDER = "<folder>"`` at module level names the fixture folder.
2. Files and entries are *discovered* (``golden_files(FOLDER, "core_*.safetensors")``), never listed. One pytest case
   per tensor group, with ids such as ``core_gqa-block_causal``. An entry or option that is not understood fails the
   test; it is never skipped. A case compares every expected tensor of its group.
3. ``expected_tolerance(file: str, key: str) -> Tolerance | float | None`` at module level says which entries are
   expected outputs and how closely they must be met. ``file`` is the file name (``"core_gqa.safetensors"``), ``key``
   the tensor name (for JSON the dotted path to the leaf, list positions as numbers: ``"cases.0.auroc"``).
   ``None`` means input: never perturbed. A float is an absolute tolerance; ``Tolerance`` adds a relative part and a
   part relative to the tensor's largest magnitude. Integers, booleans and strings are exact: return ``0.0``.
   The tests take their tolerances from this same function, so that both agree:
   ``check(actual, expected, expected_tolerance(path.name, key), name=key)``.
4. Each case must depend on at least one expected entry: ``python -m tests.golden.perturb [test_<system> ...]`` changes
   all of them (floats by 100 tolerances, integers by one or 100 tolerances, booleans flipped, strings extended) and
   requires every case that passed on the clean fixtures to fail. Tests of anything else (error messages, say) live in
   another module. Only a test with ``released`` in its name may skip.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["Tolerance", "check", "compare", "golden_dir", "golden_files", "load_json", "load_tensors", "metadata"]

_DEFAULT_ROOT = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Tolerance:
    """Allowed error ``atol + rtol * |expected| + of_max * max|expected|``, element by element."""

    atol: float = 0.0
    rtol: float = 0.0
    of_max: float = 0.0

    def allowed(self, expected: Tensor) -> Tensor:
        """Returns the allowed absolute error of every element of ``expected`` (float64); 0 where it is not finite."""
        magnitude = torch.nan_to_num(expected.double(), nan=0.0, posinf=0.0, neginf=0.0).abs()
        peak = magnitude.max() if magnitude.numel() else magnitude.new_zeros(())
        return self.atol + self.rtol * magnitude + self.of_max * peak

    @classmethod
    def of(cls, value: "Tolerance | float") -> "Tolerance":
        """Returns ``value`` as a Tolerance; a plain number is an absolute tolerance."""
        return value if isinstance(value, cls) else cls(atol=float(value))  # type: ignore[arg-type]


def golden_dir(folder: str) -> Path:
    """Returns the fixture folder, under ``$MMATTN_GOLDEN_DIR`` or ``tests/golden/data``."""
    path = Path(os.environ.get("MMATTN_GOLDEN_DIR") or _DEFAULT_ROOT) / folder
    if not path.is_dir():
        raise FileNotFoundError(f"no fixture folder {path}; set MMATTN_GOLDEN_DIR to the parent of {folder!r}")
    return path


def golden_files(folder: str, pattern: str = "*.safetensors") -> list[Path]:
    """Returns the fixture files that match a glob pattern, sorted by name; ``released_*`` files are left out."""
    return sorted(path for path in golden_dir(folder).glob(pattern) if not path.name.startswith("released_"))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Returns all tensors of a safetensors file."""
    return load_file(path)


def load_json(path: Path) -> dict[str, object]:
    """Returns the contents of a JSON fixture."""
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def metadata(path: Path) -> dict[str, str]:
    """Returns the safetensors metadata of a file, empty if it has none."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def check(actual: Tensor, expected: Tensor, tolerance: Tolerance | float | None, *, name: str) -> None:
    """Compares with a declared tolerance; an entry declared as input (None) can not be compared.

    Raises:
        ValueError: ``tolerance`` is None.
        AssertionError: see ``compare``.
    """
    if tolerance is None:
        raise ValueError(f"{name} is compared but expected_tolerance() declares it an input")
    declared = Tolerance.of(tolerance)
    compare(actual, expected, atol=declared.atol, rtol=declared.rtol, of_max=declared.of_max, name=name)


def compare(
    actual: Tensor, expected: Tensor, *, atol: float, rtol: float = 0.0, of_max: float = 0.0, name: str
) -> None:
    """Requires ``|actual - expected| <= atol + rtol |expected| + of_max max|expected|``, element by element.

    Equal infinities agree, and so do two NaN. With all three tolerances 0 the comparison is exact.

    Raises:
        AssertionError: shapes differ or an element is out of tolerance; the message names the worst element.
    """
    if actual.shape != expected.shape:
        raise AssertionError(f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    got, want = actual.detach().cpu().double(), expected.detach().cpu().double()
    same = (got == want) | (got.isnan() & want.isnan())
    error = torch.where(same, torch.zeros_like(got), (got - want).abs())
    # NaN against a number, or infinity against anything else, is an infinite error.
    error = torch.where(error.isnan() | (~want.isfinite() & ~same), torch.full_like(error, torch.inf), error)
    allowed = Tolerance(atol, rtol, of_max).allowed(want)
    bad = error > allowed
    if not bool(bad.any()):
        return
    worst = int(torch.where(bad, error, error.new_full((), -1.0)).argmax())
    position = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), error.shape)) if error.ndim else ()
    raise AssertionError(
        f"{name}: {int(bad.sum())} of {bad.numel()} elements out of tolerance; worst at {position}: "
        f"got {got.flatten()[worst]:.9g}, expected {want.flatten()[worst]:.9g}, "
        f"error {error.flatten()[worst]:.3g} > {allowed.flatten()[worst]:.3g}"
    )
