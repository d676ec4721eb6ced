"""Scaling plots."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmattn.bench.plots import loglog_slope, plot_scaling


def test_slope_of_a_power_law_is_its_exponent():
    assert loglog_slope([(n, 3e-9 * n**2) for n in (256, 512, 2048)]) == pytest.approx(2.0)


def test_slope_of_one_point_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        loglog_slope([(1024, 1.0)])


def test_plot_draws_every_series_in_its_own_colour(tmp_path: Path):
    path = tmp_path / "made" / "scaling.png"
    plot_scaling(path, {"a": [(1024, 0.1), (2048, 0.2)], "b": [(1024, 0.1), (2048, 0.4)]}, title="time against length")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == colour).all(axis=1).sum() > 50
