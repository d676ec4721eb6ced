"""The dual-path vision tower against explicit attention maps, its options and its gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.errors import InputError
from mmattn.vision.crane.network.tower import VisionTower, dual_attention, resize_positions
from tests.vision.crane.tiny import tiny_config, tiny_model

TYPES = ("vv", "kk", "qq", "qq+kk", "qq+kk+vv", "(q+k+v)^2")


def pictures(batch: int = 2, size: int = 48, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def explicit_eattn(attn: torch.nn.MultiheadAttention, h: Tensor, attn_type: str) -> Tensor:
    """The formula with every map written out."""
    heads, d = attn.num_heads, attn.head_dim
    q, k, v = (
        F.linear(h, w, b).unflatten(-1, (heads, d)).transpose(1, 2)
        for w, b in zip(attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3), strict=True)
    )
    if attn_type == "(q+k+v)^2":
        x = torch.cat([q, k, v], dim=-1)
        maps = (x @ x.mT / (3 * d) ** 0.5).softmax(dim=-1)
    else:
        of = {"qq": q, "kk": k, "vv": v}
        maps = sum((of[pair] @ of[pair].mT / d**0.5).softmax(dim=-1) for pair in attn_type.split("+"))
    return attn.out_proj((maps @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("attn_type", TYPES)
def test_both_attentions_and_their_gradients_equal_the_explicit_maps(attn_type: str) -> None:
    torch.manual_seed(0)
    attn = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    h = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    o, s = dual_attention(attn, h, attn_type)
    expected_o = attn(h, h, h, need_weights=False)[0]
    expected_s = explicit_eattn(attn, h, attn_type)
    torch.testing.assert_close(o, expected_o, atol=1e-12, rtol=0)
    torch.testing.assert_close(s, expected_s, atol=1e-12, rtol=0)
    weight = torch.randn(2, 7, 12, dtype=torch.float64)
    inputs = (h, attn.in_proj_weight, attn.out_proj.bias)
    ours = torch.autograd.grad((s * weight).sum(), inputs)
    theirs = torch.autograd.grad((expected_s * weight).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_image_features_are_those_of_plain_clip() -> None:
    model = tiny_model()
    torch.testing.assert_close(
        model.encode_image(pictures()).image_features, model.clip.encode_image(pictures()), atol=1e-5, rtol=0
    )


def test_aliased_layers_are_the_last_one_counted_once_per_layer() -> None:
    aliased = tiny_model(feature_layers=(2, 3)).encode_image(pictures())
    distinct = tiny_model(feature_layers=(2, 3), multilayer="distinct").encode_image(pictures())
    assert aliased.repeats() == (2,)
    assert distinct.repeats() == (1, 1)
    torch.testing.assert_close(aliased.patch_features[0], distinct.patch_features[1])
    assert (distinct.patch_features[0] - distinct.patch_features[1]).abs().max() > 0.1


def test_aliased_layers_hold_the_last_block_even_if_it_is_not_listed() -> None:
    listed = tiny_model(feature_layers=(3,)).encode_image(pictures())
    unlisted = tiny_model(feature_layers=(2,)).encode_image(pictures())
    torch.testing.assert_close(unlisted.patch_features[0], listed.patch_features[0])


def test_the_e_stream_starts_from_the_stream_before_the_first_dual_block() -> None:
    model = tiny_model(dual_layers=2)
    one, two, three = model.tower.streams(pictures())
    assert one.eattn is None
    assert one.source is None
    block = model.clip.visual.transformer.resblocks[1]
    _, s = dual_attention(block.attn, block.ln_1(one.ori), "qq+kk+vv")
    torch.testing.assert_close(two.eattn, one.ori + s)
    torch.testing.assert_close(two.source, two.eattn)  # the list starts here: the published code reads the e stream
    block = model.clip.visual.transformer.resblocks[2]
    o, s = dual_attention(block.attn, block.ln_1(two.ori), "qq+kk+vv")
    torch.testing.assert_close(three.eattn, two.eattn + s)
    torch.testing.assert_close(three.source, two.ori + o)


def test_pre_attention_input_is_the_stream_entering_the_block() -> None:
    one, two, three = tiny_model(dattn_input="pre_attn").tower.streams(pictures())
    torch.testing.assert_close(two.source, one.ori)
    torch.testing.assert_close(three.source, two.ori)


def test_dattn_alone_gives_the_same_features_without_the_e_path() -> None:
    features = torch.randn(2, 5, 6, 6, generator=torch.Generator().manual_seed(3))
    both, alone = (
        VisionTower(tiny_model().clip.visual, tiny_config(both_eattn_dattn=flag))(pictures(), features)
        for flag in (True, False)
    )
    assert len(both.patch_features) == 2
    assert len(alone.patch_features) == 1
    torch.testing.assert_close(both.patch_features[0], alone.patch_features[0])


def test_features_take_the_grid_of_the_foundation() -> None:
    features = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(3))
    vision = tiny_model().tower(pictures(), features)
    assert vision.grid == (4, 3)
    assert [tuple(x.shape) for x in vision.patch_features] == [(2, 12, 32)] * 2


def test_positions_are_interpolated_and_the_table_is_left_alone() -> None:
    model = tiny_model()
    table = model.clip.visual.positional_embedding
    before = table.detach().clone()
    larger = model.encode_image(pictures(size=80))
    assert larger.grid == (10, 10)
    again = model.encode_image(pictures(size=80))
    torch.testing.assert_close(again.patch_features[0], larger.patch_features[0])
    assert torch.equal(table, before)


def test_positions_double_by_the_bilinear_rule() -> None:
    table = torch.tensor([[9.0], [0.0], [4.0]])  # class row, then a 1 x 2 grid
    assert resize_positions(table, (1, 2), (1, 4)).flatten().tolist() == [9.0, 0.0, 1.0, 3.0, 4.0]
    assert resize_positions(table, (1, 2), (1, 2)) is table


def test_gradients_reach_the_clip_through_both_paths() -> None:
    model = tiny_model()
    vision = model.encode_image(pictures())
    (vision.patch_features[0].square().mean() + vision.image_features.square().mean()).backward()
    for name in (
        "conv1.weight",
        "transformer.resblocks.0.attn.in_proj_weight",
        "transformer.resblocks.2.mlp.c_fc.weight",
    ):
        gradient = model.clip.visual.get_parameter(name).grad
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_features_do_not_depend_on_the_batch() -> None:
    model = tiny_model()
    together = model.encode_image(pictures(3))
    alone = model.encode_image(pictures(3)[1:2])
    torch.testing.assert_close(together.patch_features[0][1:2], alone.patch_features[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dual_layers": 4}, "dual_layers is 4, expected 1 to 3"),
        ({"feature_layers": (1, 3)}, r"feature_layers are \[1, 3\], expected one or more of 2 to 3"),
        ({"feature_layers": ()}, r"feature_layers are \[\], expected one or more of 2 to 3"),
    ],
)
def test_layers_that_do_not_exist_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model(**changes)


def test_the_plain_path_reads_clips_own_patch_tokens() -> None:
    model = tiny_model(attn_type="none", feature_layers=(3,))
    *_, last = model.tower.streams(pictures())
    plain = model.encode_image(pictures()).patch_features[0]
    torch.testing.assert_close(plain, model.tower.project(last.ori[:, 1:]))
    with_eattn = tiny_model(feature_layers=(3,)).encode_image(pictures())
    torch.testing.assert_close(last.ori, list(tiny_model().tower.streams(pictures()))[-1].ori)
    assert (with_eattn.patch_features[0] - plain).abs().max() > 0.1
