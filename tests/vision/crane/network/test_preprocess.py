"""Pictures and masks to tensors; exact values stand in the golden tests."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from mmattn.errors import InputError
from mmattn.vision.crane.network.preprocess import CLIP_MEAN, CLIP_STD, Preprocess


def test_a_grey_picture_becomes_its_normalised_colour() -> None:
    out = Preprocess(28)(np.full((10, 17, 3), 51, np.uint8))
    expected = (0.2 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    assert out.shape == (3, 28, 28)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected[:, None, None].expand(3, 28, 28), atol=1e-6, rtol=0)


def test_palette_pictures_become_rgb_before_they_are_resized() -> None:
    rgb = np.random.default_rng(0).integers(0, 2, (30, 30, 3), dtype=np.uint8) * 255
    palette = Image.fromarray(rgb).quantize(8)
    preprocess = Preprocess(14)
    torch.testing.assert_close(preprocess(palette), preprocess(np.array(palette.convert("RGB"))), atol=0, rtol=0)


def test_tensor_path_is_close_to_pillow_and_clips_overshoot() -> None:
    pixels = np.kron(np.random.default_rng(1).integers(0, 2, (8, 8, 3)), np.ones((9, 9, 1))).astype(np.uint8) * 255
    preprocess = Preprocess(40)
    out = preprocess.tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    torch.testing.assert_close(out[0], preprocess(pixels), atol=5e-2, rtol=0)
    brightest = (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    assert bool((out <= brightest[:, None, None] + 1e-6).all())


def test_any_positive_value_of_a_mask_is_anomalous() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = 1
    out = Preprocess(20).mask(mask)
    assert out.shape == (1, 20, 20)
    torch.testing.assert_close(out[0], torch.from_numpy(mask).float(), atol=0, rtol=0)


def test_masks_are_cut_at_one_half() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:, :2] = True
    preprocess = Preprocess(2)
    covered = preprocess.mask(mask, binary=False)
    assert bool(((covered > 0.5) == (preprocess.mask(mask) == 1)).all())
    assert set(preprocess.mask(mask).unique().tolist()) == {0.0, 1.0}


def test_no_mask_is_an_empty_mask() -> None:
    assert Preprocess(6).mask(None).sum() == 0
    assert Preprocess(6).mask(None).shape == (1, 6, 6)


def test_preprocessing_travels_to_loader_workers() -> None:
    assert pickle.loads(pickle.dumps(Preprocess(14))) == Preprocess(14)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
    ids=["grey", "float", "empty"],
)
def test_other_arrays_are_refused_with_shape_and_dtype(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected \(H, W, 3\) of uint8 RGB") as caught:
        Preprocess(14)(array)
    assert str(array.dtype) in str(caught.value)


def test_nan_and_values_outside_the_unit_range_are_refused() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="hold 1 NaN"):
        Preprocess(14).tensor(images)
    with pytest.raises(InputError, match=r"values from 0 to 255, expected \[0, 1\]"):
        Preprocess(14).tensor(torch.tensor([0.0, 255.0]).repeat(1, 3, 4, 4))


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="image_size is 0"):
        Preprocess(0)
    with pytest.raises(InputError, match=r"expected \(B, 3, H, W\)"):
        Preprocess(14).tensor(torch.zeros(3, 8, 8))
    with pytest.raises(InputError, match=r"mask is an array \(4, 4, 3\)"):
        Preprocess(14).mask(np.zeros((4, 4, 3), np.uint8))
