"""Speaking: many texts at once, each with its own prompt, states and seed, one audio column per step.

The text side is computed once; a prompt is taken in at one go and its states kept; then every step draws one column and
advances the decoder by it. Items are independent: each draws from a generator of its own, leaves the batch when it
ends, and comes out as if it had been alone.

The delay pattern is kept by construction, see :mod:`.utterance`; with ``free_running`` the model is left to itself.

Prompt continuation (theodorblackbird/lina-speech): the text is the prompt's transcript and the new text with one start
and one end, the prompt's codes are given, and what follows is the new text in the prompt's voice.

Shapes: B items, M text tokens, Q codebooks, n frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmattn.errors import CheckpointError, InputError
from mmattn.kernels.sampling import SamplingOptions, draw, penalise
from mmattn.speech.lina.generation.utterance import Utterance
from mmattn.speech.lina.model import LinaModel, LinaOutput
from mmattn.speech.lina.network.batch import END, PAD, START, delay, pad_texts, to_tokens
from mmattn.speech.lina.network.decoder import DecoderState

__all__ = ["Generation", "GenerationOptions", "Speech", "SpeechRequest", "generate"]


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How a batch is generated.

    Attributes:
        sampling: How a token is drawn.
        max_frames: Frames after which an utterance is cut, its prompt not counted.
        min_frames: Frames before which it does not end.
        guidance: w of ``l_u + w (l_c - l_u)``, l_c the logits given the text and l_u without; 1 is l_c alone.
        end_bias: Added to the logit of the end; positive ends sooner.
        free_running: Leave delay pattern and special tokens to the model, as the published code does.
    """

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    max_frames: int = 1000
    min_frames: int = 1
    guidance: float = 1.0
    end_bias: float = 0.0
    free_running: bool = False


@dataclass(frozen=True)
class SpeechRequest:
    """One text to speak.

    Attributes:
        text: (M,) int text ids, start and end included; with a prompt, its transcript comes first.
        prompt: (Q, n) int codec ids of speech to go on from.
        state: Of one stream, where the decoder starts; None is the model's own start. It is not changed.
        seed: Of the item's random numbers.
    """

    text: Tensor
    prompt: Tensor | None = None
    state: DecoderState | None = None
    seed: int = 0


@dataclass(frozen=True)
class Speech:
    """What was generated for one request.

    Attributes:
        codes: (Q, n) int codec ids, without the prompt.
        finished: Whether it ended by itself and was not cut.
        alignment: (n + Q - 1 at least, M) weights of the text tokens in every column after the prompt.
        tokens: (Q, columns) int ids as they were drawn, delayed, without the prompt.
        state: Of the decoder at the end, to go on from.
    """

    codes: Tensor
    finished: bool
    alignment: Tensor
    tokens: Tensor
    state: DecoderState


def generate(model: LinaModel, requests: Sequence[SpeechRequest], options: GenerationOptions) -> list[Speech]:
    """Returns the speech of every request, in order.

    Args:
        model: In evaluation mode.
        requests: Any number of them.
        options: How.

    Raises:
        InputError: If a text is empty, a prompt has another number of codebooks or ids outside the codebook, or
            guidance is asked of a model that was not trained for it.
        CheckpointError: If the model's output is not finite.
    """
    generation = Generation(model, requests, options)
    for _ in generation:
        pass
    return [generation.speech(index) for index in range(len(requests))]


class Generation:
    """A batch that is being generated; iterate over it to take steps, and read what there is after any of them.

    Args:
        model: In evaluation mode.
        requests: What to speak.
        options: How.

    Raises:
        InputError: As :func:`generate`.
    """

    def __init__(self, model: LinaModel, requests: Sequence[SpeechRequest], options: GenerationOptions) -> None:
        self._model, self._options = model, options
        self._copies = 1 if options.guidance == 1.0 else 2
        self._items = [self._item(request) for request in requests]
        self._active = list(range(len(requests)))
        if requests:
            self._begin(requests)

    def __iter__(self) -> Iterator[list[int]]:
        """Yields after every step the items that got a column, until all have ended."""
        while self._active:
            yield self.step()

    @property
    def done(self) -> bool:
        """Whether all items have ended."""
        return not self._active

    @torch.no_grad()
    def step(self) -> list[int]:
        """Draws one column of every item that has not ended; returns which these are.

        Raises:
            CheckpointError: If the model's output is not finite.
        """
        stepped = self._active
        columns = self._draw()
        tokens = columns.tolist()
        for row, index in enumerate(stepped):
            self._items[index].append(columns[row], tokens[row], self._map[row])
        going = [row for row, index in enumerate(stepped) if not self._items[index].closed]
        if len(going) < len(stepped):
            self._leave(columns, going)
            columns = columns[going]
        if going:
            self._take_in(self._both(columns[:, None]))
        return stepped

    def frames(self, index: int) -> int:
        """Returns how many frames of an item are complete, the prompt's not counted."""
        return self._items[index].frames

    def codes(self, index: int, start: int = 0) -> Tensor:
        """Returns the codec ids (Q, n) of an item's complete frames from ``start`` on, the prompt's not counted."""
        return self._items[index].codes(start)

    def speech(self, index: int) -> Speech:
        """Returns all there is of an item that has ended.

        Raises:
            ValueError: If it has not.
        """
        item = self._items[index]
        if item.state is None:
            raise ValueError(f"item {index} has not ended; step until done")
        prompt = item.prompt.shape[1]
        alignment, tokens = torch.stack(item.rows[prompt:]), torch.stack(item.columns[prompt:], dim=1)
        return Speech(item.codes(), item.end is not None, alignment, tokens, item.state)

    def _item(self, request: SpeechRequest) -> Utterance:
        config = self._model.config
        device = self._model.audio_embedding.device
        prompt = torch.empty(config.num_codebooks, 0, dtype=torch.long, device=device)
        if request.prompt is not None:
            prompt = request.prompt.long().to(device)
            if prompt.ndim != 2 or len(prompt) != config.num_codebooks:
                raise InputError(
                    f"A prompt has shape {tuple(prompt.shape)}, expected ({config.num_codebooks}, frames)."
                )
            if prompt.numel() and not 0 <= int(prompt.min()) <= int(prompt.max()) < config.codebook_size:
                raise InputError(f"A prompt has ids outside 0 to {config.codebook_size - 1}; it is of another codec.")
        limit = prompt.shape[1] + self._options.max_frames
        generator = torch.Generator().manual_seed(request.seed)
        return Utterance(to_tokens(prompt), limit, generator, len(request.text), self._options.free_running)

    @torch.no_grad()
    def _begin(self, requests: Sequence[SpeechRequest]) -> None:
        """Reads the texts and takes in the prompts, those of one length together."""
        model = self._model
        text, valid = (t.to(model.audio_embedding.device) for t in pad_texts([r.text for r in requests]))
        if self._copies == 2:
            text = torch.cat([text, torch.where(valid, model.mask_token, PAD)])
        memory = model.remember(text, self._both(valid))
        fresh = model.initial_state(1)
        starts = DecoderState.concatenate(
            [fresh if r.state is None else r.state.like(fresh) for r in requests] * self._copies
        )
        states: dict[int, DecoderState] = {}
        logits: dict[int, Tensor] = {}
        for length in sorted({item.prompt.shape[1] for item in self._items}):
            same = [row for row, item in enumerate(self._items) if item.prompt.shape[1] == length]
            rows = self._rows(same, len(requests))
            audio = torch.stack([delay(self._items[row].prompt)[:, : length + 1].T for row in same])
            out = model.advance(self._both(audio), memory.select(rows), starts.select(rows), with_maps=True)
            for place, row in enumerate(same):
                self._prefilled(self._items[row], audio[place], out, place)
            for place, row in enumerate(rows.tolist()):
                states[row] = out.state.select(torch.tensor([place], device=rows.device))
                logits[row] = out.logits[place, -1]
        count = len(requests) * self._copies
        self._memory = memory
        self._state = DecoderState.concatenate([states[row] for row in range(count)])
        self._logits = torch.stack([logits[row] for row in range(count)])
        self._map = [item.rows.pop() for item in self._items]

    def _prefilled(self, item: Utterance, audio: Tensor, out: LinaOutput, place: int) -> None:
        """Notes the columns of a prompt, and the weights of all its columns and of the one to come."""
        item.columns.extend(audio[1:].unbind(0))
        item.rows.extend(_text_weights(out, place, item.text_length))

    def _draw(self) -> Tensor:
        """Returns the next column (B, Q) of the active items."""
        logits = self._guided()
        if not bool(logits.isfinite().all()):
            raise CheckpointError("The model's output is not finite; its weights are damaged.", "Convert them again.")
        items = [self._items[index] for index in self._active]
        uniform = torch.stack(
            [torch.rand(logits.shape[1], generator=item.generator, dtype=torch.float64) for item in items]
        ).to(logits.device)
        sampling, options = self._options.sampling, self._options
        if not options.free_running:
            logits = self._permitted(logits, items)
        drawn = logits.shape[1] if sampling.sampled_codebooks is None else sampling.sampled_codebooks
        rows, uniform = logits[:, :drawn], uniform[:, :drawn]
        if sampling.repetition_penalty != 1.0 and sampling.repetition_window:
            rows = penalise(rows, self._heard(items, rows.shape[1]), sampling.repetition_penalty)
        # All codebooks that are drawn at once; the others take the likeliest token.
        column = draw(rows.flatten(0, 1), sampling, uniform.flatten()).view(uniform.shape)
        if drawn < logits.shape[1]:
            column = torch.cat([column, logits[:, drawn:].argmax(dim=-1)], dim=1)
        for item, tokens in zip(items, column, strict=True):
            item.put_in(tokens)
        return column

    def _guided(self) -> Tensor:
        """Returns the logits (B, Q, V) of the next column."""
        if self._copies == 1:
            return self._logits
        given, without = self._logits.chunk(2)
        return without + self._options.guidance * (given - without)

    def _permitted(self, logits: Tensor, items: Sequence[Utterance]) -> Tensor:
        """Returns the logits with special tokens impossible, but for the first codebook's end where it may come."""
        logits = logits.clone()
        logits[:, :, END] += self._options.end_bias
        logits[:, :, : max(PAD, START) + 1] = -torch.inf
        logits[:, 1:, END] = -torch.inf
        for row, item in enumerate(items):
            if not item.may_end(self._options.min_frames):
                logits[row, 0, END] = -torch.inf
        return logits

    def _heard(self, items: Sequence[Utterance], codebooks: int) -> Tensor:
        """Returns the ids (B, C, W) of the first C codebooks heard lately; PAD, never drawn, where there are few."""
        window = self._options.sampling.repetition_window
        heard = self._logits.new_zeros((len(items), codebooks, window), dtype=torch.long)
        for row, item in enumerate(items):
            lately = item.columns[-window:]
            if lately:
                heard[row, :, : len(lately)] = torch.stack(lately, dim=1)[:codebooks]
        # The end is no sound; avoiding it would be avoiding to stop.
        return torch.where(heard == END, PAD, heard)

    def _leave(self, columns: Tensor, going: list[int]) -> None:
        """Takes the items that have ended out of the batch, keeping their states, the last column taken in."""
        for row, index in enumerate(self._active):
            if row not in going:
                self._items[index].state = self._state.select(self._rows([row], len(self._active))[:1])
        rows = self._rows(going, len(self._active))
        self._memory, self._state = self._memory.select(rows), self._state.select(rows)
        self._active = [self._active[row] for row in going]

    def _take_in(self, audio: Tensor) -> None:
        out = self._model.advance(audio, self._memory, self._state, with_maps=True)
        self._state, self._logits = out.state, out.logits[:, -1]
        lengths = [self._items[index].text_length for index in self._active]
        self._map = [_text_weights(out, row, length)[-1] for row, length in enumerate(lengths)]

    def _both(self, tensor: Tensor) -> Tensor:
        """Returns the tensor for the streams with and, under guidance, those without text."""
        return torch.cat([tensor] * self._copies) if self._copies > 1 else tensor

    def _rows(self, rows: Sequence[int], count: int) -> Tensor:
        """Returns the places of ``rows`` in a batch of ``count`` items, and of their copies without text."""
        places = [row + copy * count for copy in range(self._copies) for row in rows]
        return torch.tensor(places, dtype=torch.long, device=self._model.audio_embedding.device)


def _text_weights(out: LinaOutput, row: int, length: int) -> list[Tensor]:
    """Returns the weights of the real text tokens, each (M,), one for each column of a stream."""
    if out.maps is None:
        raise ValueError("the model was not asked for its maps")
    return list(out.maps[row, -1, :, :length].unbind(0))
