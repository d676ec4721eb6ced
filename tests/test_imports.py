"""The law of floors and rooms: imports go down only, relative ones and those inside functions included."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from mmattn.commands.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mmattn"
# A package may import its own floor and those below.
FLOORS = [
    {"mmattn.kernels", "mmattn.errors"},
    {"mmattn.attention", "mmattn.layers", "mmattn.drawing", "mmattn.media", "mmattn.metrics", "mmattn.viz"},
    {"mmattn.core", "mmattn.integrations"},
    {"mmattn.vision", "mmattn.video", "mmattn.speech"},
    {"mmattn.ui", "mmattn.bench"},
    {"mmattn.cli", "mmattn.commands", "mmattn.__main__"},
]
HEAVY = {"gradio", "transformers", "diffusers", "lightning"}
LIGHT = FLOORS[0] | FLOORS[1]
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({file.parent for file in MODULES})
# Opened first by a reader of a system, and what users, the command line and YAML import: their paths do not change.
DOORS = {"commands", "config", "data", "losses", "model", "predictor", "results", "task"}
# The same work has the same room in every system.
ROOMS = {"datasets", "evaluation", "network", "synthetic", "training", "weights"}
SMALLEST_ROOM, LARGEST_ROOM = 3, 15


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, name: str) -> Iterator[tuple[int, str]]:
    """Yields (line, full name) of everything a module imports, relative imports resolved."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def below(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def floor(name: str) -> int | None:
    return next((level for level, packages in enumerate(FLOORS) if below(name, packages)), None)


def violations(file: Path) -> list[str]:
    name = module_name(file)
    level, found = floor(name), []
    own = next((system for system in SYSTEMS.values() if below(name, {system})), None)
    for line, target in imports(file, name):
        where = f"{file.name}:{line} {name} imports {target}"
        other = floor(target)
        if level is not None and other is not None and other > level:
            found.append(f"{where}: upwards")
        if own is not None and below(target, set(SYSTEMS.values()) - {own}):
            found.append(f"{where}: another system")
        if (name == "mmattn" or below(name, LIGHT)) and target.partition(".")[0] in HEAVY:
            found.append(f"{where}: too heavy for this floor")
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_imports_its_own_floor_and_below(file: Path) -> None:
    assert violations(file) == []


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_every_module_has_a_floor(file: Path) -> None:
    name = module_name(file)
    assert name == "mmattn" or floor(name) is not None


@pytest.mark.parametrize(
    ("name", "source", "problem"),
    [
        ("media/x.py", "from mmattn.core.device import resolve_device", "upwards"),
        ("media/x.py", "from ..core import errors", "upwards"),
        ("media/__init__.py", "from ..vision.crane import model", "upwards"),
        ("kernels/backends/x.py", "def f():\n    import mmattn.viz.gallery", "upwards"),
        ("core/x.py", "from mmattn import ui", "upwards"),
        ("vision/other/x.py", "from ..crane.model import CraneModel", "another system"),
        ("viz/x.py", "def f():\n    from transformers.models import clip", "too heavy"),
    ],
)
def test_the_rules_catch_what_they_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, problem: str
) -> None:
    monkeypatch.setattr("tests.test_imports.ROOT", tmp_path)
    monkeypatch.setitem(SYSTEMS, "other", "mmattn.vision.other")
    file = tmp_path / "mmattn" / name
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert [text.rpartition(": ")[2].startswith(problem) for text in violations(file)] == [True]


def entries(folder: Path) -> list[str]:
    """Modules and packages in a folder, by name."""
    files = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
    return sorted(files + [file.parent.name for file in folder.glob("*/__init__.py")])


def circle(folder: Path) -> str:
    """Returns a circle among the modules and rooms of a folder, import by import; empty if there is none."""
    top, graph, places = module_name(folder / "__init__.py"), defaultdict(set), {}
    for file in folder.rglob("*.py"):
        name = module_name(file)
        for line, target in imports(file, name):
            if below(name, {top}) and below(target, {top}) and top not in (name, target):
                source, other = (text.removeprefix(f"{top}.").split(".")[0] for text in (name, target))
                if source != other and other in entries(folder):
                    graph[source].add(other)
                    places[source, other] = f"{name}:{line} imports {target}"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring = error.args[1]
        return "; ".join(places[source, other] for other, source in pairwise(ring))
    return ""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_no_circle_runs_between_the_rooms_and_modules_of_a_folder(folder: Path) -> None:
    assert circle(folder) == ""


def test_a_circle_between_rooms_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_imports.ROOT", tmp_path)
    folder = tmp_path / "mmattn" / "vision" / "other"
    for name, source in {
        "__init__": "",
        "network/__init__": "",
        "network/a": "def f():\n    from mmattn.vision.other.weights import b",
        "weights/__init__": "",
        "weights/b": "from mmattn.vision.other.model import Model",
        "model": "from mmattn.vision.other.network.c import Part",
    }.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    found = circle(folder)
    assert "network.a:2 imports mmattn.vision.other.weights.b" in found
    assert "model:1 imports mmattn.vision.other.network.c" in found


@pytest.mark.parametrize("package", SYSTEMS.values())
def test_a_system_has_its_doors_and_the_rooms_that_all_have(package: str) -> None:
    found = set(entries(ROOT / package.replace(".", "/")))
    assert found >= DOORS | ROOMS


@pytest.mark.parametrize(
    "folder", [f for f in FOLDERS if len(f.relative_to(PACKAGE).parts) > 1], ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_a_room_is_neither_a_cupboard_nor_a_hall(folder: Path) -> None:
    rooms = entries(folder)
    if module_name(folder / "__init__.py") in SYSTEMS.values():
        rooms = [name for name in rooms if name not in DOORS]
    assert SMALLEST_ROOM <= len(rooms) <= LARGEST_ROOM


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_repeats_the_name_of_its_folder(file: Path) -> None:
    assert not file.stem.startswith(file.parent.name)


def loaded(statement: str) -> set[str]:
    """Returns the top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded("import mmattn") & (HEAVY | {"torch", "numpy", "PIL", "huggingface_hub", "safetensors"})


def test_importing_the_lower_floors_loads_no_heavy_package() -> None:
    names = [name for name in (module_name(file) for file in MODULES) if below(name, LIGHT)]
    assert not loaded("\n".join(f"import {name}" for name in names)) & HEAVY


def test_what_the_command_line_reads_of_a_system_needs_no_torch() -> None:
    modules = [f"{package}.{part}" for package in SYSTEMS.values() for part in ("config", "commands")]
    assert not loaded("\n".join(f"import {name}" for name in modules)) & (HEAVY | {"torch", "numpy"})
