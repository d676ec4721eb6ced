"""What a header promises is weighed before anything is decoded."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmattn.errors import MediaError
from mmattn.media.audio import audio_seconds, read_audio
from mmattn.media.image import read_image, read_mask

FOLDER = Path(__file__).parent / "bounds"


@pytest.mark.parametrize(("name", "rate"), [("rate_absurd.au", 2130714432), ("rate_2147483647.wav", 2147483647)])
def test_an_absurd_rate_is_named(name: str, rate: int) -> None:
    for read in (lambda path: read_audio(path, sample_rate=24_000), audio_seconds):
        with pytest.raises(MediaError, match=f"sample rate of {rate} Hz"):
            read(FOLDER / name)


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_rows_count_as_well_as_pixels(read) -> None:
    with pytest.raises(MediaError, match=r"1 x 178956970 pixels of mode RGB, .* bytes decoded"):
        read(FOLDER / "one_by_178956970.png")


def test_floats_count_four_bytes_and_what_they_are_converted_by(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((64, 64), np.float32)).save(file, format="TIFF")
    assert read_image(file.getvalue()).shape == (64, 64, 3)
    monkeypatch.setattr("mmattn.media.image._MAX_BYTES", -12_000_000 + 3 * 64 * 64)
    with pytest.raises(MediaError, match="mode F"):
        read_image(file.getvalue())
