"""Reading pictures of every kind as ``uint8`` RGB, masks as ``bool``; writing PNG.

A picture is what a viewer would show: EXIF orientation applied, palettes resolved, transparency composited on white,
CMYK converted, more than 8 bits scaled to 8. Of an animation or a multi-page file the first picture is read.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from mmattn.errors import MediaError
from mmattn.media.files import atomic_path
from mmattn.media.regular import open_regular

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "is_image", "read_image", "read_mask", "write_png"]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)

# Twice ``PIL.Image.MAX_IMAGE_PIXELS``, where Pillow itself refuses: 0.5 GB as RGB.
MAX_PIXELS = 178_956_970

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes]"
UInt8Array: TypeAlias = npt.NDArray[np.uint8]

# Of the decoded picture: what MAX_PIXELS have as RGB, in whatever form Pillow decodes.
_MAX_BYTES = 3 * MAX_PIXELS
# Bytes of a pixel, and of the pointer to a row, as Pillow holds them while it decodes; four where not listed.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_ROW_BYTES = 16

# Modes in which Pillow interpolates; the others have to become RGB first.
_RESIZABLE = frozenset({"L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"})

# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def is_image(path: str | os.PathLike[str]) -> bool:
    """Says whether the name of ``path`` ends like a picture's, whatever its case.

    >>> is_image("scan.TIFF"), is_image("notes.txt")
    (True, False)
    """
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, max_side: int | None = None) -> UInt8Array:
    """Reads a picture as ``uint8`` RGB, ``(H, W, 3)``.

    Grey values of more than 8 bits are scaled by their type: 16 bits to 8; floats in [0, 1] or [0, 255]; 32-bit
    integers in [0, 255] or [0, 65535] (always 65535 in PNM files).

    Args:
        source: Path, encoded bytes, or binary file object.
        max_pixels: Pictures with more pixels are refused before they are decoded.
        max_side: If given, a larger picture is reduced while reading so that neither side exceeds it; JPEG files are
            then decoded at reduced size, which saves the memory of the whole picture.

    Raises:
        MediaNotFoundError: The path does not exist.
        MediaError: Not a picture, damaged or truncated, too large, or grey values without a defined range.
    """
    name, image = _decode(source, max_pixels, max_side)
    try:
        rgb = _to_rgb(image, name)
        if max_side is not None and max(rgb.size) > max_side:
            rgb.thumbnail((max_side, max_side))
        return np.array(rgb, dtype=np.uint8)
    except MemoryError as error:
        raise MediaError(f"Not enough memory for {name} with {_size(image)} pixels.", "Pass max_side.") from error


def read_mask(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.bool_]:
    """Reads a mask as ``bool``, ``(H, W)``: True where any colour is above 0 and the pixel is not fully transparent.

    Palettes are resolved first, so black is False whatever its index.

    Raises:
        MediaError: As :func:`read_image`.
    """
    name, image = _decode(source, max_pixels, None)
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(_finite(np.asarray(image), name) > 0)
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))  # (H, W, 4)
        return np.asarray((rgba[..., :3] > 0).any(axis=-1) & (rgba[..., 3] > 0))
    return np.asarray(np.asarray(_to_rgb(image, name)).max(axis=-1) > 0)


def write_png(path: str | os.PathLike[str], array: npt.NDArray[Any]) -> Path:
    """Writes a PNG atomically: the whole file appears or none.

    Args:
        path: Where to write; missing folders are made.
        array: ``uint8``, ``uint16`` or ``bool`` (written as 0 and 255); grey ``(H, W)`` or RGB ``(H, W, 3)``.

    Returns:
        ``path``.

    Raises:
        MediaError: Other shape or dtype, or the file cannot be written.
    """
    pixels = np.ascontiguousarray(array)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    is_shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if not is_shaped or pixels.size == 0 or pixels.dtype not in (np.uint8, np.uint16):
        raise MediaError(
            f"Cannot write an array of shape {pixels.shape} and dtype {pixels.dtype} as PNG.",
            "Pass uint8, uint16 or bool of shape (H, W) or (H, W, 3) with H, W > 0.",
        )
    with atomic_path(path) as temporary:
        if pixels.dtype == np.uint16 and pixels.ndim == 3:
            temporary.write_bytes(_encode_rgb16(pixels))
        else:
            Image.fromarray(pixels).save(temporary, format="PNG")
    return Path(path)


def _decode(source: ImageSource, max_pixels: int, max_side: int | None) -> tuple[str, Image.Image]:
    """Opens and decodes ``source``; returns its name for messages and the upright picture."""
    name, stream = _stream(source)
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side must be at least 1, got {max_side}.")
    try:
        with warnings.catch_warnings():
            # Pillow warns at half of our limit; the limit below is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(stream)
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise _too_large(name, f"has {_size(image)} pixels", max_pixels)
            _check_bytes(image, name)
            if max_side is not None:
                image.draft("RGB", (min(width, max_side), min(height, max_side)))
            image.load()
            if max_side is not None and image.mode in _RESIZABLE:
                # Before any conversion, so that a huge picture is held in memory once.
                image.thumbnail((max_side, max_side))
            return name, ImageOps.exif_transpose(image)
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, "has too many pixels", max_pixels) from error
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{name} is not a picture that can be read.", f"Expected one of {', '.join(sorted(IMAGE_SUFFIXES))}."
        ) from error
    except MemoryError as error:
        raise MediaError(f"Not enough memory to decode {name}.", "Reduce the picture first.") from error
    except _DAMAGE as error:
        raise MediaError(f"{name} is damaged or truncated: {error}.", "Copy or export the picture again.") from error
    finally:
        if not hasattr(source, "read"):
            stream.close()


def _check_bytes(image: Image.Image, name: str) -> None:
    """Refuses by the header what would take more memory than the largest picture of 8 bits."""
    # What is not RGB or grey of 8 bits is converted as a whole, by way of 32 bits.
    beside = 0 if image.mode in ("L", "RGB", "1", "P", "CMYK", "YCbCr") else 5 if image.mode.startswith("I;16") else 8
    size = image.width * image.height * (_PIXEL_BYTES.get(image.mode, 4) + beside) + image.height * _ROW_BYTES
    limit = _MAX_BYTES * 4 // 3 + _ROW_BYTES * 1_000_000
    if size > limit:
        raise MediaError(
            f"{name} has {_size(image)} pixels of mode {image.mode}, {size:,} bytes decoded; the limit is {limit:,}.",
            "Reduce the picture first.",
        )


def _stream(source: ImageSource) -> tuple[str, IO[bytes]]:
    if isinstance(source, bytes):
        return "the given data", BytesIO(source)
    if not isinstance(source, (str, os.PathLike)):
        return str(getattr(source, "name", "the given file")), source
    path = Path(source)
    stream = open_regular(path)
    if os.fstat(stream.fileno()).st_size == 0:
        stream.close()
        raise MediaError(f"{path} is empty (0 bytes).", "Copy or export the picture again.")
    return str(path), stream


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image), image, name)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba)
        return white
    try:
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise MediaError(
            f"{name} uses the colour mode {image.mode}, which is not supported.", "Convert the picture to RGB."
        ) from error


def _to_8_bits(grey: npt.NDArray[Any], image: Image.Image, name: str) -> UInt8Array:
    if image.mode.startswith("I;16"):
        return np.asarray(grey >> 8, dtype=np.uint8)
    values = _finite(grey, name)
    low, high = values.min(), values.max()
    is_float = image.mode == "F"
    top = 1.0 if is_float and high <= 1 else 255.0 if high <= 255 and image.format != "PPM" else 65535.0
    if low < 0 or high > (255 if is_float else 65535):
        raise MediaError(
            f"{name} holds grey values from {low:g} to {high:g}, which have no defined brightness.",
            f"Scale them to [0, {'1] or [0, 255' if is_float else '65535'}] first.",
        )
    return np.asarray(np.rint(values.astype(np.float32) * np.float32(255 / top)), dtype=np.uint8)


def _finite(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise MediaError(f"{name} has {count} pixels that are NaN or infinite.", "Replace them before reading.")
    return values


def _encode_rgb16(pixels: npt.NDArray[Any]) -> bytes:
    """Encodes ``(H, W, 3)`` uint16 as PNG (ISO/IEC 15948), which Pillow reads but cannot write."""
    height, width, _ = pixels.shape
    rows = pixels.astype(">u2").reshape(height, width * 3).view(np.uint8)  # (H, W * 3 * 2)
    # Each row starts with its filter type; 0 is "none".
    lines = np.concatenate([np.zeros((height, 1), dtype=np.uint8), rows], axis=1)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes())),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"


def _too_large(name: str, fact: str, max_pixels: int) -> MediaError:
    return MediaError(
        f"{name} {fact}; the limit is {max_pixels:,}.",
        "Reduce the picture, or raise max_pixels (and PIL.Image.MAX_IMAGE_PIXELS, which guards at twice its value).",
    )
