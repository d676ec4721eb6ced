"""How a window is written: a number of keys, or how many keys on either side, as flash-attn and transformers do."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from mmattn.kernels.spans import intersect, normalise, positional_spans

__all__ = ["Window", "sides", "windowed"]

Window: TypeAlias = int | tuple[int, int]
"""Keys that are seen, the query's own included, and none after it; or (left, right): keys before and after the query's
own, -1 for all of them."""


def sides(window: Window | None, causal: bool | None) -> tuple[int, int]:
    """Returns how many keys are seen before and after a query's own, -1 for all of them.

    Args:
        window: as it is written; None for no window.
        causal: None is what the window implies: a number of keys is causal, no window is not. False lets a number of
            keys limit the past alone.

    Raises:
        ValueError: the window is no number of keys and no (left, right), or contradicts ``causal``.

    >>> sides(4, None), sides(4, False), sides((3, 1), None), sides(None, True)
    ((3, 0), (3, -1), (3, 1), (-1, 0))
    """
    if window is None:
        return -1, 0 if causal else -1
    if type(window) is int:
        if window < 1:
            raise ValueError(f"window must be at least 1 token (the query's own position) or None, got {window}")
        return window - 1, -1 if causal is False else 0
    pair = [*window] if isinstance(window, tuple | list) else []
    if len(pair) != 2 or any(type(side) is not int or side < -1 for side in pair):
        raise ValueError(
            "window must be a whole number of keys, the query's own included, or (left, right), the keys before and "
            f"after the query's own, -1 for all of them; got {window!r}"
        )
    left, right = pair
    if causal is not None and causal != (right == 0):
        raise ValueError(f"causal={causal} contradicts window={window!r}: leave it out, (left, 0) is causal")
    return left, right


def windowed(q_len: int, k_len: int, predicate: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Returns the fields of a ``BlockIndex`` for a predicate whose window may be written in any form.

    Args:
        q_len: number of queries.
        k_len: number of keys.
        predicate: fields of a ``BlockIndex`` by name.
        device: of the index.

    Raises:
        ValueError: see ``sides``.
    """
    fields = dict(predicate)
    left, right = sides(fields.pop("window", None), fields.pop("causal", None))
    window = None if left == -1 else left + 1
    if right <= 0:
        return {**fields, "causal": right == 0, "window": window}
    # Keys ahead are beyond what the plain fields say.
    near = positional_spans(
        q_len, k_len, causal=True, window=window, sinks=fields.pop("sinks", 0), cu_q=fields.get("cu_q"),
        cu_k=fields.get("cu_k"), device=device, ahead=right,
    )  # fmt: skip
    given = fields.get("spans")
    return {**fields, "spans": near if given is None else intersect(near, normalise(given.to(device)))}
