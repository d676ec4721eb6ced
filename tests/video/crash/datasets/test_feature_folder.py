"""The on-disk format of features: what is written comes back, runs continue, failures are reported one by one."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmattn.core.datasets.features import fingerprint
from mmattn.errors import InputError, MediaError
from mmattn.video.crash.datasets.feature_folder import ClipFeatures, FeatureFolder, Manifest, fill
from tests.video.crash.fake_datasets import BOXES, WIDTH, clip_features, feature_folder

CLIP = clip_features(0, 20, 12.0)


def test_a_clip_comes_back_in_half_precision_with_everything_beside_it(tmp_path: Path) -> None:
    folder = feature_folder(tmp_path)
    folder.store("positive/000001", CLIP)
    found = FeatureFolder.open(tmp_path).load("positive/000001", with_boxes=True)
    assert found.features.dtype == np.float16
    assert np.array_equal(found.features, CLIP.features.astype(np.float16))
    assert np.array_equal(found.valid, CLIP.valid)
    assert np.array_equal(found.times, CLIP.times)
    assert np.array_equal(found.boxes, CLIP.boxes)  # type: ignore[arg-type]
    assert folder.load("positive/000001").boxes is None
    assert (tmp_path / "clips/positive/000001.safetensors").is_file()
    assert (folder.has("positive/000001"), folder.has("positive/000002")) == (True, False)


def test_the_manifest_says_what_the_features_are(tmp_path: Path) -> None:
    feature_folder(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text()) == {
        "format_version": 1, "fingerprint": "f" * 32, "feature_dim": WIDTH, "num_boxes": BOXES, "fps": 10.0,
        "source": {"perception": "fake"},
    }  # fmt: skip
    assert FeatureFolder.open(tmp_path).manifest == Manifest("f" * 32, WIDTH, BOXES, 10.0, {"perception": "fake"})


def test_features_made_in_another_way_are_not_mixed(tmp_path: Path) -> None:
    feature_folder(tmp_path)
    other = Manifest(fingerprint({"perception": "other"}), WIDTH, BOXES, 10.0, {"perception": "other"})
    with pytest.raises(InputError, match=r"made in another way: \{'perception': 'fake'\}, now \{'perception': 'other'"):
        FeatureFolder.create(tmp_path, other)


def test_fingerprints_differ_with_any_setting_and_not_with_their_order() -> None:
    assert fingerprint({"a": 1, "b": [2, None]}) == fingerprint({"b": [2, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 32


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").touch()
    with pytest.raises(InputError, match="exists and is no folder of features"):
        feature_folder(tmp_path)
    with pytest.raises(InputError, match=r"is no folder of features: it has no manifest\.json"):
        FeatureFolder.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": 1}', '{"format_version": "x", "fps": 1}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json' is damaged"):
        FeatureFolder.open(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    feature_folder(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(InputError, match="has format 2; this version reads up to 1"):
        FeatureFolder.open(tmp_path)


@pytest.mark.parametrize("clip_id", ["", "../x", "/etc/x", "a/../../x", "a\\b", "a\0b"])
def test_ids_that_leave_the_folder_are_refused(tmp_path: Path, clip_id: str) -> None:
    with pytest.raises(InputError, match="cannot be a file name"):
        feature_folder(tmp_path).file(clip_id)


def test_ids_with_dots_keep_them(tmp_path: Path) -> None:
    assert feature_folder(tmp_path).file("a/clip.v2").name == "clip.v2.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": CLIP.features[:, :2]}, r"features has shape \(20, 2, 6\), expected \(20, 4, 6\)"),
        ({"features": CLIP.features[..., :5]}, r"expected \(20, 4, 6\)"),
        ({"features": CLIP.features[:0], "valid": CLIP.valid[:0], "times": CLIP.times[:0], "boxes": None}, "T above 0"),
        ({"valid": CLIP.valid[:, 1:]}, r"valid has shape \(20, 3\), expected \(20, 4\)"),
        ({"times": CLIP.times[:-1]}, r"times has shape \(19,\)"),
        ({"times": CLIP.times[::-1]}, "not increasing"),
        ({"times": np.zeros(20)}, "not increasing"),
        ({"boxes": np.zeros((20, 3, 5))}, r"boxes has shape \(20, 3, 5\)"),
        ({"features": np.where(np.arange(20)[:, None, None] == 5, np.nan, CLIP.features)}, "Features of frame 5"),
        ({"features": np.where(np.arange(20)[:, None, None] == 6, 7e4, CLIP.features)}, "Features of frame 6"),
    ],
    ids=["boxes", "width", "no frame", "valid", "times", "backwards", "constant", "box columns", "nan", "too large"],
)  # fmt: skip
def test_what_does_not_fit_is_not_written(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = feature_folder(tmp_path)
    with pytest.raises(InputError, match=message):
        folder.store("x", CLIP._replace(**change))  # type: ignore[arg-type]
    assert not folder.has("x")


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    folder = feature_folder(tmp_path)
    with pytest.raises(InputError, match="The features of the clip 'x' are missing"):
        folder.load("x")
    folder.store("x", CLIP._replace(boxes=None))
    with pytest.raises(InputError, match=r"x\.safetensors' is damaged or incomplete"):
        folder.load("x", with_boxes=True)
    content = folder.file("x").read_bytes()
    folder.file("x").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"x\.safetensors' is damaged or incomplete"):
        folder.load("x")
    wider = FeatureFolder.create(tmp_path / "wide", Manifest("a" * 32, 7, BOXES, 10.0, {}))
    wider.store("x", CLIP._replace(features=np.ones((20, BOXES + 1, 7), np.float32)))
    folder.file("x").write_bytes(wider.file("x").read_bytes())
    with pytest.raises(InputError, match=r"x\.safetensors': features has shape \(20, 4, 7\), expected \(20, 4, 6\)"):
        folder.load("x")


# Filling.


def test_a_run_continues_where_it_stopped_and_reports_what_failed(tmp_path: Path) -> None:
    folder = feature_folder(tmp_path)
    folder.store("b", CLIP)
    asked: list[str] = []

    def extract(source: str) -> ClipFeatures:
        asked.append(source)
        if source == "a.mp4":
            raise MediaError("a.mp4 cannot be decoded.", "Re-encode it.")
        return CLIP._replace(features=CLIP.features * np.nan) if source == "c.mp4" else CLIP

    result = fill(folder, [(name, f"{name}.mp4") for name in "abcd"], extract)
    assert asked == ["a.mp4", "c.mp4", "d.mp4"]
    assert (result.made, result.kept) == (1, 1)
    reports = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    assert reports == result.errors
    assert reports[0] == {"id": "a", "input": "a.mp4", "error": "a.mp4 cannot be decoded.", "hint": "Re-encode it."}
    assert reports[1]["error"].startswith("Features of frame 0 are not finite")
    assert fill(folder, [("a", "d.mp4"), ("b", "b.mp4")], extract).errors == []
    assert not (tmp_path / "errors.jsonl").exists()


def test_an_interrupted_run_keeps_what_was_finished(tmp_path: Path) -> None:
    folder = feature_folder(tmp_path)

    def extract(source: str) -> ClipFeatures:
        if source == "c":
            raise KeyboardInterrupt
        return CLIP

    with pytest.raises(KeyboardInterrupt):
        fill(folder, [(name, name) for name in "abc"], extract)
    assert [folder.has(name) for name in "abc"] == [True, True, False]


def test_a_full_disk_ends_the_run_with_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = feature_folder(tmp_path)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    fill(folder, [("a", "a")], lambda _: CLIP)
    monkeypatch.setattr("mmattn.core.datasets.features.save_file", no_space)
    with pytest.raises(MediaError, match="the disk is full"):
        fill(folder, [("a", "a"), ("b", "b")], lambda _: CLIP)
    assert [folder.has(name) for name in "ab"] == [True, False]
    assert list((tmp_path / "clips").iterdir()) == [folder.file("a")]
