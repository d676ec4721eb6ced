"""docs/accident_metrics.md says what our code computes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accident_metrics_page", DOCS / "accident_metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_page_is_what_the_script_prints(script: ModuleType) -> None:
    assert script.table() in (DOCS / "accident_metrics.md").read_text(encoding="utf-8")


def test_the_picture_shows_both_scorers(script: ModuleType, tmp_path: Path) -> None:
    script.draw(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for _, colour in script.SCORERS.values():
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(axis=1).sum() > 100
    assert (DOCS / "images/accident_metrics.png").is_file()
