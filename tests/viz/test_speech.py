import threading

import numpy as np
import pytest

from mmattn.viz.speech import log_mel, plot_speech

pytest.importorskip("matplotlib", reason="speech is drawn with Matplotlib")

TONE = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)


def picture(tokens: int = 8, frames: int = 50, **options: object) -> np.ndarray:
    weights = np.eye(tokens)[:, np.linspace(0, tokens - 1, frames).round().astype(int)]
    words = [f"w{i // 3}" for i in range(tokens)]
    return plot_speech(TONE, 16_000, weights, list("\u0259" * tokens), words=words, frame_rate=50.0, **options)


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
