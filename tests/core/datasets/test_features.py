"""Features on disk: named by what makes them, made where they are missing, kept when a run is interrupted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.core.datasets.features import FeatureStore, fill, fingerprint
from mmattn.errors import InputError


def rows(value: float) -> dict[str, Tensor]:
    return {"x": torch.full((2, 3), value), "n": torch.tensor(7)}


def test_a_fingerprint_differs_with_any_setting_and_weight_and_not_with_the_order_of_settings() -> None:
    weights = {"a": torch.zeros(2), "b": torch.zeros((), dtype=torch.bfloat16)}
    names = [
        fingerprint({"a": 1, "b": [2, None]}),
        fingerprint({"a": 2, "b": [2, None]}),
        fingerprint({}, weights),
        fingerprint({}, {**weights, "a": torch.ones(2)}),
        fingerprint({}, {"c": weights["a"], "b": weights["b"]}),
    ]
    assert len(set(names)) == 5
    assert {len(name) for name in names} == {32}
    assert fingerprint({"b": [2, None], "a": 1}) == names[0]
    assert fingerprint({}, {"a": torch.zeros(4)[::2], "b": weights["b"]}) == names[2]


def test_fingerprints_stay_those_of_folders_that_are_there_already() -> None:
    # Of manifests and names of folders that were written before the three systems shared this function.
    assert fingerprint({"fps": 10, "detector": "none"}) == "20629035679497bc17056f9a849bb83a"
    assert fingerprint([518, "vv"], {"clip.visual.proj": torch.arange(3.0)}) == "78cc0209d87c7d7fb28e1c164a437459"
    assert fingerprint("EmbeddedCodec 24000", {"a (3,) torch.float32": torch.arange(3.0)})[:16] == "3482d7e4a8600c4a"


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, "abc")
    store.put("a/b.c", rows(0.5))
    assert store.file("a/b.c") == tmp_path / "abc" / "a" / "b.c.safetensors"
    assert (store.has("a/b.c"), store.has("a/b")) == (True, False)
    found = store.get("a/b.c")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"x": [[0.5] * 3] * 2, "n": 7}
    assert list(store.get("a/b.c", ["n"])) == ["n"]


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    with pytest.raises(InputError, match=r"features of 'x' are missing \('.*x\.safetensors'\)"):
        store.get("x")
    store.put("x", rows(1.0))
    with pytest.raises(InputError, match=r"x\.safetensors' is damaged or incomplete"):
        store.get("x", ["y"])
    store.file("x").write_bytes(store.file("x").read_bytes()[:50])
    with pytest.raises(InputError, match=r"damaged or incomplete.*Delete that file"):
        store.get("x")


def test_only_what_is_missing_is_made_and_failures_are_left_out(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put("b", rows(2.0))
    asked: list[dict[str, float]] = []

    def make(missing: dict[str, float]) -> Iterator[tuple[str, dict[str, Tensor] | None]]:
        asked.append(missing)
        yield from ((key, rows(value) if value else None) for key, value in missing.items())

    wanted = {"a": 1.0, "b": 2.0, "c": 0.0}
    assert fill(store, wanted, make, what="Toys", unit="toy") == 2
    assert [store.has(key) for key in wanted] == [True, True, False]
    assert fill(store, {"a": 1.0, "b": 2.0}, make, what="Toys", unit="toy") == 0
    assert asked == [{"a": 1.0, "c": 0.0}]


def test_an_interruption_keeps_what_is_done_and_flushes(tmp_path: Path) -> None:
    class Flushed(FeatureStore):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    def make(missing: dict[str, float]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield "a", rows(1.0)
        raise KeyboardInterrupt

    store = Flushed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fill(store, {"a": 1.0, "b": 2.0}, make, what="Toys", unit="toy")
    assert (store.has("a"), store.has("b"), store.flushes) == (True, False, 1)


@pytest.mark.parametrize("key", ["../stray", "/tmp/stray", "a/../../stray"])
def test_a_key_never_leads_out_of_the_store(tmp_path: Path, key: str) -> None:
    store = FeatureStore(tmp_path / "store")
    with pytest.raises(InputError, match="leads outside of"):
        store.put(key, {"x": torch.ones(2)})
    with pytest.raises(InputError, match="leads outside of"):
        store.get(key)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_store_is_read_and_not_written_through(tmp_path: Path) -> None:
    FeatureStore(tmp_path / "elsewhere").put("x", {"x": torch.ones(2)})
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "disk").symlink_to(tmp_path / "elsewhere")
    store = FeatureStore(tmp_path / "store")
    assert store.get("disk/x")["x"].tolist() == [1, 1]
    with pytest.raises(InputError, match="leads outside of"):
        store.put("disk/y", {"x": torch.ones(2)})
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["x.safetensors"]
