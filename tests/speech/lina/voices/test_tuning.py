"""Initial-state tuning learns a voice and nothing else."""

from itertools import pairwise

import pytest
import torch

from mmattn.errors import InputError
from mmattn.speech.lina.losses import lina_loss
from mmattn.speech.lina.network.batch import TextAndCodes, collate
from mmattn.speech.lina.voices.tuning import TuningOptions, TuningStep, tune
from tests.speech.lina.tiny import text_ids, tiny_model, utterances


def samples() -> list[TextAndCodes]:
    """A voice that knows three of twelve sounds."""
    return [TextAndCodes(text_ids(4, i), torch.randint(4, 7, (2, 8))) for i in range(6)]


def test_the_loss_falls_and_the_weights_stay() -> None:
    model, items = tiny_model(), samples()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = tune(model, items, TuningOptions(rank=2, passes=8, accumulate=1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    batch = collate(items)
    with torch.no_grad():
        plain, tuned = (
            lina_loss(model(batch, state=start).logits, batch.audio, batch.audio_valid).total
            for start in (None, state(model.initial_state(6)))
        )
    assert tuned < 0.8 * plain
    assert not any(parameter.requires_grad for parameter in state.parameters())


def test_every_sample_is_seen_once_in_a_pass_in_an_order_of_its_own() -> None:
    steps: list[TuningStep] = []
    tune(tiny_model(), samples()[:5], TuningOptions(passes=2), report=steps.append)
    assert [(step.step, step.total) for step in steps] == [(i, 6) for i in range(1, 7)]
    assert all(step.loss > 0 for step in steps)


def test_gradients_are_gathered_over_several_batches() -> None:
    model, items = tiny_model(), samples()
    snapshots: list[torch.Tensor] = []
    tune(
        model, items, TuningOptions(batch_size=1),
        report=lambda step: snapshots.append(step.state.tensors["layer0_k"].detach().clone()),
    )  # fmt: skip
    changes = [not torch.equal(a, b) for a, b in pairwise(snapshots)]
    assert changes == [False, False, True, False, True]  # after four batches, and the rest at the end


def test_a_training_model_is_training_again_afterwards() -> None:
    model = tiny_model().train()
    model.head.requires_grad_(False)  # type: ignore[union-attr]
    tune(model, samples()[:2])
    assert model.training
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head"]


@pytest.mark.parametrize("mixer", ["gla", "simple_gla", "rwkv6"])
def test_all_states_can_be_learned_at_full_rank(mixer: str) -> None:
    state = tune(
        tiny_model(mixer=mixer), utterances((4, 5)), TuningOptions(rank=None, with_alignment=True, with_extras=True)
    )
    assert "alignment" in state.tensors
    assert "layer3_extra0" in state.tensors
    assert float(state.tensors["layer0"].abs().max()) > 0.0


def test_no_samples_are_an_error() -> None:
    with pytest.raises(InputError, match="no samples"):
        tune(tiny_model(), [])
