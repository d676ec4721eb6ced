"""Generation: the delay pattern, ends, prompts, independence of the batch, guidance, streaming."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmattn.errors import CheckpointError, InputError
from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.generation.steps import Generation, GenerationOptions, Speech, SpeechRequest, generate
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.network.batch import END, PAD, START, delay, to_codes, to_tokens, undelay
from mmattn.speech.lina.network.decoder import DecoderState
from tests.speech.lina.tiny import ScriptedModel, some_codes, text_ids, tiny_config, tiny_model

GREEDY = SamplingOptions(temperature=0.0)
RANDOM = SamplingOptions(temperature=1.3, top_k=0, sampled_codebooks=None)


def asking_for(frames: int, **fields: Any) -> SpeechRequest:
    """A request that :class:`ScriptedModel` answers with so many frames."""
    return SpeechRequest(torch.tensor([1, frames, 2]), **fields)


def spoken(model: LinaModel, *requests: SpeechRequest, **options: Any) -> list[Speech]:
    return generate(model, requests, GenerationOptions(**{"sampling": GREEDY, **options}))


def learned_state(model: LinaModel, seed: int) -> DecoderState:
    """A state as a voice has it."""
    generator = torch.Generator().manual_seed(seed)
    fresh = model.initial_state(1)
    layers = tuple((torch.randn(layer[0].shape, generator=generator), *layer[1:]) for layer in fresh.layers)
    return DecoderState(layers, fresh.alignment, fresh.position)


@pytest.mark.parametrize("codebooks", [1, 2, 4])
@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("free_running", [False, True])
def test_all_frames_are_returned_the_first_and_the_last_included(
    codebooks: int, frames: int, free_running: bool
) -> None:
    model = ScriptedModel(tiny_config(num_codebooks=codebooks))
    found = spoken(model, asking_for(frames), free_running=free_running)[0]
    assert torch.equal(found.codes, model.script(frames))
    assert found.finished
    assert found.alignment.shape == (found.tokens.shape[1], 3)


def test_an_utterance_ends_with_the_first_codebook_and_the_others_catch_up() -> None:
    class Rambling(ScriptedModel):
        """Only its first codebook ever ends."""

        def column(self, frames: int, place: int) -> Tensor:
            column = super().column(frames, place)
            return torch.where((column == END) & (torch.arange(len(column)) > 0), 5, column)

    model = Rambling(tiny_config(num_codebooks=3))
    found = spoken(model, asking_for(4), max_frames=50)[0]
    assert found.finished
    assert torch.equal(found.codes, model.script(4))
    # As in the published code, which waits for all codebooks to end at once: it never stops.
    endless = spoken(model, asking_for(4), max_frames=50, free_running=True)[0]
    assert not endless.finished
    assert endless.codes.shape == (3, 50)


def test_every_item_stops_by_itself_and_leaves_the_batch() -> None:
    model = ScriptedModel(tiny_config())
    widths: list[int] = []
    generation = Generation(model, [asking_for(n) for n in (7, 2, 5)], GenerationOptions(sampling=GREEDY))
    for stepped in generation:
        widths.append(len(stepped))
    assert generation.done
    assert [widths.count(n) for n in (3, 2, 1)] == [3, 3, 2]
    for index, frames in enumerate((7, 2, 5)):
        assert torch.equal(generation.speech(index).codes, model.script(frames))


def test_what_does_not_end_is_cut() -> None:
    model = ScriptedModel(tiny_config(num_codebooks=3))
    found = spoken(model, asking_for(9), max_frames=4)[0]
    assert not found.finished
    assert torch.equal(found.codes, model.script(9)[:, :4])


def test_a_least_length_is_kept() -> None:
    found = spoken(ScriptedModel(tiny_config()), asking_for(2), min_frames=5, max_frames=5)[0]
    assert found.codes.shape == (2, 5)
    assert found.tokens[0].tolist().count(END) == 1


def test_the_end_can_be_made_likelier() -> None:
    model = tiny_model()
    lengths = [
        spoken(model, SpeechRequest(text_ids(6)), end_bias=bias, max_frames=30)[0].codes.shape[1]
        for bias in (-100.0, 100.0)
    ]
    assert lengths == [30, 1]


def test_tokens_follow_the_delay_pattern() -> None:
    model = tiny_model(num_codebooks=3)
    found = spoken(model, SpeechRequest(text_ids(6)), sampling=RANDOM, max_frames=12, min_frames=12)[0]
    assert torch.equal(found.tokens, delay(undelay(found.tokens, 12, first=0))[:, 1:15])
    assert not bool((undelay(found.tokens, 12, first=0) < 3).any())


class TestPrompt:
    """Going on from given speech."""

    @pytest.mark.parametrize("codebooks", [1, 3])
    def test_the_prompt_is_cut_off_and_what_follows_is_whole(self, codebooks: int) -> None:
        model = ScriptedModel(tiny_config(num_codebooks=codebooks))
        script = model.script(9)
        found = spoken(model, asking_for(9, prompt=script[:, :4]))[0]
        assert torch.equal(found.codes, script[:, 4:])
        assert found.finished

    def test_an_end_within_the_prompt_does_not_stop(self) -> None:
        model = ScriptedModel(tiny_config())
        # The model wants to end after 3 frames; the prompt has 6.
        found = spoken(model, asking_for(3, prompt=some_codes(6)), max_frames=5)[0]
        assert found.codes.shape[1] == 1

    @torch.no_grad()
    def test_it_is_taken_in_as_it_was_said(self) -> None:
        model, text, prompt = tiny_model().double(), text_ids(6), some_codes(7, seed=5)
        found = spoken(model, SpeechRequest(text, prompt), max_frames=6, min_frames=6)[0]
        said = torch.cat([to_tokens(prompt), to_tokens(found.codes)], dim=1)
        # One pass over everything agrees that each token was the likeliest.
        columns = delay(said)[:, :-2].T[None]
        logits = model.advance(columns, model.remember(text[None]), model.initial_state(1)).logits[0]
        logits[..., [PAD, START, END]] = -torch.inf
        likeliest = logits.argmax(-1)  # (columns, Q)
        for codebook in range(2):
            places = torch.arange(7, 13) + codebook
            assert torch.equal(likeliest[places, codebook], to_tokens(found.codes)[codebook])

    def test_prompts_that_do_not_fit_are_refused(self) -> None:
        model = tiny_model()
        with pytest.raises(InputError, match=r"prompt has shape \(1, 4\), expected \(2, frames\)"):
            spoken(model, SpeechRequest(text_ids(4), some_codes(4, 1)))
        with pytest.raises(InputError, match="ids outside 0 to 11; it is of another codec"):
            spoken(model, SpeechRequest(text_ids(4), some_codes(4, size=12) + 8))


@pytest.mark.parametrize("mixer", ["gla", "rwkv6"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_different_texts_in_one_batch_come_out_as_each_alone(mixer: str, guidance: float) -> None:
    model = tiny_model(mixer=mixer, text_mask_probability=0.1).double()
    requests = [
        SpeechRequest(text_ids(5, 1), seed=1),
        SpeechRequest(text_ids(40, 2), some_codes(6, seed=2), seed=2),
        SpeechRequest(text_ids(9, 3), state=learned_state(model, 3), seed=3),
        SpeechRequest(text_ids(5, 1), some_codes(3, seed=4), learned_state(model, 4), seed=4),
        SpeechRequest(text_ids(5, 1), seed=5),
    ]
    hot = SamplingOptions(temperature=5.0, top_k=0, sampled_codebooks=None)
    options = {"sampling": hot, "min_frames": 8, "max_frames": 12, "guidance": guidance}
    together = spoken(model, *requests, **options)
    for request, found in zip(requests, together, strict=True):
        alone = spoken(model, request, **options)[0]
        assert torch.equal(alone.codes, found.codes)
        assert alone.finished == found.finished
        torch.testing.assert_close(alone.alignment, found.alignment)
        torch.testing.assert_close(alone.state.layers, found.state.layers)
    assert not torch.equal(together[0].tokens, together[4].tokens)


def test_generating_twice_gives_the_same_and_leaves_the_voice_alone() -> None:
    model = tiny_model()
    state = learned_state(model, 1)
    before = [layer[0].clone() for layer in state.layers]
    request = SpeechRequest(text_ids(6), state=state, seed=7)
    first, second = (spoken(model, request, sampling=RANDOM, max_frames=15)[0] for _ in range(2))
    assert torch.equal(first.codes, second.codes)
    assert all(torch.equal(layer[0], old) for layer, old in zip(state.layers, before, strict=True))
    other = spoken(model, SpeechRequest(text_ids(6), seed=7), sampling=RANDOM, max_frames=15)[0]
    assert not torch.equal(first.tokens, other.tokens)


def test_the_text_side_is_computed_once() -> None:
    scripted = ScriptedModel(tiny_config())
    spoken(scripted, asking_for(9), asking_for(4))
    assert scripted.texts_read == 1
    model = tiny_model()
    calls: list[str] = []
    parts = {
        "encoder": model.text_encoder,
        "keys": model.decoder.cross.get_submodule("projections.k"),
        "values": model.decoder.cross.get_submodule("projections.v"),
        "positions": model.decoder.cross.get_submodule("positions"),
        "queries": model.decoder.cross.get_submodule("projections.q"),
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda _m, _i, _o, name=name: calls.append(name))
    spoken(model, SpeechRequest(text_ids(6)), max_frames=8, min_frames=8)
    assert {name: calls.count(name) for name in parts} == {
        "encoder": 1, "keys": 1, "values": 1, "positions": 1, "queries": 9,
    }  # fmt: skip


def test_guidance_extrapolates_from_the_logits_without_text() -> None:
    model = tiny_model(text_mask_probability=0.1)
    text = text_ids(6)[None]
    masked = torch.full_like(text, model.mask_token)
    with torch.no_grad():
        given, without = (
            model.advance(model.start_column(1), model.remember(t), model.initial_state(1)).logits[0, -1, 0]
            for t in (text, masked)
        )
    for guidance in (0.0, 0.5, 3.0):
        wanted = without + guidance * (given - without)
        wanted[[PAD, START, END]] = -torch.inf
        found = spoken(model, SpeechRequest(text[0]), guidance=guidance, max_frames=1)[0]
        assert int(found.tokens[0, 0]) == int(wanted.argmax())


def test_guidance_needs_a_model_that_knows_to_do_without_text() -> None:
    with pytest.raises(InputError, match="never trained without text"):
        spoken(tiny_model(), SpeechRequest(text_ids(4)), guidance=2.0)


def test_a_penalty_avoids_what_was_just_heard() -> None:
    model = tiny_model(num_codebooks=1)
    sampling = SamplingOptions(top_k=1, repetition_penalty=1e9, repetition_window=5)
    found = spoken(model, SpeechRequest(text_ids(6)), sampling=sampling, max_frames=30, min_frames=30)[0]
    for place in range(30):
        assert int(found.codes[0, place]) not in found.codes[0, max(0, place - 5) : place].tolist()


@pytest.mark.parametrize("prompt", [None, some_codes(4, 3)])
def test_frames_can_be_taken_while_they_are_made(prompt: Tensor | None) -> None:
    model = tiny_model(num_codebooks=3)
    request = SpeechRequest(text_ids(6), prompt, seed=2)
    generation = Generation(model, [request], GenerationOptions(sampling=RANDOM, max_frames=20))
    taken: list[Tensor] = []
    for _ in generation:
        new = generation.codes(0, start=sum(part.shape[1] for part in taken))
        assert new.shape[1] <= 1
        taken.append(new)
    assert torch.equal(torch.cat(taken, dim=1), generation.speech(0).codes)
    assert generation.frames(0) == generation.speech(0).codes.shape[1]


def test_speech_of_an_item_that_has_not_ended_is_an_error() -> None:
    generation = Generation(tiny_model(), [SpeechRequest(text_ids(4))], GenerationOptions(min_frames=5))
    generation.step()
    with pytest.raises(ValueError, match="item 0 has not ended"):
        generation.speech(0)


def test_a_state_can_be_gone_on_from() -> None:
    model = tiny_model()
    first = spoken(model, SpeechRequest(text_ids(6)), max_frames=8, min_frames=8)[0]
    carried = first.state.for_next_text(model.initial_state(1))
    after = spoken(model, SpeechRequest(text_ids(7, 1), state=carried), max_frames=8)[0]
    anew = spoken(model, SpeechRequest(text_ids(7, 1)), max_frames=8)[0]
    assert not torch.equal(after.tokens, anew.tokens)
    assert first.state.position.tolist() == [9]


def test_no_requests_give_no_speech() -> None:
    assert spoken(tiny_model()) == []


def test_damaged_weights_are_an_error_and_no_noise() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.text_embedding.weight[5] = torch.nan
    with pytest.raises(CheckpointError, match="output is not finite"):
        spoken(model, SpeechRequest(torch.tensor([1, 5, 2])))


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"text has shape \(0,\)"):
        spoken(tiny_model(), SpeechRequest(torch.empty(0, dtype=torch.long)))


def test_the_other_codebooks_take_the_likeliest_token() -> None:
    model, request = tiny_model(), SpeechRequest(text_ids(6), seed=1)
    none = spoken(model, request, sampling=SamplingOptions(sampled_codebooks=0), max_frames=9, min_frames=9)[0]
    greedy = spoken(model, request, max_frames=9, min_frames=9)[0]
    assert torch.equal(none.codes, greedy.codes)
    codes = to_codes(greedy.tokens)
    assert torch.equal(codes[0, :9], greedy.codes[0])
