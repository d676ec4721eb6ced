import re
import subprocess
import sys

import numpy as np
import pytest

from mmattn.viz.curves import plot_curve, plot_histogram, plot_reliability

pytest.importorskip("matplotlib", reason="curves are drawn with Matplotlib")

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def is_color(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.asarray((np.abs(picture.astype(int) - color) <= 3).all(axis=-1))


def test_the_picture_has_the_size_asked_for() -> None:
    picture = plot_curve([0, 1], [0, 1], size=(240, 500))
    assert picture.dtype == np.uint8
    assert picture.shape == (240, 500, 3)
    assert plot_histogram([1, 2], [3], size=(111, 222)).shape == (111, 222, 3)


def test_a_rising_curve_rises_on_the_picture() -> None:
    rows, columns = np.nonzero(is_color(plot_curve(np.arange(50), np.linspace(0, 1, 50)), BLUE))
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    assert columns.max() - columns.min() > 600


def test_the_scale_is_fixed_so_a_quiet_curve_looks_quiet() -> None:
    quiet, loud = ([0.0, 0.1, 0.0], [0.0, 0.9, 0.0])
    heights = [np.ptp(np.nonzero(is_color(plot_curve([0, 1, 2], y), BLUE))[0]) for y in (quiet, loud)]
    assert heights[1] > 6 * heights[0]


def test_events_are_vertical_lines_at_their_time() -> None:
    marked = is_color(plot_curve([0.0, 10.0], [0.2, 0.2], events={"accident": 5.0}), VERMILION)
    column = int(marked.sum(axis=0).argmax())
    assert marked[:, column].sum() > 150
    curve = np.nonzero(is_color(plot_curve([0.0, 10.0], [0.2, 0.2]), BLUE))[1]
    assert abs(column - (curve.min() + curve.max()) / 2) < 3


def test_the_curve_is_filled_only_where_it_is_above_the_threshold() -> None:
    def filled(values: list[float]) -> int:
        picture = plot_curve([0, 1, 2, 3], values, threshold=0.5).astype(int)
        return int(((picture[..., 0] - picture[..., 2]) > 30).sum())

    assert filled([0.1, 0.4, 0.4, 0.1]) == 0
    assert filled([0.1, 0.9, 0.9, 0.1]) > 2000


def test_nan_leaves_a_gap() -> None:
    x = np.arange(9.0)
    gap = np.full(9, 0.5)
    gap[3:6] = np.nan
    whole, broken = (is_color(plot_curve(x, y), BLUE).any(axis=0).sum() for y in (np.full(9, 0.5), gap))
    assert broken == pytest.approx(whole / 2, rel=0.05)


def test_one_point_and_only_nan_are_drawn_without_error() -> None:
    assert is_color(plot_curve([2.0], [0.5]), BLUE).sum() > 10
    assert is_color(plot_curve([0.0, 1.0], [np.nan, np.nan], threshold=0.5), BLUE).sum() == 0


def test_the_same_input_gives_the_same_pixels() -> None:
    options = {"threshold": 0.4, "events": {"a $b$ \\frac": 1.0}, "title": "cost $5 & more_"}
    first, second = (plot_curve([0, 1, 2], [0.1, 0.8, 0.3], **options) for _ in range(2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, second)


def test_the_two_groups_of_a_histogram_have_their_colours_and_places() -> None:
    picture = plot_histogram([0.1, 0.12, 0.15], [0.8, 0.9], threshold=0.5)
    # The right end holds the legend's strokes too; the bars are the lowest pixels.
    low = picture[-80:-60]
    blue, vermilion = np.nonzero(is_color(low, BLUE))[1], np.nonzero(is_color(low, VERMILION))[1]
    assert blue.max() < vermilion.min()


def test_labels_stay_inside_when_their_line_is_at_the_right_end() -> None:
    with_line = is_color(plot_curve([0.0, 10.0], [0.2, 0.2], events={"the accident": 9.8}), VERMILION)
    column = int(with_line.sum(axis=0).argmax())
    assert with_line[:, column - 90 : column - 4].sum() > 5
    assert with_line[:, column + 4 :].sum() == 0


def test_pyplot_is_not_loaded() -> None:
    script = "from mmattn.viz.curves import plot_curve; plot_curve([0, 1], [0, 1]); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "matplotlib.figure" in done.stdout.split()
    assert "matplotlib.pyplot" not in done.stdout.split()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([0, 1], [0], "one length above 0, got (2,) and (1,)"),
        ([], [], "one length above 0, got (0,) and (0,)"),
        ([1, 0], [0, 0], "finite and increasing"),
        ([0, np.nan], [0, 0], "finite and increasing"),
        ([0, 1], [0, np.inf], "must not be infinite"),
    ],
)
def test_unusable_curves_are_explained(x: list[float], y: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        plot_curve(x, y)


def test_unusable_histograms_are_explained() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        plot_histogram([], [])
    with pytest.raises(ValueError, match="2 of which 1 are not"):
        plot_histogram([np.nan], [1.0])
    with pytest.raises(ValueError, match=r"at least \(100, 100\) pixels"):
        plot_histogram([1.0], size=(50, 500))


def test_a_spread_is_a_band_behind_the_curve() -> None:
    x, y = np.arange(5.0), np.full(5, 0.5)
    plain, banded = plot_curve(x, y), plot_curve(x, y, spread=np.full(5, 0.2))
    assert (plain != banded).any(-1).mean() > 0.1
    with pytest.raises(ValueError, match="spread as long as the curve"):
        plot_curve(x, y, spread=[0.1])


def test_a_reliability_diagram_marks_the_bins_that_hold_something() -> None:
    edges, counts = [0.0, 0.5, 1.0], [3, 0]
    picture = plot_reliability(edges, counts, [0.25, np.nan], [1.0, np.nan], size=(300, 320))
    assert picture.shape == (300, 320, 3)
    full = plot_reliability(edges, [3, 4], [0.25, 0.75], [1.0, 0.5], size=(300, 320))
    assert (picture != full).any()
    with pytest.raises(ValueError, match="Got 3 edges for 1, 2 and 2 bins"):
        plot_reliability(edges, [3], [0.2, 0.3], [0.1, 0.2])
