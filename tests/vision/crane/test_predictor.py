"""The predictor: one door for files and arrays, independent of the batch, with clear refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.errors import CheckpointError, InputError
from mmattn.media.video_writer import VideoWriter
from mmattn.vision.crane.config import CraneInferOptions
from mmattn.vision.crane.predictor import CranePredictor, shrink
from mmattn.vision.crane.results import CraneResult, CraneVideoResult
from tests.vision.crane.tiny import tiny_config, tiny_model, tiny_predictor


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictor() -> CranePredictor:
    return tiny_predictor()


def test_a_file_and_its_array_give_the_same_result(predictor: CranePredictor, tmp_path: Path):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    from_file, from_array = predictor.predict(tmp_path / "a.png"), predictor.predict(picture(0))
    assert isinstance(from_file, CraneResult)
    assert isinstance(from_array, CraneResult)
    assert from_file.score == from_array.score
    assert np.array_equal(from_file.anomaly_map, from_array.anomaly_map)


def test_a_score_does_not_depend_on_what_else_is_in_the_batch(predictor: CranePredictor):
    items = [picture(i) for i in range(3)]
    together = predictor.predict_batch(items)
    alone = [predictor.predict(item) for item in items]
    for a, b in zip(together, alone, strict=True):
        assert isinstance(a, CraneResult)
        assert isinstance(b, CraneResult)
        assert a.score == pytest.approx(b.score, abs=1e-6)
        assert np.allclose(a.anomaly_map, b.anomaly_map, atol=1e-6)


def test_scores_and_maps_are_probabilities(predictor: CranePredictor):
    scores, maps = predictor.scores_and_maps([picture(1), picture(2)], [None, None])
    assert scores.shape == (2,)
    assert maps.shape == (2, 48, 48)
    for values in (scores, maps):
        assert values.min() >= 0
        assert values.max() <= 1


def test_a_saved_model_is_read_back_with_equal_scores(predictor: CranePredictor, tmp_path: Path):
    model = predictor.model
    save_checkpoint(tmp_path / "c", model.tensors(), system="crane", config=model.config.to_dict(), card="# c")
    again = CranePredictor.from_pretrained(tmp_path / "c")
    expected, actual = predictor.predict(picture(3)), again.predict(picture(3))
    assert isinstance(expected, CraneResult)
    assert isinstance(actual, CraneResult)
    assert actual.score == pytest.approx(expected.score, abs=1e-6)


def test_normal_pictures_change_the_map_where_the_picture_differs_from_them(tmp_path: Path):
    predictor = tiny_predictor()
    clean = picture(5, 48, 48)
    broken = clean.copy()
    broken[16:32, 16:32] = 255
    before = predictor.predict(broken)
    predictor.remember_normals([clean, clean[:, ::-1].copy()])
    after = predictor.predict(broken)
    assert isinstance(before, CraneResult)
    assert isinstance(after, CraneResult)
    gain = after.anomaly_map - 0.5 * before.anomaly_map
    assert gain[16:32, 16:32].mean() > 2 * gain[:8].mean()


def test_mutual_scoring_finds_the_odd_one(tmp_path: Path):
    clean = picture(6, 48, 48)
    for i in range(5):
        image = clean.copy()
        if i == 3:
            image[16:32, 16:32] = 255
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "torn.png").write_bytes(b"not a picture")
    predictor = tiny_predictor()
    paths = sorted(tmp_path.glob("*.png"))
    predictor.remember_mutually(paths, tmp_path / "store.f16")
    near = [
        predictor.memory.distances(predictor.memory_features(predictor.read(p)), key=str(p.resolve())).max()
        for p in paths[:5]
    ]
    assert int(np.argmax(near)) == 3


def test_a_video_is_scored_at_the_asked_times(tmp_path: Path):
    with VideoWriter(tmp_path / "v.mp4", fps=10.0) as writer:
        for i in range(20):
            writer.write(np.full((64, 80, 3), 10 * i, np.uint8))
    predictor = tiny_predictor()
    result = predictor.predict(tmp_path / "v.mp4")
    assert isinstance(result, CraneVideoResult)
    assert result.times == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=1e-3)
    assert result.anomaly_maps.shape == (4, 48, 48)
    single = predictor.predict(result.frames[2])
    assert isinstance(single, CraneResult)
    assert result.scores[2] == pytest.approx(single.score, abs=1e-6)


def test_shrink_keeps_the_shape_of_the_picture():
    assert shrink(picture(0, 300, 600), 150).shape == (75, 150, 3)
    assert shrink(picture(0, 30, 60), 150).shape == (30, 60, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"pixel_threshold": -0.1}, "pixel_threshold is -0.1"),
        ({"video_fps": 0.0}, "video_fps is 0.0"),
        ({"mutual": True, "normal_images": "good"}, "exclude each other"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        CranePredictor(tiny_model(), device=torch.device("cpu"), options=CraneInferOptions(**options))


def test_an_array_of_the_wrong_kind_is_refused(predictor: CranePredictor):
    with pytest.raises(InputError, match=r"\(8, 8\) of float64, expected \(H, W, 3\) of uint8"):
        predictor.predict(np.zeros((8, 8)))


def test_another_systems_checkpoint_is_refused(tmp_path: Path):
    save_checkpoint(tmp_path / "c", {"w": torch.zeros(1)}, system="crash", config={}, card="# c")
    with pytest.raises(CheckpointError, match="is a crash checkpoint"):
        CranePredictor.from_pretrained(tmp_path / "c")


def test_unknown_recipes_and_fixed_fields_are_refused(tmp_path: Path):
    model = tiny_model()
    save_checkpoint(tmp_path / "c", model.tensors(), system="crane", config=tiny_config().to_dict(), card="# c")
    with pytest.raises(InputError, match="no recipe 'best'"):
        CranePredictor.from_pretrained(tmp_path / "c", options=CraneInferOptions(recipe="best"))
    with pytest.raises(InputError, match="n_ctx cannot be changed"):
        CranePredictor.from_pretrained(tmp_path / "c", n_ctx=3)
    with pytest.raises(InputError, match="sigma is -1"):
        CranePredictor.from_pretrained(tmp_path / "c", sigma=-1.0)
