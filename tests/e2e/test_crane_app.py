"""The Crane app as a visitor sees it: a real browser, a real server, a model with random weights."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmattn.ui.crane import build_app
from tests.e2e.browser import needs_browser, opened_page, served
from tests.vision.crane.tiny import tiny_predictor

pytestmark = [pytest.mark.e2e, needs_browser]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(build_app({"tiny": tiny_predictor()}, examples=[])) as address:
        yield address


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"part_{i}.png")
    return [str(p) for p in sorted(folder.iterdir())]


def score_shown(page: object) -> float:
    return float(page.locator("#crane-verdict .number").inner_text())  # type: ignore[attr-defined]


def test_one_picture_gets_a_score_and_the_threshold_relabels_it_at_once(url: str, pictures: list[str]):
    from playwright.sync_api import expect

    with opened_page(url) as page:
        expect(page.get_by_text("No picture scored yet")).to_be_visible()
        page.set_input_files("#crane-picture input[type=file]", pictures[0])
        page.wait_for_selector("#crane-picture img")
        page.get_by_role("button", name="Find defects").click()
        page.wait_for_selector("#crane-verdict .number", timeout=30_000)
        score = score_shown(page)
        assert 0.0 <= score <= 1.0
        number = page.locator("#crane-threshold input[type=number]")
        number.fill("0")
        number.press("Enter")
        expect(page.locator("#crane-verdict .word")).to_have_text("anomalous")
        number.fill("1")
        number.press("Enter")
        expect(page.locator("#crane-verdict .word")).to_have_text("normal")
        assert score_shown(page) == score
        assert page.locator("#crane-slider img").count() >= 2


def test_several_pictures_make_a_gallery_and_a_download(url: str, pictures: list[str]):
    from playwright.sync_api import expect

    with opened_page(url) as page:
        page.get_by_role("tab", name="Several pictures").click()
        page.set_input_files("#crane-files input[type=file]", pictures)
        expect(page.get_by_text("part_2")).to_be_visible()
        page.get_by_role("button", name="Find defects").click()
        expect(page.locator("#crane-gallery img")).to_have_count(3, timeout=30_000)
        scores = [float(m) for m in re.findall(r"(0\.\d\d) ·", page.locator("#crane-gallery").inner_text())]
        assert scores == sorted(scores, reverse=True)
        with page.expect_download() as download:
            page.get_by_text("Download overlays, maps and scores").click()
        assert Path(download.value.suggested_filename).suffix == ".zip"


def test_running_without_a_picture_shows_a_notice(url: str):
    from playwright.sync_api import expect

    with opened_page(url) as page:
        page.get_by_role("button", name="Find defects").click()
        expect(page.get_by_text("Give a picture first")).to_be_visible(timeout=15_000)


def test_the_page_fits_a_phone(url: str):
    with opened_page(url, width=390, height=844) as page:
        page.wait_for_selector("#crane-run")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
