"""The CRASH app as a visitor sees it: a real browser that plays the video, a camera fed from a file, random weights."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.ui.crash.app import build_app
from tests.e2e.browser import needs_browser, opened_page, served
from tests.ui.crash.parts import tiny_predictor, write_clip

pytestmark = [pytest.mark.e2e, needs_browser]

PATIENCE = 90_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(build_app({"tiny": tiny_predictor()}, examples=[])) as address:
        yield address


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "drive.mp4", seconds=4.0)


def write_y4m(path: Path, frames: int = 20, height: int = 120, width: int = 160) -> Path:
    """A raw video that Chromium shows as its camera: a bright square on grey that moves."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode())
        for t in range(frames):
            luma = np.full((height, width), 90, np.uint8)
            luma[30:80, 3 * t : 3 * t + 40] = 230
            chroma = np.full((2, height // 2, width // 2), 128, np.uint8)
            file.write(b"FRAME\n" + luma.tobytes() + chroma.tobytes())
    return path


def camera_flags(camera: Path) -> list[str]:
    """Chromium's flags for a camera that shows a file and asks nobody."""
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    ]


def set_slider(page: Any, name: str, value: float) -> None:
    number = page.locator(f"#crash-{name} input[type=number]")
    number.fill(str(value))
    number.press("Enter")


def watch(page: Any, clip: Path) -> None:
    page.set_input_files("#crash-input input[type=file]", clip)
    page.wait_for_selector("#crash-input video", timeout=PATIENCE)
    page.get_by_role("button", name="Watch for accidents").click()
    page.wait_for_selector("#crash-curve .line", timeout=PATIENCE)
    page.wait_for_selector("#crash-video video", timeout=PATIENCE)


def cursor(page: Any) -> float:
    """Place of the playhead, 0 to 1."""
    return float(page.evaluate("document.querySelector('#crash-curve .cursor').style.left.replace('%', '') / 100"))


def test_a_clip_is_watched_and_sliders_move_its_alerts_at_once(url: str, clip: Path):
    from playwright.sync_api import expect

    with opened_page(url) as page:
        expect(page.get_by_text("Advisory only.")).to_be_visible()
        expect(page.get_by_text("No video watched yet")).to_be_visible()
        watch(page, clip)
        alerts = page.locator("#crash-curve .alert")
        expect(page.locator("#crash-verdict .number")).not_to_be_empty()
        set_slider(page, "threshold", 1)
        expect(alerts).to_have_count(0, timeout=15_000)
        expect(page.locator("#crash-verdict")).to_contain_text("no alert")
        risk = page.locator("#crash-verdict .number").inner_text()
        set_slider(page, "threshold", 0.2)
        set_slider(page, "persistence", 1)
        set_slider(page, "cooldown", 0)
        expect(alerts).to_have_count(2, timeout=15_000)
        expect(page.locator("#crash-verdict")).to_contain_text("2 alerts, the first at")
        set_slider(page, "cooldown", 10)
        expect(alerts).to_have_count(1, timeout=15_000)
        assert page.locator("#crash-verdict .number").inner_text() == risk
        expect(page.locator("#crash-alarms")).to_contain_text("not known for this model")


def test_the_video_plays_and_the_playhead_follows_it(url: str, clip: Path):
    with opened_page(url) as page:
        watch(page, clip)
        set_slider(page, "threshold", 0)
        set_slider(page, "persistence", 21 - 1)
        page.wait_for_function("document.querySelector('#crash-curve .mm-risk').dataset.alerts.includes('1.9')")
        player = "document.querySelector('#crash-video video')"
        page.wait_for_function(f"{player}.readyState >= 2", timeout=PATIENCE)
        assert page.evaluate(f"[{player}.videoWidth, {player}.videoHeight]") == [320, 180]
        assert page.evaluate(f"{player}.duration") == pytest.approx(4.0, abs=0.11)
        page.evaluate(f"{player}.muted = true; {player}.currentTime = 0; {player}.playbackRate = 1")
        page.evaluate(f"{player}.play()")
        page.wait_for_function(f"{player}.currentTime > 0.6", timeout=PATIENCE)
        page.evaluate(f"{player}.pause()")
        page.wait_for_timeout(200)
        steps = json.loads(page.evaluate("document.querySelector('#crash-curve .mm-risk').dataset.steps"))
        for moment in (page.evaluate(f"{player}.currentTime"), 2.0, 3.0, 0.5):
            page.evaluate(f"{player}.currentTime = {moment}")
            page.wait_for_function(f"Math.abs({player}.currentTime - {moment}) < 0.02 && !{player}.seeking")
            page.wait_for_timeout(200)
            assert cursor(page) == pytest.approx(moment / steps[-1][0], abs=0.02)
            step = max(i for i, row in enumerate(steps) if row[0] <= moment + 0.02)
            near = {f"{row[1]:.2f}" for row in steps[max(step - 1, 0) : step + 2]}
            assert page.locator("#crash-curve .now .risk").inner_text() in near
            assert "%" in page.locator("#crash-curve .now .users").inner_text()
            is_alarm = page.locator("#crash-curve .mm-risk.alarm").count() == 1
            assert is_alarm == (1.9 <= moment < 2.9)


def test_a_click_on_the_curve_moves_the_video(url: str, clip: Path):
    with opened_page(url) as page:
        watch(page, clip)
        player = "document.querySelector('#crash-video video')"
        page.wait_for_function(f"{player}.readyState >= 2", timeout=PATIENCE)
        page.evaluate(f"{player}.pause()")
        plot = page.locator("#crash-curve .plot")
        box = plot.bounding_box()
        plot.click(position={"x": box["width"] * 0.75, "y": box["height"] / 2})
        page.wait_for_function(f"Math.abs({player}.currentTime - 0.75 * 3.9) < 0.15")
        page.wait_for_timeout(300)
        assert cursor(page) == pytest.approx(0.75, abs=0.04)


def test_downloads_are_made_with_the_current_alerts(url: str, clip: Path, tmp_path: Path):
    from playwright.sync_api import expect

    with opened_page(url) as page:
        watch(page, clip)
        set_slider(page, "threshold", 0.25)
        expect(page.locator("#crash-make")).to_be_enabled(timeout=15_000)
        page.locator("#crash-make").click()
        page.wait_for_selector("#crash-files a", timeout=PATIENCE)
        for ending in (".risk.csv", ".overlay.mp4"):
            expect(page.locator("#crash-files")).to_contain_text(ending.split(".")[-1])
        with page.expect_download() as download:
            page.locator("#crash-files a[download*='risk.json']").first.click()
        download.value.save_as(tmp_path / "risk.json")
        content = json.loads((tmp_path / "risk.json").read_text())
        assert content["alert_threshold"] == 0.25
        assert len(content["risk"]) == 40


def test_mistakes_are_notices(url: str, tmp_path: Path):
    from playwright.sync_api import expect

    with opened_page(url) as page:
        page.get_by_role("button", name="Watch for accidents").click()
        expect(page.get_by_text("Give a video first")).to_be_visible(timeout=15_000)


def test_a_camera_is_watched_live(url: str, tmp_path: Path):
    from playwright.sync_api import expect

    with opened_page(url, flags=camera_flags(write_y4m(tmp_path / "road.y4m"))) as page:
        page.get_by_role("tab", name="Webcam, live").click()
        expect(page.get_by_text("The camera is not running")).to_be_visible()
        page.locator("#crash-camera").get_by_text("Click to Access Webcam").click()
        page.locator("#crash-camera").get_by_text("Record").click()
        status = page.locator("#crash-live-status")
        expect(status.locator(".number")).to_be_visible(timeout=PATIENCE)
        page.wait_for_selector("#crash-live-view img", timeout=PATIENCE)

        def watched() -> int:
            return int(status.get_by_text("steps watched").inner_text().split()[0])

        before = watched()
        expect(status).not_to_contain_text(f"{before} steps watched", timeout=PATIENCE)
        page.wait_for_timeout(2000)
        assert watched() > before
        # A picture that has just been replaced is still on its way, and has no size.
        shown = page.wait_for_function(
            "(() => { const i = document.querySelector('#crash-live-view img'); "
            "return i.naturalWidth >= 320 && [i.naturalWidth, i.naturalHeight] })()"
        )
        size = shown.json_value()
        assert size[1] == size[0] * 3 // 4 + 112
        set_slider(page, "threshold", 1)
        expect(status).to_contain_text("0 alerts in the last minute", timeout=PATIENCE)


def test_the_page_fits_a_phone(url: str):
    with opened_page(url, width=390, height=844) as page:
        page.wait_for_selector("#crash-run")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
