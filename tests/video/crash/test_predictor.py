"""The door: videos of every kind in, results out; clear errors for what cannot be scored."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors import safe_open

from mmattn.core.predictor import Predictor, Result
from mmattn.core.weights.checkpoint import save_checkpoint
from mmattn.errors import CheckpointError, InputError, MediaError, WeightsUnavailableError
from mmattn.media.video_writer import VideoWriter
from mmattn.video.crash.config import CrashInferOptions
from mmattn.video.crash.predictor import Clip, CrashPredictor
from mmattn.video.crash.weights.store import StoredCrash
from tests.media.test_video import faststart
from tests.video.crash.fake_datasets import write_a3d, write_ccd
from tests.video.crash.perception.crop_parts import small_perception
from tests.video.crash.tiny import clips, tiny_config, tiny_model
from tests.video.crash.tiny_door import (
    drive,
    embedded_config,
    glancing_predictor,
    save_embedded,
    tiny_detector,
    write_drive,
)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_embedded(tmp_path_factory.mktemp("models") / "tiny")


def load(source: str, **options) -> CrashPredictor:
    return CrashPredictor.from_pretrained(source, device="cpu", options=CrashInferOptions(**options))


def test_a_checkpoint_with_its_detector_scores_a_video(embedded: str, tmp_path: Path):
    predictor = load(embedded)
    assert predictor.name == "tiny"
    result = predictor.predict(write_drive(tmp_path / "drive.mp4"))
    assert len(result.risk) == 20
    np.testing.assert_allclose(result.times, np.arange(20) / 10, atol=1e-6)
    assert ((result.risk > 0) & (result.risk < 1)).all()
    assert result.size == (66, 90)
    assert max(len(sight.boxes) for sight in result.sights) > 0
    assert isinstance(predictor, Predictor)
    assert isinstance(result, Result)


def test_half_precision_on_disk_is_single_precision_in_use(embedded: str):
    stored = StoredCrash.load(embedded)
    assert {tensor.dtype for tensor in stored.tensors.values()} == {torch.float32}
    assert set(stored.part) == set(tiny_detector().state_dict())
    assert {parameter.dtype for parameter in stored.build().parameters()} == {torch.float32}
    with safe_open(f"{embedded}/model.safetensors", "pt") as file:
        assert file.get_tensor("phi_x.weight").dtype == torch.float16


def test_a_video_its_frames_and_a_session_agree(tmp_path: Path):
    path = tmp_path / "drive.mp4"
    with VideoWriter(path, 25.0, crf=0) as writer:
        for frame in drive(40):
            writer.write(frame)
    predictor = glancing_predictor()
    of_file = predictor.predict(path)
    of_frames = predictor.predict(Clip(np.stack(drive(40)), fps=25.0))
    session = predictor.open_session(fps=25.0)
    streamed = [step for frame in drive(40) for step in session.feed(frame)]
    assert of_file.sources.tolist() == of_frames.sources.tolist() == [step.source for step in streamed]
    np.testing.assert_allclose(of_frames.risk, [step.risk for step in streamed], atol=1e-6)
    np.testing.assert_allclose(of_file.risk, of_frames.risk, atol=0.02)  # H.264 rounds colours
    assert len(of_file.risk) == 16


def test_an_array_of_frames_is_taken_at_the_models_rate():
    result = glancing_predictor().predict(np.stack(drive(7)))
    np.testing.assert_allclose(result.times, np.arange(7) / 10)
    assert result.video is not None
    assert len(list(result.overlay_frames())) == 7


def test_a_variable_frame_rate_is_resampled_by_its_times(tmp_path: Path):
    path = tmp_path / "vfr.mp4"
    moments = [0.0, 0.04, 0.08, 0.2, 0.5, 0.52, 0.54, 0.6, 1.0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=50)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 90, 66, "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, moment in zip(drive(9), moments, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = round(1000 * moment), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    predictor = glancing_predictor()
    result = predictor.predict(path)
    np.testing.assert_allclose(result.times - result.times[0], np.arange(11) / 10, atol=1e-6)
    # at 0.1 s the frame of 0.08 s is nearest; at 0.3 s that of 0.2 s is, which stands in until 0.5 s is nearer
    assert result.sources.tolist() == [0, 2, 3, 3, 4, 4, 7, 7, 7, 8, 8]
    times = [time - result.times[0] for time, _ in predictor.perception.shown]
    assert set(np.round(times, 3)) <= set(moments)


@pytest.mark.parametrize(("fps", "steps"), [(4.0, 11), (10.0, 12), (29.97, 4), (120.0, 1)])
def test_any_frame_rate_gives_steps_at_the_models(tmp_path: Path, fps: float, steps: int):
    result = glancing_predictor().predict(write_drive(tmp_path / "x.mp4", 5 if fps == 4.0 else 12, fps))
    assert len(result.risk) == steps
    np.testing.assert_allclose(np.diff(result.times), 0.1, atol=1e-6)


def test_portrait_and_4k_videos_are_scored(embedded: str, tmp_path: Path):
    portrait = load(embedded).predict(write_drive(tmp_path / "portrait.mp4", 3, height=160, width=90))
    assert portrait.size == (160, 90)
    for sight in portrait.sights:
        assert (sight.boxes[:, [0, 2]] <= 90).all()
        assert (sight.boxes[:, [1, 3]] <= 160).all()
    predictor = glancing_predictor()
    large = predictor.predict(write_drive(tmp_path / "large.mp4", 2, height=2160, width=3840))
    assert large.size == (2160, 3840)
    assert predictor.perception.shown[0][1] == (720, 1280, 3)
    (picture, _) = large.overlay_frames()
    assert picture.shape == (540 + 112, 960, 3)


def test_a_video_of_one_frame_has_a_result_of_one_step(embedded: str, tmp_path: Path):
    result = load(embedded).predict(write_drive(tmp_path / "one.mp4", 1))
    assert len(result.risk) == 1
    assert result.alerts == []
    assert len(result.save(tmp_path, "one.mp4")) == 6


def test_files_without_a_picture_are_named(tmp_path: Path):
    predictor = glancing_predictor()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    for name, message in (("empty.mp4", "is empty"), ("text.mp4", "cannot be read as a video")):
        with pytest.raises(MediaError, match=message):
            predictor.predict(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        predictor.predict(tmp_path / "missing.mp4")


def test_damaged_frames_in_the_middle_are_stood_in_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_drive(tmp_path / "drive.mp4", 12)
    whole = glancing_predictor().predict(path)
    from mmattn.media.video_readers import IndexedReader

    original = IndexedReader.get_batch

    def damaged(self, indices):
        if {4, 5} & set(np.asarray(indices).tolist()):
            raise MediaError("Frame 4 cannot be decoded.")
        return original(self, indices)

    monkeypatch.setattr(IndexedReader, "get_batch", damaged)
    result = glancing_predictor().predict(path)
    assert result.sources.tolist() == [0, 1, 2, 3, 3, 3, *range(6, 12)]
    assert (result.left_out, result.problems[0]) == (2, "frame 4: it cannot be decoded")
    np.testing.assert_allclose(result.risk[:4], whole.risk[:4], atol=1e-6)
    monkeypatch.setattr(IndexedReader, "get_batch", lambda self, indices: (_ for _ in ()).throw(MediaError("no")))
    with pytest.raises(InputError, match=r"has no frame to score: of 12 frames none can be used \(frame 0: it cannot"):
        glancing_predictor().predict(path)


def test_a_clip_without_a_good_frame_is_an_error_and_one_bad_frame_is_not():
    predictor = glancing_predictor()
    with pytest.raises(InputError, match="of 2 frames none can be used"):
        predictor.predict(Clip([None, None]))
    assert predictor.predict(Clip([None, *drive(2)])).left_out == 1
    with pytest.raises(InputError, match="has no frame to score: it has none"):
        predictor.predict(Clip([]))
    with pytest.raises(InputError, match=r"expected \(T, H, W, 3\)"):
        predictor.predict(np.zeros((66, 90, 3), np.uint8))


def ready(width: int, boxes: int) -> CrashPredictor:
    model = tiny_model(feature_dim=width, num_boxes=boxes, num_frames=50)
    return CrashPredictor(model, None, device=torch.device("cpu"))


def test_public_feature_files_are_scored_as_they_are(tmp_path: Path):
    ccd = write_ccd(tmp_path / "ccd") / "vgg16_features/positive/000001.npz"
    a3d = next((write_a3d(tmp_path / "a3d", pickles=False) / "vgg16_features").rglob("*.npz"))
    for path, name in ((ccd, "data"), (a3d, "features")):
        predictor = ready(6, 3)
        result = predictor.predict(path)
        features = torch.from_numpy(np.load(path)[name]).float()
        with torch.no_grad():
            expected = predictor.model(features[None]).logits.softmax(-1)[0, :, 1]
        np.testing.assert_allclose(result.risk, expected, atol=1e-5)
        assert result.video is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(2)}, "has no array 'data'; it has labels"),
        ({"data": np.zeros((5, 4, 7))}, r"data has shape (5, 4, 7), expected (any, 4, 6)"),
        ({"data": np.full((5, 4, 6), np.nan)}, "of 5 frames none can be used (frame 0: its features are not finite"),
    ],
)
def test_feature_files_that_do_not_fit_are_named(tmp_path: Path, arrays: dict, message: str):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError) as error:
        ready(6, 3).predict(tmp_path / "x.npz")
    assert message in str(error.value)
    assert "x.npz" in str(error.value)


def test_a_damaged_feature_file_is_named(tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(b"PK no")
    with pytest.raises(InputError, match=r"x\.npz' is damaged or no npz"):
        ready(6, 3).predict(tmp_path / "x.npz")


def test_monte_carlo_passes_give_an_uncertainty(embedded: str):
    predictor = CrashPredictor.from_pretrained(embedded, device="cpu", legacy_eval_dropout=True, mc_samples=6)
    result = predictor.predict(np.stack(drive(5)))
    assert result.uncertainty is not None
    assert (result.uncertainty > 0).all()
    assert load(embedded).predict(np.stack(drive(5))).uncertainty is None


def test_a_model_without_perception_takes_features_only(tmp_path: Path):
    config = tiny_config()
    model = tiny_model()
    StoredCrash(config, model.state_dict(), {}).save(tmp_path / "m", card="#")
    predictor = load(str(tmp_path / "m"))
    with pytest.raises(InputError, match="reads features"):
        predictor.predict(write_drive(tmp_path / "drive.mp4", 2))
    features = clips(1, 6)[0]
    with torch.no_grad():
        expected = model(features[None]).logits.softmax(-1)[0, :, 1]
    np.testing.assert_allclose(predictor.predict_features(features.numpy()).risk, expected, atol=1e-5)


def test_boxes_of_another_detector_take_the_place_of_the_perceptions_own(tmp_path: Path):
    video = write_drive(tmp_path / "drive.mp4", 4)
    lines = ["frame,x1,y1,x2,y2,score,class", *(f"{frame},{5 + frame},10,40,50,0.9,car" for frame in range(4))]
    (tmp_path / "drive.csv").write_text("\n".join(lines) + "\n")
    model = tiny_model(feature_dim=6, num_boxes=5)
    options = CrashInferOptions(boxes=str(tmp_path))
    perception = small_perception(fill="empty")
    predictor = CrashPredictor(model, perception, device=torch.device("cpu"), options=options)
    result = predictor.predict(video)
    assert [sight.boxes.tolist() for sight in result.sights] == [[[5 + i, 10, 40, 50]] for i in range(4)]
    assert result.sights[0].classes == ("car",)
    (tmp_path / "drive.csv").unlink()
    with pytest.raises(InputError, match="drive"):
        predictor.predict(video)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alert_threshold": 2.0}, "alert_threshold is 2.0"),
        ({"persistence": 0}, "persistence is 0"),
        ({"cooldown": -1.0}, "cooldown is -1.0"),
        ({"boxes": "boxes.csv"}, "finds road users itself"),
    ],
)
def test_options_out_of_range_are_refused(embedded: str, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        load(embedded, **options)


def test_only_scoring_can_be_overridden(embedded: str):
    with pytest.raises(InputError, match="hidden_dim cannot be changed after training"):
        CrashPredictor.from_pretrained(embedded, device="cpu", hidden_dim=3)
    with pytest.raises(InputError, match="mc_samples is 0"):
        CrashPredictor.from_pretrained(embedded, device="cpu", mc_samples=0)


def test_checkpoints_that_do_not_fit_are_refused(embedded: str, tmp_path: Path):
    with pytest.raises(WeightsUnavailableError):
        load(str(tmp_path / "nowhere"))
    save_checkpoint(tmp_path / "crane", {"x": torch.zeros(1)}, system="crane", config={}, card="#")
    with pytest.raises(CheckpointError, match="is a crane checkpoint"):
        load(str(tmp_path / "crane"))
    save_checkpoint(
        tmp_path / "detector", {"x": torch.zeros(1)}, system="crash", config={"widths": [1], "neck": 2}, card="#"
    )
    with pytest.raises(CheckpointError, match="is none of a risk model"):
        load(str(tmp_path / "detector"))
    stored = StoredCrash.load(embedded)
    replace(stored, part={}).save(tmp_path / "bare", card="#")
    with pytest.raises(CheckpointError, match="does not hold its detector"):
        load(str(tmp_path / "bare"))
    config = json.loads((Path(embedded) / "config.json").read_text())["config"]
    other = embedded_config(feature_dim=7)
    assert config["feature_dim"] != 7
    torch.manual_seed(0)
    from mmattn.video.crash.model import build_model

    StoredCrash(other, build_model(other).state_dict(), stored.part).save(tmp_path / "width", card="#")
    with pytest.raises(CheckpointError, match=r"makes 5 boxes of \d+ features, and the risk model reads 5 of 7"):
        load(str(tmp_path / "width"))


def test_a_video_that_is_cut_short_is_scored_as_far_as_it_goes_and_said_so(tmp_path: Path):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    faststart(write_drive(tmp_path / "drive.mp4", 40), whole)
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    predictor = glancing_predictor()
    result, all_of_it = predictor.predict(cut), predictor.predict(whole)
    assert 3 < len(result.risk) < len(all_of_it.risk)
    assert result.missing > 0 == all_of_it.missing
    assert result.doubts[0].code == "cut_short"
    assert f"{result.missing} frames that it promises are not there" in result.doubts[0].message
    names = [path.name for path in result.save(tmp_path, "cut.mp4")]
    assert "cut.mp4.overlay.mp4" in names
