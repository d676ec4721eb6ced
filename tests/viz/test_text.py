import numpy as np
import pytest

from mmattn.viz.text import draw_text, label, text_size

WHITE = np.full((40, 120, 3), 255, dtype=np.uint8)


def test_text_appears_at_its_place_in_its_colour() -> None:
    drawn = draw_text(WHITE, "HHH", (60, 20), color=(255, 0, 0), anchor="lm")
    changed = (drawn != WHITE).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert columns.min() >= 60
    assert columns.max() < 60 + text_size("HHH")[0]
    assert abs((rows.min() + rows.max()) / 2 - 20) <= 2
    assert (drawn[..., 0] == 255).all()
    assert (WHITE == 255).all()


def test_twice_the_size_takes_twice_the_width() -> None:
    assert text_size("anomaly", 28)[0] == pytest.approx(2 * text_size("anomaly", 14)[0], abs=3)


def test_text_too_wide_for_the_picture_is_shortened() -> None:
    labelled = label(WHITE, "a very long name that does not fit.png")
    assert labelled.shape[1] == 120
    assert (labelled[-40:] == 255).all()
    assert labelled[:-40].min() < 100


def test_greyscale_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"uint8 RGB picture \(H, W, 3\), got uint8 \(4, 4\)"):
        draw_text(np.zeros((4, 4), dtype=np.uint8), "x", (0, 0))
