"""The pages about the kernels: every block of code runs, every number in the table is the recorded one."""

import importlib.util
import json
import re
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

import mmattn.kernels

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "kernels.md", *sorted((DOCS / "kernels").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), flags=re.S | re.M))
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernel_docs", DOCS / "kernels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_code_runs_as_it_stands(block: str) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        exec(compile(block, "a page about the kernels", "exec"), {})


def test_every_family_has_code_and_a_porting_table() -> None:
    for page in PAGES[1:]:
        text = page.read_text("utf-8")
        assert [part for part in ("```python", "## Forms", "## Coming from") if part not in text] == [], page.name


def test_every_public_kernel_is_on_a_page() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    missing = [name for name in mmattn.kernels.__all__ if f"`{name}" not in text and f"{name}(" not in text]
    assert missing == []


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name


def test_the_table_is_the_recorded_results(script: ModuleType) -> None:
    assert script.table() in (DOCS / "kernels.md").read_text("utf-8")


def test_no_recorded_comparison_is_left_out(script: ModuleType) -> None:
    for name in script.RECORDED:
        record = json.loads((script.RESULTS / f"{name}.json").read_text())
        expected = [(e["case"], e["peer"]) for e in record["comparisons"] if e["threads"] == 1]
        assert [(row.case, row.peer) for row in script.rows(name)] == expected


def test_the_picture_is_drawn_from_them(script: ModuleType, tmp_path: Path) -> None:
    script.draw(tmp_path / "kernels.png")
    with Image.open(tmp_path / "kernels.png") as drawn, Image.open(script.PICTURE) as kept:
        assert drawn.size == kept.size
