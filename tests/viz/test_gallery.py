import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mmattn.media.image import write_png
from mmattn.viz.gallery import GalleryItem, write_gallery

ITEMS = [
    GalleryItem("low.png", 0.2, None, {"input": "in/low.png", "overlay": "out/low.png"}),
    GalleryItem("high.png", 0.9, "anomalous", {"input": "in/high.png"}, {"seconds": 0.25}),
    GalleryItem("broken.png", error="broken.png is truncated."),
    GalleryItem("unscored.png", label="bottle"),
]


class Page(HTMLParser):
    """Collects start tags as ``(name, attributes)`` and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(tmp_path: Path, items: list[GalleryItem], **options: object) -> Page:
    return Page(write_gallery(tmp_path, items, **options).read_text(encoding="utf-8"))  # type: ignore[arg-type]


def test_cards_stand_by_score_and_failures_last(tmp_path: Path) -> None:
    cards = page(tmp_path, ITEMS, threshold=0.5).all("article")
    assert [card["data-title"] for card in cards] == ["high.png", "low.png", "unscored.png", "broken.png"]
    assert [card["class"] for card in cards] == ["card above", "card below", "card plain", "card failed"]


def test_the_header_counts_each_kind(tmp_path: Path) -> None:
    html = write_gallery(tmp_path, ITEMS, threshold=0.5).read_text(encoding="utf-8")
    assert dict(re.findall(r'id="count-(\w+)">(\d+)<', html)) == {"all": "4", "above": "1", "below": "1", "failed": "1"}


def test_only_a_score_above_the_threshold_gets_the_second_label(tmp_path: Path) -> None:
    found = page(tmp_path, [GalleryItem("a", 0.5), GalleryItem("b", 0.51)], threshold=0.5, labels=("calm", "risky"))
    assert [card["class"].split()[-1] for card in found.all("article")] == ["above", "below"]


def test_bars_and_threshold_share_one_scale(tmp_path: Path) -> None:
    found = page(tmp_path, [GalleryItem("a", -1.0), GalleryItem("b", 3.0), GalleryItem("c", 1.0)], threshold=2.0)
    assert [bar["style"] for bar in found.all("i")] == ["--value: 100.00%", "--value: 50.00%", "--value: 0.00%"]
    assert found.all("body")[0]["style"] == "--threshold: 75.00%"
    slider = next(tag for tag in found.all("input") if tag["type"] == "range")
    assert (slider["min"], slider["max"], slider["value"]) == ("-1", "3", "2")


def test_numpy_scores_are_written_as_plain_numbers(tmp_path: Path) -> None:
    card = page(tmp_path, [GalleryItem("a", np.float32(0.25))], threshold=0.2).all("article")[0]  # type: ignore[arg-type]
    assert card["data-score"] == "0.25"


def test_without_a_threshold_items_keep_their_own_labels(tmp_path: Path) -> None:
    found = page(tmp_path, ITEMS)
    assert "anomalous" in found.text
    assert "bottle" in found.text
    assert [tag for tag in found.all("input") if tag["type"] == "range"] == []


def test_an_order_by_score_is_offered_only_where_there_are_scores(tmp_path: Path) -> None:
    assert [tag["id"] for tag in page(tmp_path, ITEMS).all("select")] == ["order"]
    found = page(tmp_path, [GalleryItem("b.wav"), GalleryItem("c.wav", error="It is empty."), GalleryItem("a.wav")])
    assert found.all("select") == []
    assert "Highest first" not in found.text
    assert [card["data-title"] for card in found.all("article")] == ["a.wav", "b.wav", "c.wav"]


def test_all_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    item = GalleryItem(evil, 0.5, evil, {evil: "a.png"}, {evil: evil})
    found = page(tmp_path, [item, GalleryItem(evil, error=evil)], title=evil, note=evil, threshold=0.1)
    assert len(found.all("script")) == 1
    assert found.all("article")[0]["data-title"] == evil
    assert json.loads(found.all("article")[0]["data-media"] or "")[0]["name"] == evil


def test_paths_are_quoted_so_that_odd_names_still_load(tmp_path: Path) -> None:
    pictures = {"input": "in/50% #1 ?.png", "overlay": "javascript:alert(1).png"}
    found = page(tmp_path, [GalleryItem("a", 0.1, pictures=pictures)])
    assert [tag["src"] for tag in found.all("img")] == ["in/50%25%20%231%20%3F.png", "javascript%3Aalert%281%29.png"]


def test_pictures_load_lazily_and_have_a_text_alternative(tmp_path: Path) -> None:
    pictures = page(tmp_path, ITEMS).all("img")
    assert {tag["loading"] for tag in pictures} == {"lazy"}
    assert [tag["alt"] for tag in pictures] == ["high.png, input", "low.png, input", "low.png, overlay"]


@pytest.mark.parametrize(("path", "tag"), [("a.mp4", "video"), ("a.WEBM", "video"), ("a.wav", "audio")])
def test_videos_and_sound_get_controls(path: str, tag: str, tmp_path: Path) -> None:
    players = page(tmp_path, [GalleryItem("a", 0.1, pictures={"result": path})]).all(tag)
    assert len(players) == 1
    assert "controls" in players[0]
    assert players[0]["src"] == path


def test_pictures_stand_under_the_player(tmp_path: Path) -> None:
    found = page(tmp_path, [GalleryItem("a", 0.1, pictures={"video": "a.mp4", "risk": "a.png", "strip": "b.png"})])
    assert [tag["src"] for tag in found.all("img")] == ["a.png", "b.png"]
    assert [tag["data-index"] for tag in found.all("button") if "data-index" in tag] == ["1", "2"]


def test_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    html = write_gallery(tmp_path, ITEMS, threshold=0.5).read_text(encoding="utf-8")
    assert "://" not in html
    assert "default-src 'none'" in html
    assert Page(html).all("link") == []


def test_an_empty_gallery_says_so(tmp_path: Path) -> None:
    found = page(tmp_path, [], threshold=0.5)
    assert "There are no results yet." in found.text
    assert found.all("article") == []


def test_the_page_goes_into_a_folder_or_a_named_file(tmp_path: Path) -> None:
    assert write_gallery(tmp_path / "run", []) == tmp_path / "run" / "index.html"
    assert write_gallery(tmp_path / "page.html", []) == tmp_path / "page.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run"]


@pytest.mark.parametrize("path", ["/etc/passwd", "C:\\a.png", ""])
def test_absolute_paths_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be relative to the page"):
        write_gallery(tmp_path, [GalleryItem("a", pictures={"input": path})])


def test_scores_and_threshold_have_to_be_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="score of 'a' is nan"):
        write_gallery(tmp_path, [GalleryItem("a", float("nan"))])
    with pytest.raises(ValueError, match="threshold must be a finite number, got inf"):
        write_gallery(tmp_path, [], threshold=float("inf"))


@pytest.mark.e2e
def test_the_page_works_in_a_browser_without_a_single_request(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser with Playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs the program chromium (make system-deps)")
    for name in ("in/low.png", "out/low.png", "in/high.png"):
        write_png(tmp_path / name, np.full((8, 8, 3), 99, dtype=np.uint8))
    url = write_gallery(tmp_path, ITEMS, threshold=0.5).as_uri()
    problems: list[str] = []
    with (
        playwright.sync_playwright() as api,
        api.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: request.url.startswith("file:") or problems.append(request.url))
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("document.querySelector('img').naturalWidth") == 8

        page.evaluate("t = document.querySelector('#threshold'); t.value = 0.1; t.dispatchEvent(new Event('input'))")
        assert page.locator(".card.above .chip").all_inner_texts() == ["anomalous", "anomalous"]
        assert page.inner_text("#count-above") == "2"

        page.select_option("#order", "low")
        assert [card.get_attribute("data-title") for card in page.locator(".card").all()][:2] == ["low.png", "high.png"]
        page.fill("#query", "HIGH")
        assert page.locator(".card:visible").count() == 1

        page.fill("#query", "")
        page.locator("button.stage").first.click()
        assert page.locator("dialog h2").inner_text() == "low.png"
        assert page.locator("dialog img").get_attribute("src") == "out/low.png"
        page.keyboard.press("ArrowRight")
        assert page.locator("dialog h2").inner_text() == "high.png"
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()

        # Without scores there is no order to choose, and the rest of the page works all the same.
        page.goto(write_gallery(tmp_path / "plain.html", [GalleryItem("a.wav"), GalleryItem("b.wav")]).as_uri())
        assert page.locator("#order").count() == 0
        page.fill("#query", "B.")
        assert page.locator(".card:visible").all_inner_texts() == ["b.wav"]
    assert problems == []
