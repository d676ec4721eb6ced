"""States of all training voices."""

import torch

from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.voices.table import VoiceTable
from tests.speech.lina.tiny import tiny_config


def test_a_row_of_the_table_is_the_voice_it_gives() -> None:
    torch.manual_seed(0)
    model = LinaModel(tiny_config()).eval()
    table = VoiceTable(model.initial_state(1), 3, rank=2, spread=1.0)
    state = table(model.initial_state(3), torch.tensor([2, -1, 0]))
    for row, number in ((0, 2), (2, 0)):
        alone = table.voice(number)(model.initial_state(1))
        for ours, theirs in zip(state.layers, alone.layers, strict=True):
            torch.testing.assert_close(ours[0][row], theirs[0][0])
            assert float(ours[0][row].detach().abs().max()) > 0
    assert all(float(layer[0][1].detach().abs().max()) == 0.0 for layer in state.layers)


def test_gradients_reach_the_voices_that_spoke() -> None:
    torch.manual_seed(0)
    model = LinaModel(tiny_config())
    table = VoiceTable(model.initial_state(1), 2)
    state = table(model.initial_state(2), torch.tensor([1, -1]))
    sum(layer[0].square().sum() for layer in state.layers).backward()
    for parameter in table.values:
        assert float(parameter.grad[1].abs().max()) > 0
        assert float(parameter.grad[0].abs().max()) == 0
