import threading
import warnings

import numpy as np
import pytest

from mmattn.viz.speech import log_mel, plot_speech

pytest.importorskip("matplotlib", reason="labels are written in a font of Matplotlib's")

TONE = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)


def picture(tokens: int = 8, frames: int = 50, title: str = "") -> np.ndarray:
    weights = np.eye(tokens)[:, np.linspace(0, tokens - 1, frames).round().astype(int)]
    words = [f"w{i // 3}" for i in range(tokens)]
    return plot_speech(TONE, 16_000, weights, list("\u0259" * tokens), words=words, frame_rate=50.0, title=title)


def bright(image: np.ndarray) -> np.ndarray:
    """Where the picture has the two brightest colours of its scale."""
    return np.asarray((image[..., 0] > 240) & (image[..., 1] > 200) & (image[..., 2] < 190))


def test_a_tone_is_loudest_in_the_band_of_its_frequency() -> None:
    power = log_mel(TONE, 16_000)
    assert power.shape == (80, 100)
    mel = 2595 * np.log10(1 + 1000 / 700)
    top = 2595 * np.log10(1 + 8000 / 700)
    assert abs(power[:, 50].argmax() - (mel / top * 81 - 1)) <= 1
    assert power[:, 50].max() - np.median(power[:, 50]) > 60


def test_silence_and_single_samples_have_a_spectrum() -> None:
    assert np.isfinite(log_mel(np.zeros(1), 16_000)).all()
    assert log_mel(np.zeros(1000), 1000, bands=10).shape == (10, 100)


def test_an_alignment_runs_from_the_lower_left_to_the_upper_right() -> None:
    image = picture()
    assert image.dtype == np.uint8
    assert image.ndim == 3
    lower = image[300:]
    rows, columns = np.nonzero(bright(lower))
    assert np.corrcoef(rows, columns)[0, 1] < -0.95


def test_the_picture_grows_with_text_and_time_up_to_a_limit() -> None:
    small, tall, huge = picture(), picture(tokens=40), picture(tokens=500, frames=1000)
    assert small.shape[1] == 760
    assert tall.shape[0] > small.shape[0] + 300
    assert huge.shape[0] < 1250
    assert huge.shape[1] == 1800


def test_a_title_with_dollars_is_drawn_as_it_is() -> None:
    assert picture(title="costs $5 or $6").shape[0] == picture().shape[0] + 30


def test_letters_the_font_lacks_are_question_marks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = picture(title="one \u4f60\u597d, two \u6211")
    assert np.array_equal(image, picture(title="one ?, two ?"))
    assert not np.array_equal(image, picture(title="one \u043c, two ?"))  # Cyrillic it has


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0, 7.0, 100.0])
def test_every_length_has_a_time_axis(seconds: float) -> None:
    samples = np.zeros(max(1, round(1000 * seconds)))
    image = plot_speech(samples, 1000, np.ones((3, max(1, round(50 * seconds)))), list("abc"), frame_rate=50.0)
    below = image[-40:-28]  # where the numbers of the ticks are
    assert 2 <= np.count_nonzero(np.diff((below.min(axis=(0, 2)) < 128).astype(int)) == 1) <= 80


def test_sound_ends_where_it_ends() -> None:
    image = plot_speech(TONE[:8000], 16_000, np.ones((3, 50)), list("abc"), frame_rate=50.0)
    row = image[30, 80:700].sum(axis=1)
    assert (row[:200] < 700).all()
    assert (row[-200:] == 765).all()


def test_no_frames_leave_an_empty_panel() -> None:
    image = plot_speech(TONE, 16_000, np.zeros((3, 0)), ["^", "a", "$"], frame_rate=50.0)
    assert not bright(image[300:]).any()


def test_the_same_speech_gives_the_same_picture_in_any_thread() -> None:
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(picture())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(found[0], found[1])


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"samples \(0,\)"):
        plot_speech([], 16_000, np.eye(2), ["a", "b"], frame_rate=50.0)
    with pytest.raises(ValueError, match="1 symbols and 0 words for 2 rows"):
        plot_speech(TONE, 16_000, np.eye(2), ["a"], frame_rate=50.0)
    with pytest.raises(ValueError, match="finite"):
        plot_speech(TONE, 16_000, np.full((2, 2), np.nan), ["a", "b"], frame_rate=50.0)
