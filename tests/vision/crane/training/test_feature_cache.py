import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import default_collate

from mmattn.errors import InputError
from mmattn.vision.crane.datasets import pictures
from mmattn.vision.crane.datasets.layouts import read_layout
from mmattn.vision.crane.datasets.pictures import CraneDataset
from mmattn.vision.crane.losses import crane_loss
from mmattn.vision.crane.model import CraneModel
from mmattn.vision.crane.network.preprocess import Preprocess
from mmattn.vision.crane.task import CraneTask
from mmattn.vision.crane.training.feature_cache import CachedDataset, FeatureCache, fill, fingerprint, unpack
from tests.vision.crane.fake_datasets import write_dataset
from tests.vision.crane.test_task import fit
from tests.vision.crane.tiny import tiny_config, tiny_model
from tests.vision.crane.toy_data import ToyDataModule, ToyDataset


@pytest.fixture
def model() -> CraneModel:
    return tiny_model(seed=1, feature_layers=(2, 3), multilayer="distinct")


@pytest.fixture
def items(tmp_path: Path) -> ToyDataset:
    return ToyDataset(tmp_path / "toy", count=5)


@pytest.fixture
def cache(tmp_path: Path, model: CraneModel) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", fingerprint(model))


def test_cached_features_give_the_loss_of_the_pictures_themselves(
    model: CraneModel, items: ToyDataset, cache: FeatureCache
) -> None:
    assert fill(cache, model, items, batch_size=2) == 5
    batch = default_collate([items[i] for i in range(5)])
    cached = default_collate([CachedDataset(items, cache)[i] for i in range(5)])
    assert "img" not in cached
    with torch.no_grad():
        text = model.encode_text()
        fresh = model.encode_image(batch["img"])
        expected = crane_loss(fresh, text, batch["label"], batch["mask"], model.config)
        got = crane_loss(unpack(cached), text, cached["label"], cached["mask"], model.config)
    # rounding differs between batches of 2 and of 5
    torch.testing.assert_close(unpack(cached).image_features, fresh.image_features, atol=1e-5, rtol=0)
    for kept, patches in zip(unpack(cached).patch_features, fresh.patch_features, strict=True):
        # unit vectors in float16: each coordinate is at most 1, so half a unit in the last place is 2^-12
        directions = torch.nn.functional.normalize(patches, dim=-1)
        torch.testing.assert_close(kept, directions, atol=2**-12 + 1e-5, rtol=0)
    assert got.total.item() == pytest.approx(expected.total.item(), rel=2e-3)


def test_aliased_layers_are_stored_once_and_counted_as_often_as_they_stand_for(tmp_path: Path) -> None:
    model = tiny_model(feature_layers=(2, 3))
    items = ToyDataset(tmp_path / "toy", count=1)
    cache = FeatureCache(tmp_path / "cache", fingerprint(model))
    fill(cache, model, items, batch_size=1)
    stored = load_file(cache.file(items.annotation(0)["path"]))
    assert {name: tuple(t.shape) for name, t in stored.items()} == {
        "image_features": (32,),
        "patch_features.0": (36, 32),
        "grid": (2,),
        "counts": (1,),
    }
    assert unpack(default_collate([CachedDataset(items, cache)[0]])).repeats() == (2,)


def test_second_run_computes_nothing(model: CraneModel, items: ToyDataset, cache: FeatureCache) -> None:
    fill(cache, model, items, batch_size=2)
    items.reads = 0
    assert fill(cache, model, items, batch_size=2) == 0
    assert items.reads == 0


def test_full_cache_is_recognised_without_decoding_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_dataset("mvtec_style", tmp_path / "data")
    items = CraneDataset(read_layout("mvtec_style", root), root, Preprocess(48))
    model = tiny_model()
    cache = FeatureCache(tmp_path / "cache", fingerprint(model))
    assert fill(cache, model, items, batch_size=4) == len(items) == 8
    features = CachedDataset(items, cache)[5]
    assert features["path"] == items[5]["path"]
    assert torch.equal(features["mask"], items[5]["mask"])

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(pictures, "read_mask", refuse)
    monkeypatch.setattr(pictures, "read_image", refuse)
    assert fill(cache, model, items, batch_size=4) == 0


def test_interrupted_run_continues_with_what_is_missing(
    model: CraneModel, items: ToyDataset, cache: FeatureCache
) -> None:
    class Interrupted(ToyDataset):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 3:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    broken = Interrupted(Path(items.pictures[0][0]).parent, count=5)
    with pytest.raises(KeyboardInterrupt):
        fill(cache, model, broken, batch_size=1)
    assert len(list(cache.folder.rglob("*.safetensors"))) == 3
    assert fill(cache, model, items, batch_size=1) == 2
    assert not [file for file in cache.folder.rglob("*") if file.is_file() and file.suffix != ".safetensors"]


def test_changed_picture_is_computed_anew(model: CraneModel, items: ToyDataset, cache: FeatureCache) -> None:
    fill(cache, model, items, batch_size=5)
    path = items.pictures[2][0]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert not cache.has(path)
    assert fill(cache, model, items, batch_size=5) == 1


@pytest.mark.parametrize(
    "changes", [{"beta": 2.0}, {"attn_type": "vv"}, {"feature_layers": (3,)}, {"dual_layers": 1}], ids=str
)
def test_another_vision_setting_is_another_cache(changes: dict[str, Any]) -> None:
    base = {"feature_layers": (3,), "dual_layers": 2} | (
        {"feature_layers": (2, 3)} if "feature_layers" in changes else {}
    )
    assert fingerprint(tiny_model(seed=1, **base)) != fingerprint(tiny_model(seed=1, **{**base, **changes}))


def test_prompts_and_scoring_do_not_change_the_cache_and_vision_weights_do(model: CraneModel) -> None:
    name = fingerprint(model)
    assert fingerprint(tiny_model(seed=1, feature_layers=(2, 3), multilayer="distinct", sigma=9.0)) == name
    with torch.no_grad():
        model.prompt_learner.ctx_pos.add_(1)
        assert fingerprint(model) == name
        model.clip.visual.proj[0, 0] += 1e-3
    assert fingerprint(model) != name


def test_features_that_depend_on_the_batch_are_not_cached() -> None:
    model = tiny_model()
    object.__setattr__(model, "config", tiny_config(foundation="dinov2", dattn_mean="batch"))
    with pytest.raises(InputError, match="dattn_mean is 'batch'"):
        fingerprint(model)


def test_damaged_file_is_named(model: CraneModel, items: ToyDataset, cache: FeatureCache) -> None:
    fill(cache, model, items, batch_size=5)
    path = items.pictures[0][0]
    cache.file(path).write_bytes(b"cut")
    with pytest.raises(InputError, match=f"{cache.file(path).name}.*Delete that file"):
        cache.load(path)


def test_vanished_picture_is_named(cache: FeatureCache) -> None:
    with pytest.raises(InputError, match=r"gone\.png' does not exist any more"):
        cache.has("gone.png")


def test_training_from_the_cache_reads_each_picture_once_and_ends_at_the_same_prompts(tmp_path: Path) -> None:
    def run(feature_cache: str | None) -> tuple[CraneTask, int]:
        torch.manual_seed(0)
        task = CraneTask(tiny_config(), feature_cache=feature_cache)
        trainer = fit(task, tmp_path, max_epochs=3)
        data = trainer.datamodule
        assert isinstance(data, ToyDataModule)
        return task, data.items.reads

    plain, plain_reads = run(None)
    cached, cached_reads = run(str(tmp_path / "cache"))
    assert (plain_reads, cached_reads) == (24, 8)
    # 3 Adam steps of 1e-3; float16 features may tip the sign of a vanishing gradient, not the direction of training
    moved = (plain.model.prompt_learner.ctx_neg - cached.model.prompt_learner.ctx_neg).abs()
    assert moved.mean().item() < 1e-4
    assert moved.max().item() <= 6e-3


def test_augmented_data_is_refused(tmp_path: Path) -> None:
    class Random(ToyDataModule):
        def train_dataset(self) -> ToyDataset:
            dataset = super().train_dataset()
            dataset.is_random = True  # type: ignore[attr-defined]
            return dataset

    task = CraneTask(tiny_config(), feature_cache=str(tmp_path / "cache"))
    with pytest.raises(InputError, match="files and the same in every epoch"):
        fit(task, tmp_path, data=Random(str(tmp_path / "toy")))
