"""Codes of sentence after sentence to one recording: decoded in windows, with pauses, at an even loudness.

What comes out does not depend on the portions in which codes come in, bit for bit: the windows of the codec, the blocks
in which loudness is measured, and all gains lie where they lie. Speaking a whole text and streaming it are therefore
the same, and the first sound of a stream waits for little: the first window is short, later ones are longer, as longer
ones waste less on their context. A codec without a finite receptive field has windows of one size.

Shapes: Q codebooks, n frames.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmattn.speech.lina.codec.protocol import Codec, StreamingDecoder, Window, default_window
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.text.sentences import Break

__all__ = ["Leveller", "Narrator"]

FloatArray = npt.NDArray[np.float32]

_FIRST_SECONDS = 0.08
_LONGEST_SECONDS = 1.0
_FADE_SECONDS = 0.01
"""At the end of a sentence that was cut, so that there is no click."""


class Narrator:
    """Decodes one recording.

    Args:
        codec: In evaluation mode.
        options: Of the run: its pauses, and whether every sentence is brought near the loudness of those before.
    """

    def __init__(self, codec: Codec, options: LinaInferOptions) -> None:
        self._codec = codec
        self._pauses: dict[Break, float] = {
            "start": 0.0,
            "part": options.part_pause,
            "sentence": options.sentence_pause,
            "paragraph": options.paragraph_pause,
        }
        self._window = default_window(codec)
        if codec.context is not None:
            step = max(1, round(_FIRST_SECONDS * codec.sample_rate / codec.hop))
            self._window = Window(codec.context, step, codec.context)
        self._leveller = Leveller(codec.sample_rate) if options.even_loudness else None
        self._decoder: StreamingDecoder | None = None
        self._waiting: Tensor | None = None  # (1, Q, n) not decoded because the window is not full
        self._held = 0  # frames that the decoder has and that belong to windows to come

    def begin(self, after: Break) -> FloatArray:
        """Begins a sentence and returns the pause (n,) before it, float32 samples of silence.

        Args:
            after: What lies between it and the sentence before.
        """
        self._decoder = StreamingDecoder(self._codec, self._window)
        self._waiting, self._held = None, 0
        if self._leveller is not None:
            self._leveller.begin()
        return np.zeros(round(self._pauses[after] * self._codec.sample_rate), np.float32)

    def push(self, codes: Tensor) -> FloatArray:
        """Takes the next codes (Q, n) of the sentence, n >= 0, and returns the samples that are final now.

        Raises:
            ValueError: If no sentence has begun.
        """
        if self._decoder is None:
            raise ValueError("no sentence has begun; call begin first")
        new = codes[None]
        self._waiting = new if self._waiting is None else torch.cat([self._waiting, new], dim=-1)
        pieces = [self._level(np.zeros(0, np.float32))]
        while self._waiting.shape[-1] >= (wanted := self._window.step + self._window.right - self._held):
            taken, self._waiting = self._waiting[..., :wanted], self._waiting[..., wanted:]
            pieces.append(self._level(_samples(self._decoder.push(taken))))
            self._held = self._window.right
            self._grow()
        return np.concatenate(pieces)

    def end(self, *, is_cut: bool = False) -> FloatArray:
        """Ends the sentence and returns the rest of its samples (n,).

        Args:
            is_cut: Whether it did not end by itself; then it is faded out.

        Raises:
            ValueError: If no sentence has begun or no codes were pushed.
        """
        if self._decoder is None or self._waiting is None:
            raise ValueError("no sentence has begun; call begin and push first")
        rest = torch.cat([self._decoder.push(self._waiting), self._decoder.finish()], dim=-1)
        samples = self._level(_samples(rest))
        if self._leveller is not None:
            self._leveller.end()
        self._decoder = None
        if is_cut:
            count = min(len(samples), round(_FADE_SECONDS * self._codec.sample_rate))
            samples[len(samples) - count :] *= np.linspace(1, 0, count, dtype=np.float32)
        return samples

    def _grow(self) -> None:
        """Makes the windows to come longer, where that changes no sample."""
        if self._decoder is None or self._codec.context is None:
            return
        longest = max(1, round(_LONGEST_SECONDS * self._codec.sample_rate / self._codec.hop))
        window = self._window
        self._window = Window(window.left, max(window.step, min(2 * window.step, longest)), window.right)
        self._decoder.window = self._window

    def _level(self, samples: FloatArray) -> FloatArray:
        return samples if self._leveller is None else self._leveller.push(samples)


class Leveller:
    """Brings the loudness of every sentence near that of the sentences before, without looking ahead.

    A sentence begins unchanged. Its power so far, together with half a second at the power of the sentences before, is
    compared with theirs, and the gain moves to what makes up for the difference, at most 6 dB. Only blocks above -50 dB
    of full scale count. The first sentence is left as it is.

    Args:
        sample_rate: Hz.
    """

    _BLOCK_SECONDS = 0.05
    _PRIOR_BLOCKS = 10
    _GATE = 10 ** (-50 / 10)
    _MOST = 10 ** (6 / 20)

    def __init__(self, sample_rate: int) -> None:
        self._size = max(1, round(self._BLOCK_SECONDS * sample_rate))
        self._power, self._blocks = 0.0, 0  # of the finished sentences, as they were heard
        self.begin()

    def begin(self) -> None:
        """Begins a sentence."""
        self._block = np.zeros(0, np.float32)
        self._gains = 1.0, 1.0  # at the beginning and at the end of the block
        self._own_power, self._own_blocks, self._heard_power = 0.0, 0, 0.0

    def push(self, samples: FloatArray) -> FloatArray:
        """Returns the samples (n,) at their new loudness."""
        pieces = [np.zeros(0, np.float32)]
        while len(samples):
            place = len(self._block)
            part, samples = samples[: self._size - place], samples[self._size - place :]
            start, stop = self._gains
            rise = (np.arange(place, place + len(part)) + 1) / self._size
            pieces.append((part * (start + (stop - start) * rise)).astype(np.float32))
            self._block = np.concatenate([self._block, part])
            if len(self._block) == self._size:
                self._next_block()
        return np.concatenate(pieces)

    def end(self) -> None:
        """Ends the sentence; those to come are compared with it too."""
        self._power += self._heard_power
        self._blocks += self._own_blocks

    def _next_block(self) -> None:
        power = float(np.square(self._block, dtype=np.float64).mean())
        start, stop = self._gains
        self._block = self._block[:0]
        if power >= self._GATE:
            self._own_power += power
            self._own_blocks += 1
            self._heard_power += power * ((start + stop) / 2) ** 2
        wanted = 1.0
        if self._blocks:
            usual = self._power / self._blocks
            own = (self._PRIOR_BLOCKS * usual + self._own_power) / (self._PRIOR_BLOCKS + self._own_blocks)
            wanted = float(np.clip((usual / own) ** 0.5, 1 / self._MOST, self._MOST))
        self._gains = stop, wanted


def _samples(wave: Tensor) -> FloatArray:
    """Returns the samples (n,) of a wave (1, n)."""
    return np.asarray(wave[0].detach().float().cpu().numpy(), np.float32)
