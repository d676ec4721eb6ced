"""Few-shot and mutual memories against values worked out by hand and laws of distances."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.vision.crane.network.memory import MutualMemory, NormalMemory, blend, nearest_distance


def unit(*vectors: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(vectors), dim=-1)


def feature_map(rows: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return rows.T.reshape(-1, height, width)


def test_nearest_distance_is_zero_half_and_one_for_equal_orthogonal_and_opposite_patches():
    bank = unit([1.0, 0.0, 0.0])
    queries = unit([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0])
    assert nearest_distance(queries, bank).tolist() == [0.0, 0.5, 1.0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_a_larger_bank_never_increases_a_distance(seed: int, extra: int):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(30 + extra, 6, generator=generator), dim=-1)
    queries, bank = rows[:10], rows[10:]
    assert torch.all(nearest_distance(queries, bank) <= nearest_distance(queries, bank[:20]))


def test_a_patch_unlike_all_normal_patches_stands_out_and_a_normal_one_does_not():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(12, 8, generator=generator)
    normals = [feature_map(base + 0.05 * torch.randn(12, 8, generator=generator), 3, 4) for _ in range(4)]
    memory = NormalMemory.fit(normals)
    query = base + 0.05 * torch.randn(12, 8, generator=generator)
    query[5] = -base.mean(dim=0)
    distances = memory.distances(feature_map(query, 3, 4))
    assert distances.shape == (3, 4)
    assert distances.flatten().argmax() == 5
    assert distances[1, 1] > 0.8
    others = torch.cat([distances.flatten()[:5], distances.flatten()[6:]])
    assert others.max() < 0.55


def test_one_normal_picture_is_enough():
    rows = torch.nn.functional.normalize(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    memory = NormalMemory.fit([feature_map(rows, 4, 4)])
    assert memory.distances(feature_map(rows, 4, 4)).max() < 1e-5


def test_thinning_keeps_the_bank_within_its_limit():
    maps = [torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    assert len(NormalMemory.fit(maps, max_patches=17).bank) == 17


def test_an_empty_memory_is_refused():
    with pytest.raises(InputError, match="memory of normal pictures is empty"):
        NormalMemory.fit([])


def test_mutual_memory_marks_what_no_other_picture_has(tmp_path: Path):
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(9, 6, generator=generator)
    maps = [feature_map(base + 0.02 * torch.randn(9, 6, generator=generator), 3, 3) for _ in range(6)]
    maps[2][:, 1, 1] = -base.mean(dim=0)
    keys = [str(i) for i in range(6)]
    memory = MutualMemory.fit(zip(keys, maps, strict=True), tmp_path / "store.npy", count=6)
    odd = memory.distances(maps[2], key="2")
    assert odd.flatten().argmax() == 4
    assert odd.max() > 3 * memory.distances(maps[0], key="0").max()


def test_a_picture_is_never_compared_with_itself(tmp_path: Path):
    maps = {str(i): feature_map(torch.eye(4)[[i] * 4], 2, 2) for i in range(4)}
    memory = MutualMemory.fit(maps.items(), tmp_path / "store.npy", count=4)
    memory.scale = 0.5
    assert torch.allclose(memory.distances(maps["1"], key="1"), torch.full((2, 2), 0.5))
    assert memory.distances(maps["1"], key=None).max() < 1e-6


def test_the_store_holds_at_most_the_reference_pictures(tmp_path: Path):
    maps = [(str(i), torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(i))) for i in range(20)]
    memory = MutualMemory.fit(iter(maps), tmp_path / "store.npy", count=20, max_references=5)
    assert memory.store.shape == (5, 4, 4)
    assert (tmp_path / "store.npy").stat().st_size == 5 * 4 * 4 * np.dtype(np.float16).itemsize


def test_mutual_scoring_of_two_pictures_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="was given 2"):
        MutualMemory.fit([], tmp_path / "store.npy", count=2)


def test_the_scale_is_the_middle_of_the_map_and_nothing_saturates():
    memory = NormalMemory(bank=unit([1.0, 0.0]), scale=0.25)
    angles = torch.tensor([0.0, 60.0, 90.0, 180.0]).deg2rad()
    queries = torch.stack([angles.cos(), angles.sin()], -1)
    distances = memory.distances(feature_map(queries, 2, 2)).flatten()
    torch.testing.assert_close(distances, torch.tensor([0.0, 0.5, 2 / 3, 0.8]))


def test_text_and_memory_are_blended_by_the_weight():
    scores, maps = torch.tensor([0.2]), torch.full((1, 4, 4), 0.4)
    distances = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    for weight in (0.0, 0.25, 1.0):
        score, mixed = blend(scores, maps, distances, weight=weight, sigma=0.0)
        assert score.item() == pytest.approx((1 - weight) * 0.2 + weight)
        torch.testing.assert_close(mixed[0, :, 0], torch.full((4,), (1 - weight) * 0.4))
        torch.testing.assert_close(mixed[0, :, 3], torch.full((4,), (1 - weight) * 0.4 + weight))
