"""What Lina asks of a codec: audio to tokens and back, all at once or in windows while tokens arrive.

Shapes: B batch, Q codebooks, T frames. Waves are mono ``float32`` (B, samples), nominally in [-1, 1]; codes are
``int64`` in [0, codebook_size). A frame lasts ``hop`` samples, and T frames decode to exactly ``T * hop`` samples.

The codecs differ in what a frame depends on. Convolutions see a few frames to each side, and a piece of the tokens with
that ``context`` around it decodes to the samples of the whole; attention, group norms and LSTMs see everything, and
pieces only come close.

In windows, the frames are cut into steps. Step i is decoded together with ``left`` frames before and ``right`` frames
after it, and of the result the step's own samples are kept:

    y[i] = decode(codes[i * step - left : (i + 1) * step + right])[samples of frames i * step ... (i + 1) * step - 1]

With ``left`` and ``right`` no smaller than the codec's ``context`` this is the wave of one decode of everything. Where
a codec has no finite context, neighbouring windows disagree a little at the seam; there the last ``fade`` frames before
a step are decoded in both windows and mixed with weights that sum to one. How far the result then is from one decode of
everything is what :func:`windowed_snr` measures.

The windows lie where they lie no matter in which portions the tokens come, so that streaming gives exactly the samples
of :func:`decode_windowed`. Latency is ``step + right`` frames, memory ``left + step + right``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "Codec",
    "StreamingDecoder",
    "Window",
    "check_codes",
    "check_wave",
    "decode_windowed",
    "default_window",
    "snr_db",
    "windowed_snr",
]


class Codec(Protocol):
    """Encodes waves as discrete frames and decodes them."""

    @property
    def sample_rate(self) -> int:
        """Samples per second, Hz."""

    @property
    def hop(self) -> int:
        """Samples per frame."""

    @property
    def codebooks(self) -> int:
        """Tokens per frame Q."""

    @property
    def codebook_size(self) -> int:
        """Number of tokens of each codebook."""

    @property
    def context(self) -> int | None:
        """Frames on each side that a decoded frame depends on; None where it depends on all."""

    def encode(self, wave: Tensor) -> Tensor:
        """Returns codes (B, Q, ceil(samples / hop)) of a wave (B, samples); the last frame is completed by padding."""

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the wave (B, T * hop) of codes (B, Q, T)."""


def check_wave(wave: Tensor) -> None:
    """Checks the input of :meth:`Codec.encode`.

    Raises:
        ValueError: ``wave`` is not a floating (B, samples).
    """
    if wave.ndim != 2 or not wave.is_floating_point():
        raise ValueError(f"Got a wave of shape {tuple(wave.shape)} and {wave.dtype}, expected floats (batch, samples).")


def check_codes(codec: Codec, codes: Tensor) -> None:
    """Checks the input of :meth:`Codec.decode`.

    Raises:
        ValueError: ``codes`` is not an integer (B, Q, T), or a code lies outside its codebook.
    """
    if codes.ndim != 3 or codes.shape[1] != codec.codebooks or codes.is_floating_point():
        raise ValueError(
            f"Got codes of shape {tuple(codes.shape)} and {codes.dtype}, expected integers (batch, {codec.codebooks}, "
            "frames)."
        )
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codec.codebook_size:
        raise ValueError(
            f"Got codes from {int(codes.min())} to {int(codes.max())}, expected [0, {codec.codebook_size})."
        )


def snr_db(reference: Tensor, estimate: Tensor) -> Tensor:
    """Returns the signal-to-noise ratio in dB of waves (..., samples) against their reference, (...); inf if equal.

    >>> snr_db(torch.tensor([1.0, -1.0]), torch.tensor([0.9, -0.9])).round().item()
    20.0
    """
    signal = reference.double().square().sum(-1)
    noise = (reference.double() - estimate.double()).square().sum(-1)
    ratio: Tensor = 10 * torch.log10(signal / noise)
    return torch.where(noise == 0, torch.full_like(ratio, torch.inf), ratio)


@dataclass(frozen=True)
class Window:
    """Frames that are decoded together.

    Attributes:
        left: Frames of context before a step.
        step: New frames per window.
        right: Frames of context after it, the look-ahead.
        fade: Frames before a step over which two windows are mixed.
    """

    left: int
    step: int
    right: int
    fade: int = 0

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ValueError: ``step`` is below 1, another size below 0, or ``fade`` longer than ``left`` or ``step``.
        """
        if self.step < 1 or min(self.left, self.right, self.fade) < 0 or self.fade > min(self.left, self.step):
            raise ValueError(f"Got {self}, expected step >= 1, the others >= 0, and fade <= left and <= step.")


def default_window(codec: Codec, seconds: float = 0.5) -> Window:
    """Returns the window of a codec for steps of about ``seconds``.

    That is its exact context where it has one; otherwise two seconds before, half a second after and a fade of 50 ms.
    """
    rate = codec.sample_rate / codec.hop
    step = max(1, round(seconds * rate))
    if codec.context is not None:
        return Window(codec.context, step, codec.context)
    return Window(round(2 * rate), step, round(0.5 * rate), min(step, max(1, round(0.05 * rate))))


class StreamingDecoder:
    """Decoder of one stream of tokens.

    Args:
        codec: Any codec.
        window: What is decoded together; None takes :func:`default_window`.
    """

    def __init__(self, codec: Codec, window: Window | None = None) -> None:
        self.codec = codec
        self.window = window or default_window(codec)
        self._codes: Tensor | None = None  # (B, Q, n), frames from self._offset on
        self._offset = 0
        self._next = 0  # the first frame of the step to come
        self._tail: Tensor | None = None  # (B, fade * hop), the end of the last window, waiting to be mixed
        self._is_finished = False

    def push(self, codes: Tensor) -> Tensor:
        """Takes tokens (B, Q, n), n >= 0, and returns the samples (B, m) that are final now, m >= 0.

        Raises:
            ValueError: The stream is finished, or the batch changed.
        """
        if self._is_finished:
            raise ValueError("The stream is finished; make a new StreamingDecoder.")
        if self._codes is not None and codes.shape[:2] != self._codes.shape[:2]:
            raise ValueError(
                f"Got codes of shape {tuple(codes.shape)} after {tuple(self._codes.shape[:2])} (batch, codebooks)."
            )
        self._codes = codes if self._codes is None else torch.cat([self._codes, codes], dim=-1)
        pieces = []
        while self._end() >= self._next + self.window.step + self.window.right:
            pieces.append(self._decode_step(self.window.step))
        return torch.cat(pieces, dim=-1) if pieces else self._nothing()

    def finish(self) -> Tensor:
        """Returns the samples (B, m) of all tokens still waiting, and ends the stream.

        Raises:
            ValueError: Nothing was pushed, or the stream is finished.
        """
        if self._is_finished:
            raise ValueError("The stream is finished; make a new StreamingDecoder.")
        self._held()
        self._is_finished = True
        pieces = [self._nothing()]
        while self._next < self._end():
            pieces.append(self._decode_step(min(self.window.step, self._end() - self._next)))
        if self._tail is not None:
            pieces.append(self._tail)
        return torch.cat(pieces, dim=-1)

    def _end(self) -> int:
        return self._offset + self._held().shape[-1]

    def _held(self) -> Tensor:
        """Returns the tokens (B, Q, n) that are still needed."""
        if self._codes is None:
            raise ValueError("There is no stream to finish.")
        return self._codes

    def _nothing(self) -> Tensor:
        codes = self._held()
        return torch.zeros(codes.shape[0], 0, device=codes.device)

    def _decode_step(self, frames: int) -> Tensor:
        """Decodes the next ``frames`` frames and returns what is final: all but the part the next window mixes."""
        window, hop, start = self.window, self.codec.hop, self._next
        first, stop = max(0, start - window.left), start + frames + window.right
        wave = self.codec.decode(self._held()[..., first - self._offset : stop - self._offset])
        mixed = min(window.fade, start) * hop
        begin = (start - first) * hop - mixed
        wave = wave[:, begin : begin + mixed + frames * hop]
        if self._tail is not None:
            rise = (torch.arange(mixed, device=wave.device, dtype=wave.dtype) + 0.5) / mixed
            head = self._tail * (1 - rise) + wave[:, :mixed] * rise
            wave = torch.cat([head, wave[:, mixed:]], dim=-1)
        self._next += frames
        self._forget(self._next - window.left)
        held = min(window.fade, frames) * hop
        self._tail = wave[:, wave.shape[-1] - held :] if held else None
        return wave[:, : wave.shape[-1] - held]

    def _forget(self, before: int) -> None:
        """Drops frames that no window needs any more."""
        drop = before - self._offset
        if drop > 0:
            self._codes, self._offset = self._held()[..., drop:], before


def decode_windowed(codec: Codec, codes: Tensor, window: Window | None = None) -> Tensor:
    """Returns the wave (B, T * hop) of codes (B, Q, T), decoded in windows; memory does not grow with T.

    Raises:
        ValueError: As :meth:`Codec.decode`.
    """
    stream = StreamingDecoder(codec, window)
    return torch.cat([stream.push(codes), stream.finish()], dim=-1)


def windowed_snr(codec: Codec, codes: Tensor, window: Window | None = None) -> Tensor:
    """Returns how close decoding in windows comes to one decode of everything, in dB, (B,); inf where equal."""
    return snr_db(codec.decode(codes), decode_windowed(codec, codes, window))
