"""What all recurrent kernels do with their arguments: layouts, padding, packed sequences, states, precision.

Letters: B batch, H heads, T tokens, K key width, V value width, N packed sequences. A kernel proper is a function of
tensors ``(B, H, T, ...)`` and a state ``(B, H, K, V)``; a token whose k, v and gates are all 0 must leave its state
as it is, which is what makes padding free of cases.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from mmattn.kernels.states import trainable

__all__ = ["Kernel", "Layout", "Mode", "Options", "check_mask", "check_options", "compute_dtype", "over_sequences"]

Mode = Literal["auto", "naive", "chunk"]
Layout = Literal["bhtd", "bthd"]

_LOG_DECAYS = ("g", "w")


class Kernel(Protocol):
    """A recurrence over tokens."""

    def __call__(self, *tensors: Tensor, state: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Returns the outputs ``(B, H, T, V)`` and the state after the last token, given q, k, v and the gates."""


class Options(NamedTuple):
    """The options that all kernels have; ``mmattn.kernels.linear`` describes them."""

    scale: float | None
    initial_state: Tensor | None
    mode: Mode
    layout: Layout
    cu_seqlens: Tensor | None
    mask: Tensor | None

    def check(self, **sizes: int) -> None:
        """Requires a known mode and layout and sizes of at least 1; ``check_options`` raises ``ValueError``."""
        check_options(self.mode, self.layout, **sizes)


def over_sequences(
    tensors: dict[str, Tensor], options: Options, *, naive: Kernel, chunks: Kernel
) -> tuple[Tensor, Tensor]:
    """Returns outputs and final states of a recurrence for padded or packed sequences in either layout.

    Args:
        tensors: q, k, v ``(B, H, T, .)`` and gates ``(B, H, T)`` or ``(B, H, T, K)``, by name; ``(B, T, H, .)`` in
            layout ``bthd``. Those called g or w are logarithms of decays.
        options: of the call.
        naive: the recurrence token by token.
        chunks: the recurrence in chunks.

    Returns:
        The output in the layout of the inputs and the dtype of v, and the state in ``compute_dtype``.

    Raises:
        ValueError: shapes do not fit together or a log-decay is positive; the message says what was given and expected.
    """
    scale, initial_state, mode, layout, cu_seqlens, mask = options
    _check_tensors(tensors, layout)
    v = tensors["v"]
    if layout == "bthd":
        tensors = {name: x.transpose(1, 2) for name, x in tensors.items()}
    if mask is not None:
        tensors = _without_padding(tensors, mask)
    # After padding is zeroed: what stands there must not be refused.
    _check_log_decays(tensors)
    q = tensors["q"]
    kernel = partial(
        # One token is no chunk: the definition is the shortest way.
        naive if mode == "naive" or (mode == "auto" and q.shape[2] == 1) else chunks,
        scale=q.shape[3] ** -0.5 if scale is None else float(scale),
    )
    bounds = None if cu_seqlens is None else _bounds(cu_seqlens, q)
    state = _initial_state(tensors, initial_state, None if bounds is None else len(bounds) - 1)
    # Autocast would lower the precision of the state.
    with torch.autocast(v.device.type, enabled=False):
        run = [*tensors.values()]
        out, state = kernel(*run, state=state) if bounds is None else _packed(kernel, run, bounds, state)
    out = out.to(v.dtype)
    if mask is not None:
        out = out.masked_fill(~mask[:, None, :, None], 0.0)
    return (out.transpose(1, 2) if layout == "bthd" else out), state


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Returns the dtype of states and arithmetic: the widest of the inputs ``(...)``, float32 at least."""
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def check_options(mode: str, layout: str, **sizes: int) -> None:
    """Requires known options and positive sizes.

    Raises:
        ValueError: an option is not known or a size is below 1.
    """
    if mode not in ("auto", "naive", "chunk"):
        raise ValueError(f"mode must be 'auto', 'naive' or 'chunk', got {mode!r}")
    if layout not in ("bhtd", "bthd"):
        raise ValueError(f"layout must be 'bhtd' or 'bthd', got {layout!r}")
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1 token, got {size}")


def check_mask(mask: Tensor, batch: int, tokens: int, *, name: str = "mask", shape: str = "(B, T)") -> None:
    """Requires a mask of tokens.

    Raises:
        ValueError: it is not bool ``(B, T)``.
    """
    if mask.shape != (batch, tokens) or mask.dtype != torch.bool:
        raise ValueError(f"{name} must be bool {shape} = {(batch, tokens)}, got {mask.dtype} {tuple(mask.shape)}")


def _check_log_decays(tensors: dict[str, Tensor]) -> None:
    """Requires decays that are at most 1: the state would grow without bound."""
    for name in _LOG_DECAYS:
        g = tensors.get(name)
        if g is not None and g.numel() and (largest := float(g.detach().amax())) > 0:
            raise ValueError(
                f"{name} is the logarithm of a decay and must be <= 0, got values up to {largest:.4g}; "
                "pass log(decay), for example logsigmoid(x)"
            )


def _check_tensors(tensors: dict[str, Tensor], layout: Layout) -> None:
    letters = "B, H, T" if layout == "bhtd" else "B, T, H"
    given = "got " + ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    if not q.ndim == k.ndim == v.ndim == 4 or q.shape != k.shape or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"in layout {layout!r} q and k must be ({letters}, K) and v ({letters}, V), {given}")
    if q.shape[3] == 0:
        raise ValueError(f"q and k must have at least 1 channel per head, {given}")
    for name, x in tensors.items():
        if x.ndim == 3 and x.shape != k.shape[:3]:
            raise ValueError(f"{name} must be ({letters}), {given}")
        if x.ndim not in (3, 4) or (x is not v and x.ndim == 4 and x.shape != k.shape):
            raise ValueError(f"{name} must be ({letters}, K), {given}")
        if not x.dtype.is_floating_point or x.device != q.device:
            raise ValueError(f"{name} must be floating point on {q.device} like q, got {x.dtype} on {x.device}")


def _without_padding(tensors: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Returns the tensors with 0 at padding; q too, where a NaN would spread to the gradients of the others."""
    B, _, T, _ = tensors["q"].shape
    check_mask(mask, B, T)
    padding = ~mask[:, None, :]
    return {name: x.masked_fill(padding if x.ndim == 3 else padding[..., None], 0.0) for name, x in tensors.items()}


def _bounds(cu_seqlens: Tensor, q: Tensor) -> list[int]:
    B, _, T, _ = q.shape
    if B != 1:
        raise ValueError(f"cu_seqlens packs sequences along the tokens of a batch of 1, got a batch of {B}")
    if cu_seqlens.ndim != 1 or cu_seqlens.is_floating_point() or len(cu_seqlens) < 2:
        shape = tuple(cu_seqlens.shape)
        raise ValueError(f"cu_seqlens must be integers (N + 1,) with N >= 1, got {cu_seqlens.dtype} {shape}")
    bounds: list[int] = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] != T or any(a > b for a, b in pairwise(bounds)):
        raise ValueError(f"cu_seqlens must rise from 0 to T = {T}, got {bounds}")
    return bounds


def _initial_state(tensors: dict[str, Tensor], given: Tensor | None, sequences: int | None) -> Tensor:
    k, v = tensors["k"], tensors["v"]
    shape = (k.shape[0] if sequences is None else sequences, k.shape[1], k.shape[3], v.shape[3])
    dtype = compute_dtype(*tensors.values())
    if given is None:
        return torch.zeros(shape, dtype=dtype, device=v.device)
    if given.shape != shape:
        letters = "(B, H, K, V)" if sequences is None else "(N, H, K, V)"
        raise ValueError(f"initial_state must be {letters} = {shape}, got {tuple(given.shape)}")
    return trainable(given).to(dtype)


def _packed(
    kernel: Callable[..., tuple[Tensor, Tensor]], tensors: list[Tensor], bounds: list[int], state: Tensor
) -> tuple[Tensor, Tensor]:
    """Runs the sequences in batches of similar length, so that at most half of a batch is padding."""
    T, device = tensors[0].shape[2], state.device
    places, outs, members, states = [], [], [], []
    for batch in _batches(bounds):
        lengths = torch.tensor([bounds[n + 1] - bounds[n] for n in batch], device=device)
        tokens = torch.arange(int(lengths.max()), device=device)
        place = torch.tensor([bounds[n] for n in batch], device=device)[:, None] + tokens  # (n, t)
        inside = tokens < lengths[:, None]
        at = place.clamp(max=max(T - 1, 0)).flatten()
        padded = [_take(x, at, inside) for x in tensors]
        out, final = kernel(*padded, state=state[batch])
        outs.append(out.transpose(1, 2)[inside])  # (tokens, H, V)
        places.append(place[inside])
        members += batch
        states.append(final)
    # Everything is there exactly once: sorting puts it back.
    order = torch.cat(places).argsort()
    back = torch.tensor(members, device=device).argsort()
    return torch.cat(outs)[order].transpose(0, 1)[None], torch.cat(states)[back]


def _batches(bounds: Sequence[int]) -> Iterator[list[int]]:
    """Yields the sequences of every power of two in length; empty ones with those of length 1."""
    by_size: dict[int, list[int]] = {}
    for n, (start, stop) in enumerate(pairwise(bounds)):
        by_size.setdefault(max(stop - start - 1, 0).bit_length(), []).append(n)
    yield from by_size.values()


def _take(x: Tensor, at: Tensor, inside: Tensor) -> Tensor:
    """Returns tokens of ``(1, H, T, ...)`` as a batch ``(n, H, t, ...)``, 0 where there is none."""
    n, t = inside.shape
    taken = x[0].index_select(1, at).unflatten(1, (n, t)).transpose(0, 1)
    return taken.masked_fill(~inside.view(n, 1, t, *[1] * (x.ndim - 3)), 0.0)
