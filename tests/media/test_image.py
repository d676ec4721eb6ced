import io
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mmattn.errors import MediaError, MediaNotFoundError
from mmattn.media.image import is_image, read_image, read_mask, write_png


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


MODES = {
    "1-bit": (Image.new("1", (3, 2), 1), "PNG", (255, 255, 255)),
    "grey": (Image.new("L", (3, 2), 77), "PNG", (77, 77, 77)),
    "rgb": (Image.new("RGB", (3, 2), (1, 2, 3)), "PNG", (1, 2, 3)),
    "rgba": (Image.new("RGBA", (3, 2), (255, 0, 100, 51)), "PNG", (255, 204, 224)),
    "transparent": (Image.new("RGBA", (3, 2), (9, 9, 9, 0)), "PNG", (255, 255, 255)),
    "grey-alpha": (Image.new("LA", (3, 2), (0, 51)), "PNG", (204, 204, 204)),
    "cmyk-jpeg": (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
    "cmyk-tiff": (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
    "16-bit-png": (Image.fromarray(np.full((2, 3), 200 * 257, dtype=np.uint16)), "PNG", (200, 200, 200)),
    "16-bit-tiff": (Image.fromarray(np.full((2, 3), 65535, dtype=np.uint16)), "TIFF", (255, 255, 255)),
    "16-bit-pgm": (Image.fromarray(np.full((2, 3), 257, dtype=np.int32)), "PPM", (1, 1, 1)),
    "int32-8-bit-range": (Image.fromarray(np.full((2, 3), 200, dtype=np.int32)), "TIFF", (200, 200, 200)),
    "int32-16-bit-range": (Image.fromarray(np.full((2, 3), 200 * 257, dtype=np.int32)), "TIFF", (200, 200, 200)),
    "float-unit-range": (Image.fromarray(np.full((2, 3), 0.4, dtype=np.float32)), "TIFF", (102, 102, 102)),
    "float-8-bit-range": (Image.fromarray(np.full((2, 3), 102.4, dtype=np.float32)), "TIFF", (102, 102, 102)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_colour_mode_becomes_8_bit_rgb(name: str) -> None:
    image, kind, expected = MODES[name]
    read = read_image(encoded(image, kind))
    assert read.dtype == np.uint8
    assert read.shape == (2, 3, 3)
    np.testing.assert_allclose(read[1, 2].astype(int), expected, atol=1)


def test_palettes_are_resolved_and_their_transparent_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert read_image(encoded(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert read_image(encoded(image, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.kron(np.array([[0, 80, 160], [255, 40, 120]], dtype=np.uint8), np.ones((16, 16), dtype=np.uint8))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_image(encoded(Image.fromarray(np.ascontiguousarray(stored)), "JPEG", exif=exif, quality=100))
    np.testing.assert_allclose(read[..., 0].astype(int), upright, atol=3)


def test_broken_exif_data_does_not_hide_the_picture() -> None:
    assert read_image(encoded(Image.fromarray(picture()), "JPEG", exif=b"Exif\0\0no tiff header")).shape == (30, 40, 3)


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    assert read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0].tolist() == [10] * 3


def test_paths_bytes_and_files_give_the_same_picture(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", picture())
    np.testing.assert_array_equal(read_image(path), picture())
    np.testing.assert_array_equal(read_image(str(path)), picture())
    np.testing.assert_array_equal(read_image(path.read_bytes()), picture())
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_image(file), picture())
        assert not file.closed


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_max_side_reduces_and_keeps_the_aspect(kind: str) -> None:
    data = encoded(Image.fromarray(np.full((300, 400, 3), 90, dtype=np.uint8)), kind)
    reduced = read_image(data, max_side=100)
    assert reduced.shape == (75, 100, 3)
    np.testing.assert_allclose(reduced.astype(int), 90, atol=2)
    assert read_image(data, max_side=1000).shape == (300, 400, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_very_wide_picture_is_read(kind: str) -> None:
    data = encoded(Image.new("L", (20_000, 50), 128), kind)
    assert read_image(data).shape == (50, 20_000, 3)
    assert read_image(data, max_side=500).shape == (1, 500, 3)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    # The header promises 10^4 x 10^4 pixels; there are none.
    data = bytearray(encoded(Image.new("L", (10, 10))))
    data[16:24] = (10_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(MediaError, match=r"10000 x 10000 pixels; the limit is 1,000,000\."):
        read_image(bytes(data), max_pixels=1_000_000)


def test_pillows_own_bomb_guard_speaks_our_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(MediaError, match="too many pixels"):
        read_image(encoded(Image.new("L", (10, 10))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
def test_a_truncated_file_is_an_error_that_names_it(kind: str, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(picture()), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=rf"cut\.{kind.lower()}"):
        read_image(path)


def test_text_is_not_a_picture(tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_text("hello")
    with pytest.raises(MediaError, match=r"fake\.png is not a picture"):
        read_image(tmp_path / "fake.png")


def test_an_empty_file_says_that_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(MediaError, match=r"empty\.png is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.png")


def test_a_missing_file_is_both_kinds_of_error(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"There is no file .*gone\.png") as caught:
        read_image(tmp_path / "gone.png")
    assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_is_not_a_picture(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a folder, expected a file"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "1 pixels that are NaN"), (np.inf, "1 pixels that are NaN"), (-3.0, "from -3 to 0.5"), (300, "to 300")],
)
def test_floats_without_a_defined_brightness_are_refused(value: float, message: str) -> None:
    values = np.full((2, 2), 0.5, dtype=np.float32)
    values[0, 0] = value
    with pytest.raises(MediaError, match=message):
        read_image(encoded(Image.fromarray(values), "TIFF"))


def test_max_side_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_side must be at least 1, got 0"):
        read_image(encoded(Image.new("L", (2, 2))), max_side=0)


MASK = np.array([[0, 1], [255, 0]], dtype=np.uint8)
MASKS = {
    "0-and-1": Image.fromarray(MASK),
    "1-bit": Image.fromarray(MASK > 0),
    "rgb-one-channel": Image.fromarray(np.stack([MASK * 0, MASK * 0, MASK], axis=-1)),
    "palette": Image.fromarray(MASK).convert("P"),
    "16-bit": Image.fromarray(MASK.astype(np.uint16)),
    "int32": Image.fromarray(MASK.astype(np.int32)),
    "float": Image.fromarray(MASK.astype(np.float32) / 1000),
    "opaque-rgba": Image.fromarray(np.stack([MASK, MASK, MASK, MASK * 0 + 255], axis=-1)),
    "white-with-alpha": Image.fromarray(np.stack([MASK * 0 + 255, MASK], axis=-1), mode="LA"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_true_where_any_value_is_above_zero(name: str) -> None:
    mask = read_mask(encoded(MASKS[name], "TIFF" if name in {"int32", "float"} else "PNG"))
    assert mask.dtype == np.bool_
    assert mask.tolist() == [[False, True], [True, False]]


def test_a_float_mask_with_nan_is_refused() -> None:
    with pytest.raises(MediaError, match="1 pixels that are NaN"):
        read_mask(encoded(Image.fromarray(np.array([[np.nan, 1]], dtype=np.float32)), "TIFF"))


shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=25, deadline=None)
@given(st.data(), st.booleans())
def test_what_is_written_as_8_bit_png_is_read_back(data: st.DataObject, is_rgb: bool) -> None:
    shape = data.draw(shapes) + ((3,) if is_rgb else ())
    array = data.draw(arrays.arrays(np.uint8, shape))
    expected = array if is_rgb else np.repeat(array[..., None], 3, axis=-1)
    with tempfile.TemporaryDirectory() as folder:
        np.testing.assert_array_equal(read_image(write_png(Path(folder, "a.png"), array)), expected)


@settings(max_examples=15, deadline=None)
@given(st.data(), st.booleans())
def test_16_bit_png_keeps_all_16_bits(data: st.DataObject, is_rgb: bool) -> None:
    av = pytest.importorskip("av", reason="FFmpeg is the independent reader of 16-bit colour")
    shape = data.draw(shapes) + ((3,) if is_rgb else ())
    array = data.draw(arrays.arrays(np.uint16, shape))
    with tempfile.TemporaryDirectory() as folder:
        path = write_png(Path(folder, "a.png"), array)
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        high_bytes = read_image(path)[..., 0]
    assert frame.format.name == ("rgb48be" if is_rgb else "gray16be")
    np.testing.assert_array_equal(frame.to_ndarray(), array)
    np.testing.assert_array_equal(high_bytes, (array[..., 0] if is_rgb else array) >> 8)


def test_a_boolean_mask_survives_the_round_trip(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).random((7, 9)) > 0.5
    np.testing.assert_array_equal(read_mask(write_png(tmp_path / "m.png", mask)), mask)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), dtype=np.float32), np.zeros((2, 2, 4), dtype=np.uint8), np.zeros((0, 2), dtype=np.uint8)],
    ids=["float", "four-channels", "no-rows"],
)
def test_arrays_that_are_no_pictures_are_not_written(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="Cannot write an array of shape"):
        write_png(tmp_path / "a.png", array)
    assert list(tmp_path.iterdir()) == []


def test_picture_names_are_told_from_others() -> None:
    names = ("a.png", "b.JPEG", "c.tif", "d.mp4", "png", ".png")
    assert [name for name in names if is_image(name)] == ["a.png", "b.JPEG", "c.tif"]
