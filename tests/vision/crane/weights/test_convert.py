"""Released checkpoints in the authors' layout, and files that are not what they should be."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.core.weights.checkpoint import load_checkpoint
from mmattn.errors import CheckpointError, InputError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.network.clip import tokenize
from mmattn.vision.crane.network.prompts import prompt_texts
from mmattn.vision.crane.weights.convert import convert

BASE = CraneConfig()


def released(n_ctx: int = 12, deep: int = 8, t_n_ctx: int = 4, width: int = 768) -> dict[str, Tensor]:
    """A file in the layout of the published ones, with values of its own."""
    generator = torch.Generator().manual_seed(0)
    ids = tokenize(prompt_texts(CraneConfig(n_ctx=n_ctx)))
    table = torch.randn(49408, width, generator=generator) if width < 100 else None
    state = {f"ctx_{side}": torch.randn(1, 1, n_ctx, width, generator=generator) for side in ("pos", "neg")}
    state |= {f"compound_prompts_text.{i}": torch.randn(t_n_ctx, width, generator=generator) for i in range(deep)}
    for side, row in zip(("pos", "neg"), ids, strict=True):
        state[f"tokenized_prompts_{side}"] = row[None, None].int()
        words = torch.zeros(77, width) if table is None else table[row]
        state[f"token_prefix_{side}"], state[f"token_suffix_{side}"] = (
            words[None, None, :1].clone(),
            words[None, None, 1 + n_ctx :].clone(),
        )
    return state


def save(state: object, tmp_path: Path, name: str = "trained_on_mvtec_crane/epoch_5.pth") -> Path:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return file


def test_sizes_are_read_off_the_tensors_and_buffers_are_dropped(tmp_path: Path) -> None:
    state = released(n_ctx=6, deep=3, t_n_ctx=2)
    folder = convert(save({"prompt_learner": state}, tmp_path), tmp_path / "out")
    tensors, config = load_checkpoint(folder, "crane")
    crane = CraneConfig.from_dict(config)
    assert (crane.n_ctx, crane.depth, crane.t_n_ctx) == (6, 4, 2)
    assert crane.deep_prompt_fp16
    assert crane.clip_model == "ViT-L-14-336-quickgelu"
    learned = {name for name in state if name.startswith(("ctx", "compound"))}
    assert set(tensors) == {f"prompt_learner.{name}" for name in learned}
    for name in learned:
        assert torch.equal(tensors[f"prompt_learner.{name}"], state[name])
    assert "epoch_5.pth" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "foundation", "layers"),
    [
        ("trained_on_mvtec_crane/epoch_5.pth", "none", (6, 12, 18, 24)),
        ("trained_on_visa_cranep/epoch_1.pth", "dinov2", (24,)),
        ("crane_plus_visa.pth", "dinov2", (24,)),
        ("Crane/trained_on_visa_cranep/epoch_1.pth", "dinov2", (24,)),
    ],
)
def test_the_variant_is_told_from_the_path(name: str, foundation: str, layers: tuple, tmp_path: Path) -> None:
    _, config = load_checkpoint(convert(save(released(), tmp_path, name), tmp_path / "out"), "crane")
    assert config["foundation"] == foundation
    assert tuple(config["feature_layers"]) == layers


def test_a_given_variant_decides_and_a_path_that_says_nothing_needs_one(tmp_path: Path) -> None:
    file = save(released(), tmp_path / "a" / "b", "epoch_5.pth")
    _, config = load_checkpoint(convert(file, tmp_path / "out", variant="crane_plus_soft"), "crane")
    assert config["foundation"] == "dinov2"
    assert config["soft_mean"]
    with pytest.raises(InputError, match="does not say which variant") as caught:
        convert(file, tmp_path / "other")
    assert "--variant" in caught.value.hint
    with pytest.raises(InputError, match="variant is 'crane3'"):
        convert(file, tmp_path / "other", variant="crane3")  # type: ignore[arg-type]


def test_another_clip_width_is_named(tmp_path: Path) -> None:
    file = save({"prompt_learner": released(width=512)}, tmp_path)
    with pytest.raises(CheckpointError, match="text width is 512; ViT-L-14-336-quickgelu has 768"):
        convert(file, tmp_path / "out")


def test_another_system_is_named_by_what_it_holds(tmp_path: Path) -> None:
    file = save({"model": {"a": torch.ones(1)}, "epoch": 3}, tmp_path)
    with pytest.raises(CheckpointError, match="expected the entry 'prompt_learner', found model, epoch"):
        convert(file, tmp_path / "out")


def test_missing_and_unexpected_names_are_counted(tmp_path: Path) -> None:
    state = released()
    state["ctx_negative"] = state.pop("ctx_neg")
    with pytest.raises(CheckpointError, match=r"1 missing \(ctx_neg\) and 1 unexpected \(ctx_negative\) tensors"):
        convert(save({"prompt_learner": state}, tmp_path), tmp_path / "out")


def test_a_gap_in_the_deep_prompts_is_noticed(tmp_path: Path) -> None:
    state = released()
    del state["compound_prompts_text.3"]
    with pytest.raises(CheckpointError, match=r"missing \(compound_prompts_text.3\)"):
        convert(save(state, tmp_path), tmp_path / "out")


def test_contradicting_sizes_are_listed(tmp_path: Path) -> None:
    state = released()
    state["compound_prompts_text.1"] = torch.zeros(5, 768)
    with pytest.raises(CheckpointError, match=r"contradict each other.*compound_prompts_text.1 \(5, 768\)"):
        convert(save(state, tmp_path), tmp_path / "out")


def test_other_texts_are_named(tmp_path: Path) -> None:
    state = released()
    state["tokenized_prompts_neg"] = tokenize(["X " * 12 + "broken object."])[None].int()
    with pytest.raises(CheckpointError, match=r"was trained with the text .*broken object"):
        convert(save(state, tmp_path), tmp_path / "out")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds pickled objects"):
        convert(save({"prompt_learner": Path("x")}, tmp_path), tmp_path / "out")


def test_embeddings_are_checked_against_the_given_clip(tmp_path: Path) -> None:
    state = released()
    table = torch.zeros(49408, 768)
    torch.save({"token_embedding.weight": table}, tmp_path / "clip.pt")
    file = save({"prompt_learner": state}, tmp_path)
    convert(file, tmp_path / "out", clip_weights=str(tmp_path / "clip.pt"))
    state["token_suffix_pos"][0, 0, 0] += 1.0
    with pytest.raises(CheckpointError, match="trained with other CLIP weights"):
        convert(save({"prompt_learner": state}, tmp_path), tmp_path / "out", clip_weights=str(tmp_path / "clip.pt"))
    torch.save({"visual.proj": table}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="no token_embedding"):
        convert(file, tmp_path / "out", clip_weights=str(tmp_path / "clip.pt"))
