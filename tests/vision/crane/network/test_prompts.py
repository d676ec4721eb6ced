"""Prompts: what they are made of, and the text tower read on a shortened sequence."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.vision.crane.config import CraneConfig
from mmattn.vision.crane.network.prompts import PromptLearner, encode_prompts, encode_texts, prompt_texts, shift_ids
from tests.vision.crane.tiny import TOKEN_IDS, tiny_config, tiny_model

SOT, EOT = 5, 6  # rows of the tiny vocabulary
CONTEXT_TYPES = ("none", "pad_suffix", "pad_prefix", "replace_prefix", "replace_suffix")


def learner(**changes: object) -> PromptLearner:
    torch.manual_seed(0)
    return PromptLearner(tiny_config(**changes), text_width=4, embed_dim=4, context_length=20)


def table() -> nn.Embedding:
    return nn.Embedding.from_pretrained(torch.arange(len(TOKEN_IDS)).float()[:, None].expand(-1, 4))


def image() -> Tensor:
    return torch.tensor([[0.0, 3.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.0]])


def test_static_prompts_are_start_context_and_words() -> None:
    prompts, ids = learner()(table())
    made = learner()
    assert ids[0, 0].tolist() == [SOT, *[2] * 12, 4, 1, EOT, *[0] * 4]
    assert ids[1, 0].tolist() == [SOT, *[2] * 12, 3, 4, 1, EOT, *[0] * 3]
    assert prompts.shape == (2, 1, 20, 4)
    assert prompts[0, 0, 0].tolist() == [SOT] * 4
    torch.testing.assert_close(prompts[0, 0, 1:13], made.ctx_pos[0, 0])
    torch.testing.assert_close(prompts[1, 0, 1:13], made.ctx_neg[0, 0])
    assert prompts[1, 0, 13:18, 0].tolist() == [3, 4, 1, EOT, 0]


@pytest.mark.parametrize(
    ("context_type", "image_at", "context_at", "read_at"),
    [
        ("none", None, slice(1, 13), 15),
        ("pad_suffix", 13, slice(1, 13), 16),
        ("pad_prefix", 1, slice(2, 14), 16),
        ("replace_prefix", 1, slice(2, 13), 15),
        ("replace_suffix", 12, slice(1, 12), 15),
    ],
)
def test_image_token_takes_its_place(context_type: str, image_at: int | None, context_at: slice, read_at: int) -> None:
    made = learner(context_type=context_type)
    prompts, ids = made(table(), image())
    assert prompts.shape == (2, 2, 20, 4)
    if image_at is not None:
        assert prompts[:, 0, image_at].tolist() == [[0, 1, 0, 0]] * 2
        assert prompts[:, 1, image_at].tolist() == [[-1, 0, 0, 0]] * 2
    context = made.ctx_pos[0, 0]
    kept = {"replace_prefix": context[1:], "replace_suffix": context[:-1]}.get(context_type, context)
    torch.testing.assert_close(prompts[0, 0, context_at], kept)
    assert ids[0].argmax(dim=-1).tolist() == [read_at] * 2
    assert ids[1].argmax(dim=-1).tolist() == [read_at + 1] * 2
    assert prompts[0, 0, read_at].tolist() == [EOT] * 4


def test_a_padded_in_image_token_repeats_one_id_as_published() -> None:
    ids = torch.tensor([10, 1, 1, 7, 8, 11, 0, 0])
    assert shift_ids("pad_suffix", ids, 2).tolist() == [10, 1, 1, 7, 8, 8, 11, 0]
    assert shift_ids("pad_prefix", ids, 2).tolist() == [10, 1, 1, 1, 7, 8, 11, 0]
    assert shift_ids("replace_suffix", ids, 2) is ids


def full_length_text(model: nn.Module, prompts: Tensor, ids: Tensor, deep: list[Tensor]) -> Tensor:
    """The text tower on all 77 positions, as its definition reads."""
    clip = model.clip
    x = prompts[:, 0] + clip.positional_embedding
    for i, block in enumerate(clip.transformer.resblocks):
        if 0 < i <= len(deep):
            x = torch.cat([x[:, :1], deep[i - 1].expand(2, -1, -1), x[:, 1 + len(deep[i - 1]) :]], dim=1)
        x = block(x, attn_mask=clip.attn_mask)
    return clip.ln_final(x)[torch.arange(2), ids[:, 0].argmax(dim=-1)] @ clip.text_projection


def test_reading_up_to_the_end_token_equals_reading_all_positions() -> None:
    model = tiny_model()
    prompts, ids = model.prompt_learner(model.clip.token_embedding)
    deep = list(model.prompt_learner.compound_prompts_text)
    assert len(deep) == 2
    ours = encode_prompts(model.clip, prompts, ids, deep)[:, 0]
    torch.testing.assert_close(ours, full_length_text(model, prompts, ids, deep), atol=1e-6, rtol=1e-5)


def test_plain_texts_are_those_of_clip() -> None:
    model = tiny_model()
    texts = ["object.", "X damaged object."]
    from mmattn.vision.crane.network.clip import tokenize

    expected = model.clip.encode_text(tokenize(texts, 77, TOKEN_IDS))
    torch.testing.assert_close(encode_texts(model.clip, texts, TOKEN_IDS), expected, atol=1e-6, rtol=1e-5)


def test_deep_prompts_are_rounded_to_float16_only_on_request() -> None:
    exact, rounded = tiny_model(), tiny_model(deep_prompt_fp16=True)
    assert (exact.encode_text() - rounded.encode_text()).abs().max() > 1e-7
    for parameter in exact.prompt_learner.compound_prompts_text:
        parameter.data = parameter.data.half().float()
    torch.testing.assert_close(exact.encode_text(), rounded.encode_text(), atol=0, rtol=0)


@pytest.mark.parametrize("context_type", CONTEXT_TYPES)
def test_gradients_reach_every_learned_tensor(context_type: str) -> None:
    model = tiny_model(context_type=context_type)
    text = model.encode_text(F.normalize(torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), dim=-1))
    assert text.shape == (2, 2, 32)
    text.square().sum().backward()
    for name, parameter in model.prompt_learner.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_a_linear_map_bridges_other_image_widths() -> None:
    made = PromptLearner(tiny_config(context_type="pad_prefix"), text_width=4, embed_dim=3, context_length=20)
    prompts, _ = made(table(), torch.tensor([[0.0, 5.0, 0.0]]))
    torch.testing.assert_close(prompts[0, 0, 1], made.image_projection.weight[:, 1])


def test_conditioning_is_drawn_with_the_given_probability() -> None:
    import random

    draws = random.Random(0)
    assert learner(context_prob=1.0).draw_conditioning(draws)
    assert not learner(context_prob=0.0).draw_conditioning(draws)
    often = learner(context_prob=0.25)
    assert 200 < sum(often.draw_conditioning(draws) for _ in range(1000)) < 300


def test_texts_without_words_after_the_context_are_possible() -> None:
    assert prompt_texts(CraneConfig(n_ctx=1, normal_text="object", abnormal_text="")) == ("X object", "X ")


@pytest.mark.parametrize("changes", [{"n_ctx": 0}, {"depth": 0}, {"t_n_ctx": 0}])
def test_empty_prompts_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        learner(**changes)


def test_deep_prompts_longer_than_the_text_are_refused() -> None:
    with pytest.raises(InputError, match="t_n_ctx is 15; the prompts have only 14 tokens"):
        learner(t_n_ctx=15)
