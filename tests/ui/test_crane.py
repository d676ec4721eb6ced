"""Handlers of the Crane app, called as plain functions, and the page built without starting it."""

import gc
import json
import tempfile
import zipfile
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from mmattn.ui.crane import MAX_PICTURES, build_app, detect, draw, pack, verdict_html
from mmattn.ui.hub import build_hub
from mmattn.vision.crane.predictor import CranePredictor
from tests.ui.served import Visitor, served
from tests.vision.crane.tiny import tiny_predictor


@pytest.fixture(scope="module")
def predictor() -> CranePredictor:
    return tiny_predictor()


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def write_pictures(folder: Path, count: int) -> list[str]:
    for i in range(count):
        Image.fromarray(noise(i)).save(folder / f"{i:02d}.png")
    return [str(p) for p in sorted(folder.glob("*.png"))]


def test_several_pictures_come_back_highest_score_first(predictor: CranePredictor, tmp_path: Path):
    scored = detect(predictor, None, write_pictures(tmp_path, 4))
    scores = [item.result.score for item in scored]
    assert scores == sorted(scores, reverse=True)
    assert sorted(item.name for item in scored) == ["00.png", "01.png", "02.png", "03.png"]


def test_moving_a_threshold_redraws_without_running_the_model(
    predictor: CranePredictor, monkeypatch: pytest.MonkeyPatch
):
    scored = detect(predictor, noise(0), None)
    monkeypatch.setattr(predictor.model, "encode_image", None)
    low, pair, _ = draw(scored, 0, 0.0, 1.0, "fixed")
    high, outlined, _ = draw(scored, 0, 1.0, 0.0, "fixed")
    assert "anomalous" in low
    assert "normal" in high
    assert pair is not None
    assert outlined is not None
    assert np.array_equal(pair[0], noise(0))
    assert not np.array_equal(pair[1], draw(scored, 0, 0.0, 1.0, "image")[1][1])


def test_nothing_to_score_is_a_notice(predictor: CranePredictor):
    with pytest.raises(gr.Error, match="Give a picture first"):
        detect(predictor, None, None)


def test_a_broken_file_is_a_notice_with_its_name(predictor: CranePredictor, tmp_path: Path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(gr.Error, match=r"torn\.png"):
        detect(predictor, None, [str(tmp_path / "torn.png")])


def test_more_pictures_than_allowed_are_cut(predictor: CranePredictor, tmp_path: Path):
    scored = detect(predictor, None, write_pictures(tmp_path, 1) * (MAX_PICTURES + 2))
    assert len(scored) == MAX_PICTURES


def test_flawless_examples_do_not_leak_into_the_next_visit(predictor: CranePredictor, tmp_path: Path):
    plain = detect(predictor, noise(0), None)[0].result.score
    with_normals = detect(predictor, noise(0), None, write_pictures(tmp_path, 2))[0].result.score
    assert with_normals != plain
    assert detect(predictor, noise(0), None)[0].result.score == plain


def test_the_download_holds_overlays_maps_and_scores(predictor: CranePredictor, tmp_path: Path):
    packed = pack(detect(predictor, None, write_pictures(tmp_path, 2)), 0.3, 0.5, "fixed")
    with zipfile.ZipFile(packed.file) as archive:
        names = archive.namelist()
        scores = json.loads(archive.read("scores.json"))
    assert len([n for n in names if n.endswith(".overlay.png")]) == 2
    assert len([n for n in names if n.endswith(".map.png")]) == 2
    assert {entry["threshold"] for entry in scores.values()} == {0.3}


def test_a_download_that_is_forgotten_is_removed(predictor: CranePredictor):
    packed = pack(detect(predictor, noise(0), None), 0.3, 0.5, "fixed")
    folder = packed.file.parent
    assert folder.is_dir()
    del packed
    gc.collect()
    assert not folder.exists()


def test_all_files_of_a_visitor_go_with_the_visit(
    predictor: CranePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    (picture,) = write_pictures(tmp_path, 1)
    demo = build_app({"tiny": predictor}, examples=[])
    numbers = {fn.name: number for number, fn in demo.fns.items()}

    def left() -> list[str]:
        return sorted(f.name for place in ("cache", "temp") for f in (tmp_path / place).rglob("*") if f.is_file())

    with served(demo) as url:
        visitor = Visitor(url)
        sent = visitor.http.post("/gradio_api/upload", files={"files": ("a.png", Path(picture).read_bytes())}).json()
        file = {"path": sent[0], "meta": {"_type": "gradio.FileData"}}
        assert visitor.call(numbers["on_detect"], file, None, "tiny", None)["success"]
        assert visitor.call(numbers["on_redraw"], None, None, 0.5, 0.5, "fixed")["success"]
        assert visitor.call(numbers["on_pack"], None, 0.5, 0.5, "fixed")["success"]
        assert {"a.png", "crane_results.zip"} <= set(left())
        demo._queue._forget(visitor.session)
        gc.collect()
        assert left() == []


def test_before_anything_is_scored_the_verdict_says_so():
    assert "No picture scored yet" in verdict_html(None)


def test_the_page_names_its_one_public_endpoint(predictor: CranePredictor):
    app = build_app({"tiny": predictor}, examples=[])
    public = {f.api_name for f in app.fns.values() if f.api_visibility == "public"}
    assert public == {"detect"}


def test_the_hub_shows_each_app_and_refuses_to_be_empty(predictor: CranePredictor):
    hub = build_hub({"Crane": build_app({"tiny": predictor}, examples=[])})
    labels = [getattr(block, "label", None) for block in hub.blocks.values()]
    assert "Crane" in labels
    assert "Score threshold" in labels
    with pytest.raises(ValueError, match="at least one app"):
        build_hub({})
