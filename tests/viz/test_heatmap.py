import numpy as np
import pytest

from mmattn.viz.heatmap import colorbar, colorize, colormap_table, contour, overlay, side_by_side

GREY = np.full((2, 2, 3), 100, dtype=np.uint8)
MAP = np.array([[0.0, 0.25], [0.5, 1.0]])


def test_the_default_range_is_fixed_so_a_quiet_map_stays_dark() -> None:
    blended = overlay(GREY, np.full((2, 2), 0.01))
    assert blended.max() <= 55
    assert overlay(GREY, MAP)[1, 1].tolist() == [(100 + 252) // 2, (100 + 255) // 2, (100 + 164) // 2]


def test_jet_has_its_known_corner_colours() -> None:
    colors = colorize(MAP, colormap="jet")
    assert colors.tolist() == [[[0, 0, 128], [0, 124, 255]], [[126, 255, 130], [128, 0, 0]]]


def test_jet_is_opencvs_jet() -> None:
    cv2 = pytest.importorskip("cv2", reason="the reference table is OpenCV's")
    levels = np.arange(256, dtype=np.uint8)[:, None]
    table = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[:, 0, ::-1].astype(int)
    # OpenCV's table has one irregular entry, the blue of level 159.
    assert np.abs(table - colormap_table("jet")).max() <= 1


@pytest.mark.parametrize("name", ["inferno", "turbo"])
def test_the_tables_follow_the_published_colormaps(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="the reference tables are Matplotlib's")
    expected = matplotlib.colormaps[name](np.arange(256))[:, :3] * 255
    assert np.abs(colormap_table(name) - expected).max() <= 2.5  # type: ignore[arg-type]


def test_inferno_grows_brighter_with_every_value() -> None:
    luminance = colormap_table("inferno") @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance[::8]) > 0).all()


def test_none_scales_the_map_to_its_own_extremes() -> None:
    scaled = overlay(GREY, MAP * 0.01 + 3, vmin=None, vmax=None, colormap="jet")
    np.testing.assert_array_equal(scaled, overlay(GREY, MAP, colormap="jet"))


@pytest.mark.parametrize("value", [0.0, 0.3, -5.0])
def test_a_constant_map_scaled_to_itself_is_the_lowest_colour(value: float) -> None:
    colors = colorize(np.full((2, 2), value), vmin=None, vmax=None, colormap="jet")
    assert (colors == [0, 0, 128]).all()


def test_values_outside_the_range_are_clipped() -> None:
    colors = colorize([[-9.0, 9.0]], vmin=2, vmax=4, colormap="jet")
    assert colors.tolist() == [[[0, 0, 128], [128, 0, 0]]]


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 100), (1.0, 0), (0.25, 75)])
def test_alpha_weighs_the_colours(alpha: float, expected: int) -> None:
    assert overlay(GREY, np.zeros((2, 2)), alpha=alpha, colormap="jet")[0, 0, 0] == expected


def test_fading_keeps_the_picture_where_the_map_is_low() -> None:
    faded = overlay(GREY, MAP, fade=True)
    assert faded[0, 0].tolist() == [100, 100, 100]
    np.testing.assert_array_equal(faded[1, 1], overlay(GREY, MAP)[1, 1])
    # Level 127 of 255 of jet is (126, 255, 130); its weight is 0.5 * 127 / 255.
    assert overlay(GREY, MAP, fade=True, colormap="jet")[1, 0].tolist() == [106, 138, 107]


def test_a_coarse_map_is_resized_bilinearly_to_the_picture() -> None:
    blended = overlay(np.zeros((1, 4, 3), dtype=np.uint8), [[0.0, 1.0]], alpha=1)
    expected = colorize([[0.0, 0.25, 0.75, 1.0]])
    np.testing.assert_array_equal(blended, expected)


def test_the_picture_itself_is_not_changed() -> None:
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    overlay(image, np.ones((20, 20)))
    contour(image, np.ones((20, 20), dtype=bool))
    assert image.max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anomaly_map": [[np.nan, 1], [1, 1]]}, "1 of 4 values that are NaN or infinite"),
        ({"anomaly_map": [1.0, 2.0]}, r"shape \(H, W\), got \(2,\)"),
        ({"vmin": 1.0, "vmax": 1.0}, "vmin must be below vmax, got vmin=1 and vmax=1"),
        ({"vmin": 2.0, "vmax": None}, "vmin must be below vmax, got vmin=2 and vmax=1"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"colormap": "hot"}, "no colormap 'hot'. Expected one of inferno, turbo, jet"),
        ({"image": GREY / 255}, "uint8 RGB picture"),
    ],
)
def test_unusable_arguments_are_explained(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(**{"image": GREY, "anomaly_map": MAP, **arguments})  # type: ignore[arg-type]


def test_a_contour_surrounds_the_mask_and_skips_holes() -> None:
    pytest.importorskip("cv2", reason="contours need OpenCV")
    mask = np.zeros((20, 20), dtype=bool)
    mask[4:16, 4:16] = True
    mask[8:12, 8:12] = False
    drawn = (contour(np.zeros((20, 20, 3), dtype=np.uint8), mask, (9, 8, 7), thickness=1) == [9, 8, 7]).all(axis=-1)
    border = np.zeros((20, 20), dtype=bool)
    border[4:16, 4:16] = True
    border[5:15, 5:15] = False
    np.testing.assert_array_equal(drawn, border)


def test_an_empty_mask_draws_nothing() -> None:
    np.testing.assert_array_equal(contour(GREY, np.zeros((2, 2), dtype=bool)), GREY)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask is \(3, 2\), the picture \(2, 2\)"):
        contour(GREY, np.zeros((3, 2), dtype=bool))


def test_the_colour_bar_runs_from_the_lowest_to_the_highest_colour() -> None:
    bar = colorbar(100, "jet", 0, 2.5)
    assert bar.shape[0] == 100
    assert bar[10, 10].tolist() == [128, 0, 0]
    assert bar[89, 10].tolist() == [0, 0, 128]
    # Ticks are dark marks beside the bar at the ends of the range.
    assert bar[10, 24].tolist() == bar[89, 24].tolist() == [60, 60, 60]
    assert bar[40, 24].tolist() == [255, 255, 255]


def test_longer_numbers_make_a_wider_colour_bar() -> None:
    assert colorbar(100, vmin=-0.125, vmax=0.125).shape[1] > colorbar(100, vmin=0, vmax=4).shape[1]


def test_panels_stand_in_a_row_aligned_at_the_top() -> None:
    row = side_by_side([GREY, np.full((5, 3, 3), 7, dtype=np.uint8)], gap=4)
    assert row.shape == (5, 2 + 4 + 3, 3)
    assert (row[:2, :2] == 100).all()
    assert (row[2:, :2] == 255).all()
    assert (row[:, 6:] == 7).all()


def test_labels_are_written_above_the_panels() -> None:
    panel = np.full((30, 80, 3), 255, dtype=np.uint8)
    plain, labelled = side_by_side([panel]), side_by_side([panel], ["input"])
    assert labelled.shape[0] > plain.shape[0]
    assert labelled[: -plain.shape[0]].min() < 100
    assert (labelled[-plain.shape[0] :] == 255).all()


def test_panels_and_labels_have_to_match() -> None:
    with pytest.raises(ValueError, match="2 labels for 1 panels"):
        side_by_side([GREY], ["a", "b"])
    with pytest.raises(ValueError, match="at least one panel"):
        side_by_side([])
