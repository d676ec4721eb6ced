"""Language models of a few thousand parameters with random weights, and one that says what it is told to."""

from typing import Any

import torch
from torch import Tensor

from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.model import LinaModel, LinaOutput
from mmattn.speech.lina.network.batch import END, TextAndCodes, delay, to_tokens
from mmattn.speech.lina.network.cross_attention import TextMemory
from mmattn.speech.lina.network.decoder import DecoderState


def tiny_config(**changes: Any) -> LinaConfig:
    """Two codebooks of 12, width 16, two blocks of each half."""
    fields: dict[str, Any] = {
        "dim": 16,
        "num_codebooks": 2,
        "codebook_size": 12,
        "text_vocab": 20,
        "text_layers": 1,
        "text_heads": 2,
        "num_layers": 2,
        "num_heads": 2,
        "cross_heads": 2,
        "position_dim": 8,
    }
    return LinaConfig(**{**fields, **changes})


def tiny_model(seed: int = 0, **changes: Any) -> LinaModel:
    """A model in evaluation mode whose gates, norms and biases matter."""
    torch.manual_seed(seed)
    model = LinaModel(tiny_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def text_ids(length: int, seed: int = 0) -> Tensor:
    """Text ids (M,) with start and end."""
    inner = torch.randint(3, 20, (length - 2,), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.tensor([1]), inner, torch.tensor([2])])


def some_codes(frames: int, codebooks: int = 2, size: int = 12, seed: int = 0) -> Tensor:
    """Codec ids (Q, n)."""
    return torch.randint(0, size, (codebooks, frames), generator=torch.Generator().manual_seed(seed))


def utterances(*sizes: tuple[int, int], codebooks: int = 2) -> list[TextAndCodes]:
    """One utterance for each (text tokens, frames)."""
    return [
        TextAndCodes(text_ids(tokens, i), some_codes(frames, codebooks, seed=i), name=f"utterance {i}")
        for i, (tokens, frames) in enumerate(sizes)
    ]


class ScriptedModel(LinaModel):
    """Says n frames of known codes, n being the second id of the text, whatever it is fed.

    Args:
        change: Called with the scripted tokens (Q, columns, the start left out) of a text before they are said.
    """

    def __init__(self, config: LinaConfig) -> None:
        super().__init__(config)
        self.texts_read = 0
        self.eval()

    def script(self, frames: int) -> Tensor:
        """Returns the codes (Q, n) said for a text that asks for n frames."""
        return some_codes(frames, self.config.num_codebooks, self.config.codebook_size, seed=frames)

    def column(self, frames: int, place: int) -> Tensor:
        """Returns the tokens (Q,) of a column; after its end the script says nothing but ends."""
        tokens = delay(to_tokens(self.script(frames)))[:, 1:]
        return tokens[:, place] if place < tokens.shape[1] else torch.full((len(tokens),), END)

    def remember(self, text: Tensor, valid: Tensor | None = None, positions: Tensor | None = None) -> TextMemory:
        self.texts_read += 1
        return TextMemory((text,), valid)

    def advance(self, audio: Tensor, memory: TextMemory, state: DecoderState, *, with_maps: bool = False) -> LinaOutput:
        batch, columns, codebooks = audio.shape
        logits = torch.zeros(batch, columns, codebooks, self.config.audio_vocab)
        for row in range(batch):
            frames = int(memory.tensors[0][row, 1])
            for n in range(columns):
                said = self.column(frames, int(state.position[row]) + n)
                logits[row, n].scatter_(-1, said[:, None], 50.0)
        maps = torch.ones(batch, 1, columns, memory.length)
        return LinaOutput(logits, DecoderState(state.layers, state.alignment, state.position + columns), maps)
