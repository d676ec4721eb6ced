"""Masks of transformers: as blocks they mean the same, and a model with our attention gives its own logits."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmattn.integrations.transformers import blocks_and_bias, padding_blocks
from mmattn.kernels import BlockIndex, attention

masking_utils = pytest.importorskip("transformers.masking_utils")

SIDES = {
    "left": [[0, 0, 0, 1, 1, 1, 1], [1] * 7, [0, 1, 1, 1, 1, 1, 1]],
    "right": [[1, 1, 1, 1, 0, 0, 0], [1] * 7, [1] * 6 + [0]],
}
EMPTY = [[0] * 7, [1] * 7, [1, 1, 0, 0, 0, 0, 0]]


def theirs(
    padding: Tensor | None, q_len: int, k_len: int, *, q_offset: int, window: int | None = None, kv_offset=0
) -> Tensor:
    """The bool mask that transformers makes, ``(B, 1, q_len, k_len)``."""
    function = (
        masking_utils.causal_mask_function
        if window is None
        else masking_utils.sliding_window_causal_mask_function(window)
    )
    return masking_utils.sdpa_mask(
        batch_size=1 if padding is None else len(padding), q_length=q_len, kv_length=k_len, q_offset=q_offset,
        kv_offset=kv_offset, mask_function=function, attention_mask=None if padding is None else padding.bool(),
        allow_is_causal_skip=False,
    )  # fmt: skip


def meant(blocks: BlockIndex, bias: Tensor | None, batch: int) -> Tensor:
    mask = blocks.dense() if bias is None else blocks.dense() & (bias > -65504)
    return mask.expand(batch, *mask.shape[1:])


@pytest.mark.parametrize("padding", [*SIDES.values(), EMPTY], ids=[*SIDES, "a row of padding alone"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("q_len", "room"), [(7, 0), (1, 0), (3, 0), (7, 4), (1, 4)], ids=str)
def test_a_padding_mask_is_the_mask_that_transformers_makes_of_it(padding, window, q_len: int, room: int) -> None:
    padding = torch.tensor(padding)
    k_len, q_offset = 7 + room, 7 - q_len  # room: a static cache is longer than what it holds
    expected = theirs(padding, q_len, k_len, q_offset=q_offset, window=window)
    for mask in (padding, padding.bool(), padding.float()):
        blocks = padding_blocks(mask, q_len, k_len, window=window)
        assert torch.equal(meant(blocks, None, 3), expected)
    explicit = padding_blocks(padding, q_len, k_len, window=window, q_offset=q_offset)
    assert torch.equal(meant(explicit, None, 3), expected)


def test_a_cache_cropped_to_its_window_holds_the_last_tokens() -> None:
    padding = torch.tensor(SIDES["left"])
    expected = theirs(padding, 1, 4, q_offset=6, kv_offset=3, window=4)
    assert torch.equal(meant(padding_blocks(padding, 1, 4, window=4), None, 3), expected)


def test_encoders_hide_padding_alone() -> None:
    padding = torch.tensor(SIDES["right"])
    mask = padding_blocks(padding, 7, causal=False).dense()
    assert torch.equal(mask, padding.bool()[:, None, None].expand(3, 1, 7, 7))


def test_a_batch_without_padding_is_plainly_causal() -> None:
    blocks = padding_blocks(torch.ones(2, 7, dtype=torch.int64), 7)
    assert (blocks.causal, blocks.k_valid, blocks.spans) == (True, None, None)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float16, torch.bfloat16, "inf"], ids=str)
@pytest.mark.parametrize("padding", [None, *SIDES.values(), EMPTY], ids=["none", *SIDES, "a row of padding alone"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("q_len", [7, 2])
def test_masks_of_causal_models_become_blocks_alone(dtype, padding, window, q_len: int) -> None:
    padding = None if padding is None else torch.tensor(padding)
    expected = theirs(padding, q_len, 7, q_offset=7 - q_len, window=window)
    mask = expected
    if dtype != torch.bool:
        kind, low = (torch.float32, -torch.inf) if dtype == "inf" else (dtype, torch.finfo(dtype).min)
        mask = torch.zeros(expected.shape, dtype=kind).masked_fill(~expected, low)
    blocks, bias = blocks_and_bias(mask)
    assert bias is None
    assert torch.equal(meant(blocks, None, len(expected)), expected)
    assert blocks.causal == (window is None)


def test_the_sum_of_two_additive_masks_hides_what_either_hides() -> None:
    low = torch.finfo(torch.float32).min
    one = torch.zeros(2, 1, 5, 5).masked_fill(~torch.ones(5, 5).tril().bool(), low)
    other = torch.zeros(2, 1, 1, 5)
    other[1, ..., :2] = low
    blocks, bias = blocks_and_bias(one + other)  # low + low is -inf
    assert bias is None
    assert torch.equal(meant(blocks, None, 2), (one == 0) & (other == 0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([(1, 1), (2, 1), (1, 4), (2, 4)]), st.booleans(), st.booleans())
def test_any_four_dimensional_mask_gives_the_attention_of_the_definition(
    seed, shape, additive: bool, binary: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64, generator=generator)
    visible = torch.rand(*shape, 6, 6, generator=generator) < 0.6
    values = torch.zeros(visible.shape) if binary else torch.randn(visible.shape, generator=generator)
    low = torch.finfo(torch.float32).min
    mask = values.masked_fill(~visible, low).double() if additive else visible
    blocks, bias = blocks_and_bias(mask)
    scores = q @ k.transpose(-1, -2) / 8**0.5 + (mask if additive else torch.zeros(()))
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1).nan_to_num(0.0)
    torch.testing.assert_close(attention(q, k, v, blocks, bias=bias), weights @ v)


def test_an_additive_mask_that_is_not_binary_keeps_its_gradient() -> None:
    learned = torch.randn(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    causal = torch.zeros(5, 5).masked_fill(~torch.ones(5, 5).tril().bool(), torch.finfo(torch.float32).min).double()
    q, k, v = torch.randn(3, 1, 4, 5, 8, dtype=torch.float64)
    blocks, bias = blocks_and_bias(learned + causal)
    assert blocks.causal
    ours = torch.autograd.grad(attention(q, k, v, blocks, bias=bias).square().sum(), learned)
    weights = (q @ k.transpose(-1, -2) / 8**0.5 + learned + causal).softmax(-1)
    torch.testing.assert_close(ours, torch.autograd.grad((weights @ v).square().sum(), learned))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: padding_blocks(torch.ones(2, 1, 4, 4), 4),
            r"is \(batch, tokens\), got \(2, 1, 4, 4\); .*blocks_and_bias",
        ),
        (lambda: padding_blocks(torch.tensor([[1, 1, 2, 2]]), 4), "holds 0 and 1, got up to 2; .*from_cu_seqlens"),
        (lambda: padding_blocks(torch.ones(1, 4), 4, causal=False, window=2), "needs causal=True"),
        (lambda: blocks_and_bias(torch.ones(2, 4, dtype=torch.bool)), r"got torch.bool \(2, 4\); .*padding_blocks"),
        (lambda: blocks_and_bias(torch.ones(1, 1, 4, 4, dtype=torch.int64)), "bool or floating mask"),
    ],
)
def test_other_masks_are_explained(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def forward(
    module, query, key, value, attention_mask, scaling=None, softcap=None, sliding_window=None, **_
) -> tuple[Tensor, None]:
    """transformers' signature over ``attention``."""
    bias, q_len, k_len = None, query.shape[2], key.shape[2]
    if attention_mask is None:
        blocks = BlockIndex.all_blocks(q_len, k_len, causal=True, window=sliding_window)
    elif attention_mask.ndim == 2:
        blocks = padding_blocks(attention_mask, q_len, k_len, window=sliding_window)
    else:
        blocks, bias = blocks_and_bias(attention_mask)
    out = attention(query, key, value, blocks, scale=scaling, softcap=softcap, bias=bias)
    return out.transpose(1, 2).contiguous(), None


@pytest.fixture(params=["sdpa_mask", "eager_mask", "flash_attention_mask"])
def ours(request: pytest.FixtureRequest) -> Iterator[str]:
    """Registers our attention with one kind of mask, and takes it out again."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    functions, masks = (
        ALL_ATTENTION_FUNCTIONS._global_mapping,
        masking_utils.ALL_MASK_ATTENTION_FUNCTIONS._global_mapping,
    )
    before = dict(functions), dict(masks)
    functions["mmattn"], masks["mmattn"] = forward, getattr(masking_utils, request.param)
    yield "mmattn"
    del functions["mmattn"], masks["mmattn"]
    assert (functions, masks) == before


def tiny(name: str) -> torch.nn.Module:
    """A randomly initialised model in float32: its softmax would make NaN of a float64 mask."""
    import transformers

    options: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    if name == "Gemma2":
        options |= {"sliding_window": 4, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options, attn_implementation="eager")
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
@pytest.mark.parametrize("side", SIDES)
def test_a_model_gives_its_own_logits_for_padded_batches(name: str, side: str, ours: str) -> None:
    model, padding = tiny(name), torch.tensor(SIDES[side])
    tokens = torch.randint(3, 50, padding.shape, generator=torch.Generator().manual_seed(1))
    logits = []
    for kind in ("eager", ours):
        model.set_attn_implementation(kind)
        with torch.no_grad():
            logits.append(model(tokens, attention_mask=padding).logits[padding.bool()])
    assert logits[0].std() > 0.05
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
def test_a_model_decodes_with_its_cache_as_before(name: str, ours: str) -> None:
    model, padding = tiny(name), torch.tensor(SIDES["left"])
    tokens = torch.randint(3, 50, padding.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for kind in ("eager", ours):
        model.set_attn_implementation(kind)
        with torch.no_grad():
            result = model.generate(
                tokens, attention_mask=padding, max_new_tokens=4, do_sample=False, eos_token_id=None,
                return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
        found.append((result.sequences, torch.stack(result.logits)))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-5, rtol=1e-5)


def test_gradients_of_a_padded_batch_are_the_models_own(ours: str) -> None:
    model, padding = tiny("Llama"), torch.tensor(SIDES["left"])
    tokens = torch.randint(3, 50, padding.shape, generator=torch.Generator().manual_seed(1))
    grads = []
    for kind in ("eager", ours):
        model.set_attn_implementation(kind)
        # The first real token is predicted from a padded place, whose row sees nothing here and everything there.
        labels = tokens.masked_fill((padding == 0) | (padding.roll(1, dims=1) == 0), -100)
        loss = model(tokens, attention_mask=padding, labels=labels).loss
        grads.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True))
    torch.testing.assert_close(grads[1], grads[0], atol=1e-5, rtol=1e-4)
