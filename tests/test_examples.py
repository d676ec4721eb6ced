"""The examples run as a reader would run them, on the CPU, and leave what they promise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmattn.media.audio import SYNTHETIC_SPEECH, read_audio, read_comment
from mmattn.media.image import read_image

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Output folder and printed text of every example."""
    outcomes = {}
    for example in EXAMPLES:
        folder = tmp_path_factory.mktemp("examples") / example.stem
        result = subprocess.run(
            [sys.executable, str(example.relative_to(ROOT)), str(folder)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, f"{example.name}\n{result.stderr}"
        outcomes[example.stem] = folder, result.stdout
    return outcomes


def test_crane_outlines_the_defects(ran: dict[str, tuple[Path, str]]) -> None:
    folder, text = ran["crane"]
    assert re.search(r"grass_flawless.*flawless", text)
    assert re.search(r"leather_cut.*damaged", text)
    names = ("grass_flawless", "leather_cut", "tile_misprint")
    assert all(read_image(folder / f"{name}.jpg.overlay.png").shape[-1] == 3 for name in names)


def test_crash_sees_the_collision_coming(ran: dict[str, tuple[Path, str]]) -> None:
    folder, text = ran["crash"]
    assert "ALERT" in text
    risks = [step["risk"] for step in json.loads((folder / "risk.json").read_text())]
    assert min(risks) < 0.5 < max(risks)
    assert read_image(folder / "risk.png").shape == (300, 800, 3)


def test_lina_speaks_both_sentences(ran: dict[str, tuple[Path, str]]) -> None:
    folder, text = ran["lina"]
    assert "read in order: True" in text
    assert 2 < read_audio(folder / "river.wav").seconds < 8
    assert read_comment(folder / "river.wav") == SYNTHETIC_SPEECH
    assert read_image(folder / "river.png").size > 0


def test_blocks_chosen_by_content_come_near_dense_attention(ran: dict[str, tuple[Path, str]]) -> None:
    folder, text = ran["kernels"]
    away = {name: float(number) for name, number in re.findall(r"(\w+): .* ([\d.]+)% away", text)}
    assert away["chosen"] < 10 < away["window"]
    assert read_image(folder / "masks.png").size > 0


def test_the_layer_learns_to_look_things_up(ran: dict[str, tuple[Path, str]]) -> None:
    folder, text = ran["training"]
    right = re.search(r"(\d+)% of 500", text)
    assert right is not None
    assert int(right[1]) > 95
    assert read_image(folder / "loss.png").size > 0


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_is_short_and_the_readme_leads_to_it(example: Path) -> None:
    lines = [line for line in example.read_text("utf-8").splitlines() if line.strip()]
    assert 15 <= len(lines) <= 40
    assert f"](examples/{example.name})" in (ROOT / "README.md").read_text("utf-8")
