"""The Lina app as a visitor meets it: a real browser that plays the stream, downloads, and clones; random weights."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmattn.media.audio import SYNTHETIC_SPEECH, read_audio, read_comment
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.voices import cloning
from mmattn.speech.lina.voices.files import load_voice
from mmattn.ui.lina.app import build_app
from tests.e2e.browser import needs_browser, opened_page, served
from tests.speech.lina.tiny_folder import write_model, write_recording

pytestmark = [pytest.mark.e2e, needs_browser]

PATIENCE = 90_000
LIVE = "document.querySelector('#lina-live audio')"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> LinaPredictor:
    folder = write_model(tmp_path_factory.mktemp("model"))
    return LinaPredictor.from_pretrained(folder, device="cpu").with_options(max_seconds=2.5)


@pytest.fixture(scope="module")
def url(predictor: LinaPredictor) -> Iterator[str]:
    with served(build_app({"tiny": predictor})) as address:
        yield address


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learns a voice in a few steps."""
    monkeypatch.setattr(cloning, "_UPDATES", 6)


def speak(page: Any, text: str) -> None:
    """Clicks "Speak", again if nothing happens: Gradio takes no click until the page has let go of the last text."""
    from playwright.sync_api import TimeoutError as NothingHappened

    page.fill("#lina-text textarea", text)
    for _ in range(20):
        try:
            with page.expect_request("**/queue/join**", timeout=2000):
                page.get_by_role("button", name="Speak", exact=True).click()
        except NothingHappened:
            continue
        return
    raise AssertionError("The page takes no click.")


def wait_until_spoken(page: Any) -> None:
    page.wait_for_selector("#lina-numbers .normal", timeout=PATIENCE)


def notice(page: Any, text: str) -> None:
    """Waits for a notice, and that no traceback is on the page."""
    from playwright.sync_api import expect

    expect(page.locator(".toast-body", has_text=text).first).to_be_visible(timeout=PATIENCE)
    assert "Traceback" not in page.inner_text("body")


def download(page: Any, selector: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(selector).first.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on this machine; `make system-deps` installs it")
def test_a_text_is_heard_while_it_is_spoken_and_can_be_kept(url: str, tmp_path: Path):
    from playwright.sync_api import expect

    with opened_page(url) as page:
        expect(page.get_by_text("Synthetic speech.")).to_be_visible()
        expect(page.locator("#lina-model")).to_contain_text("tiny: 32,")
        speak(page, "Hello there. How are you today? All is well.")
        # The stream is a media source that grows; it plays by itself.
        page.wait_for_function(f"{LIVE}?.src.startsWith('blob:')", timeout=PATIENCE)
        page.wait_for_function(f"{LIVE}.currentTime > 0.3", timeout=PATIENCE)
        wait_until_spoken(page)
        numbers = page.inner_text("#lina-numbers")
        for fact in ("real-time factor", "first sound after", "seed 0", "voice slt", "model tiny"):
            assert fact in numbers
        kept = read_audio(download(page, "#lina-recording a.download-link", tmp_path))
        page.wait_for_function(f"Math.abs({LIVE}.duration - {kept.seconds}) < 0.4", timeout=PATIENCE)
        page.wait_for_function(f"{LIVE}.currentTime > {kept.seconds - 0.5}", timeout=PATIENCE)
        picture = page.locator("#lina-picture img")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.naturalWidth") > 300
        names = page.locator("#lina-files").inner_text()
        assert all(name in names for name in ("speech", "wav", "json", "png"))


def test_the_download_says_that_it_is_synthetic_and_the_seed_repeats_it(url: str, tmp_path: Path):
    with opened_page(url) as page:
        speak(page, "Hello there.")
        wait_until_spoken(page)
        first = download(page, "#lina-recording a.download-link", tmp_path)
        assert first.name == "speech.wav"
        assert read_comment(first) == SYNTHETIC_SPEECH
        before = page.inner_text("#lina-numbers")
        page.get_by_text("Settings", exact=True).first.click()
        page.fill("#lina-seed input", "12")
        page.locator("#lina-seed input").press("Tab")
        speak(page, "Hello there.")
        page.wait_for_function(
            "document.querySelector('#lina-numbers').innerText.includes('seed 12')", timeout=PATIENCE
        )
        assert page.inner_text("#lina-numbers") != before
        page.locator("#lina-random input").check()
        speak(page, "Hi.")
        page.wait_for_function(
            "!['0', '12'].includes(document.querySelector('#lina-seed input').value)", timeout=PATIENCE
        )


def test_a_text_that_cannot_be_spoken_is_a_notice(url: str):
    with opened_page(url) as page:
        speak(page, "  ")
        notice(page, "There is nothing to say yet.")
        speak(page, "*** !!!")
        notice(page, "nothing in this text that can be spoken")
        speak(page, "a" * 2001)
        notice(page, "this page takes up to 2000")


def test_a_long_text_can_be_stopped_and_another_one_spoken(url: str):
    from playwright.sync_api import expect

    with opened_page(url) as page:
        speak(page, "Hello there. How are you today? " * 40)
        expect(page.locator("#lina-numbers")).to_contain_text("Speaking", timeout=PATIENCE)
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(page.locator("#lina-numbers")).to_contain_text("Stopped", timeout=PATIENCE)
        speak(page, "Hi.")
        wait_until_spoken(page)
        assert "model tiny" in page.inner_text("#lina-numbers")


def test_a_voice_is_cloned_from_uploads_and_speaks(url: str, quick: None, tmp_path: Path, predictor: LinaPredictor):
    from playwright.sync_api import expect

    one = write_recording(tmp_path / "one.wav", None, 1.5)
    more = [write_recording(tmp_path / "more.wav", "One more line of text.", 1.5), tmp_path / "more.txt"]
    with opened_page(url) as page:
        page.get_by_role("tab", name="Clone a voice").click()
        page.get_by_role("button", name="Clone the voice").click()
        notice(page, "There are no recordings yet.")
        page.locator("#lina-record button[aria-label='Upload file']").click()
        page.set_input_files("#lina-record input[type=file]", one)
        page.wait_for_selector("#lina-record audio, #lina-record #waveform", state="attached", timeout=PATIENCE)
        page.fill("#lina-said textarea", "Hello there, <b>friend</b>.")
        page.get_by_role("button", name="Add this recording").click()
        expect(page.locator("#lina-recordings li")).to_have_text(
            ["Hello there, <b>friend</b>. (1.5 s)"], timeout=PATIENCE
        )
        expect(page.locator("#lina-said textarea")).to_have_value(
            "She kept a jar of blue buttons on the shelf beside the window."
        )
        page.set_input_files("#lina-several input[type=file]", more)
        expect(page.locator("#lina-recordings li")).to_have_count(2, timeout=PATIENCE)
        page.fill("#lina-name input, #lina-name textarea", "Anna")
        page.get_by_role("button", name="Clone the voice").click()
        notice(page, "A voice is cloned with its owner's consent only.")
        page.fill("#lina-consent textarea", "I, Anna, agree.")
        page.locator("#lina-agreed input").check()
        page.get_by_role("button", name="Clone the voice").click()
        expect(page.locator("#lina-clone-status")).to_contain_text("Anna can speak now", timeout=PATIENCE)
        voice = load_voice(download(page, "#lina-keep", tmp_path), predictor.fingerprint)
        assert (voice.name, voice.consent) == ("Anna", "I, Anna, agree.")
        expect(page.locator("#lina-voice input")).to_have_value("Anna · yours")
        page.get_by_role("tab", name="Speak").click()
        speak(page, "Hello there.")
        page.wait_for_function(
            "document.querySelector('#lina-numbers').innerText.includes('voice Anna')", timeout=PATIENCE
        )
    with opened_page(url) as page:
        # Another visitor does not see it, but may bring the file.
        expect(page.locator("#lina-voice input")).to_have_value("slt")
        page.get_by_role("tab", name="Clone a voice").click()
        page.set_input_files("#lina-voice-file input[type=file]", tmp_path / "Anna.safetensors")
        expect(page.locator("#lina-voice input")).to_have_value("Anna · yours", timeout=PATIENCE)
        (tmp_path / "torn.safetensors").write_bytes(b"no voice")
        page.set_input_files("#lina-voice-file input[type=file]", tmp_path / "torn.safetensors")
        notice(page, "is damaged or no voice file")
        expect(page.locator("#lina-voice input")).to_have_value("Anna · yours")


def test_a_microphone_is_recorded(url: str, tmp_path: Path):
    from playwright.sync_api import expect

    heard = write_recording(tmp_path / "spoken.wav", None, 4.0, rate=48_000)
    flags = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    ]
    with opened_page(url, flags=flags) as page:
        page.context.grant_permissions(["microphone"])
        page.get_by_role("tab", name="Clone a voice").click()
        page.locator("#lina-record").get_by_role("button", name="Record", exact=True).click()
        page.wait_for_timeout(2500)
        page.locator("#lina-record").get_by_role("button", name="Stop").first.click()
        page.wait_for_selector("#lina-record #waveform", state="attached", timeout=PATIENCE)
        page.get_by_role("button", name="Add this recording").click()
        expect(page.locator("#lina-recordings li")).to_have_count(1, timeout=PATIENCE)
        assert "The old ferry" in page.inner_text("#lina-recordings li")


def test_without_ffmpeg_the_page_says_so_and_plays_the_whole_text(
    predictor: LinaPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from playwright.sync_api import expect

    known = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, *args, **kw: None if name == "ffmpeg" else known(name, *args, **kw)
    )
    with served(build_app({"tiny": predictor})) as address, opened_page(address) as page:
        expect(page.locator("#lina-no-stream")).to_contain_text("ffmpeg is not installed")
        speak(page, "Hello there.")
        wait_until_spoken(page)
        assert page.locator("#lina-live").count() == 0
        # It begins to play by itself.
        page.wait_for_selector("#lina-recording button[aria-label='Pause']", timeout=PATIENCE)
        assert read_audio(download(page, "#lina-recording a.download-link", tmp_path)).sample_rate == 8000
        expect(page.locator("#lina-picture img")).to_be_visible()


def test_the_page_fits_a_phone(url: str):
    with opened_page(url, width=390, height=844) as page:
        page.wait_for_selector("#lina-run")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
