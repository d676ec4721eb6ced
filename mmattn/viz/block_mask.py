"""Pictures of block masks: which key blocks each query block attends, and how much of them.

Rows are queries from top to bottom, columns keys from left to right, both in token positions, as in every paper on
sparse attention. Small masks are drawn token by token, larger ones block by block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from mmattn.kernels import BlockIndex

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_block_index", "draw_block_indices"]

UInt8Array = npt.NDArray[np.uint8]

# Blue and orange of Okabe and Ito's palette and pale relatives: differ in lightness as well as in hue.
_COLOURS = np.array([[255, 255, 255], [253, 236, 208], [230, 159, 0], [0, 84, 147]], dtype=np.uint8)
_NOTHING, _HIDDEN, _PARTIAL, _FULL = range(4)
_LABELS = {_FULL: "full block", _PARTIAL: "partial block", _HIDDEN: "masked pair"}
_TOKEN_CELLS = 2**16  # masks of up to 256 x 256 pairs are drawn token by token
_GRID_BLOCKS = 32  # more blocks than this and their borders would hide the picture
# Inches: longer side of a mask, room for its title, ticks and labels, width of the legend.
_AXES, _MARGIN, _LEGEND = 2.5, 0.95, 3.3


def draw_block_index(
    index: BlockIndex, *, head: int = 0, batch: int = 0, title: str = "", max_pixels: int = 640
) -> UInt8Array:
    """Returns a picture of a block index.

    Blue blocks attend every pair, orange ones are cut by the in-block predicate (causal, window, documents, padding).
    Up to 256 x 256 pairs each pair is drawn, and pale orange shows the pairs that a partial block leaves out.

    Args:
        index: Any block index.
        head: Which head to draw; an index shared by all heads has one picture.
        batch: Which item of the batch to draw.
        title: Put before the density.
        max_pixels: Longer side of the picture.

    Returns:
        uint8 RGB ``(H, W, 3)``, the longer side `max_pixels`.

    Raises:
        ValueError: If `head` or `batch` is outside the index, or `max_pixels` is below 200.
        ModuleNotFoundError: If matplotlib is not installed.
    """
    return draw_block_indices({title: index}, head=head, batch=batch, columns=1, max_pixels=max_pixels)


def draw_block_indices(
    indices: Mapping[str, BlockIndex],
    *,
    head: int = 0,
    batch: int = 0,
    columns: int = 3,
    max_pixels: int = 1280,
) -> UInt8Array:
    """Returns several block indices side by side, each with its name and density, and one legend.

    Args:
        indices: Title -> block index, in reading order.
        head: Which head to draw of each.
        batch: Which item of the batch to draw of each.
        columns: Pictures in a row.
        max_pixels: Longer side of the whole picture.

    Returns:
        uint8 RGB ``(H, W, 3)``.

    Raises:
        ValueError: If there is nothing to draw, or `head`, `batch`, `columns` or `max_pixels` cannot be used.
        ModuleNotFoundError: If matplotlib is not installed.
    """
    if not indices or columns < 1 or max_pixels < 200:
        raise ValueError(
            f"got {len(indices)} indices, columns={columns}, max_pixels={max_pixels}; "
            "expected at least one index and one column, and 200 pixels"
        )
    kinds = [_block_kinds(index, head, batch) for index in indices.values()]
    rasters = [_raster(index, k, head, batch) for index, k in zip(indices.values(), kinds, strict=True)]
    columns = min(columns, len(indices))
    rows = math.ceil(len(indices) / columns)
    aspects = [_aspect(index) for index in indices.values()]
    width = max(columns * (_AXES * min(max(1 / a for a in aspects), 1.0) + _MARGIN), _LEGEND)
    height = rows * (_AXES * min(max(aspects), 1.0) + _MARGIN) + 0.3
    figure = _new_figure(width, height, dpi=max_pixels / max(width, height))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, index), raster, k in zip(axes, indices.items(), rasters, kinds, strict=False):
        _draw(ax, index, raster)
        density = f"{100 * float((k != _NOTHING).float().mean()):.3g} % of blocks"
        ax.set_title(f"{name}\n{density}" if name else density, fontsize=10)
    for ax in axes[len(indices) :]:
        ax.set_axis_off()
    used = set().union(*(np.unique(raster).tolist() for raster in rasters))
    _draw_legend(figure, [kind for kind in _LABELS if kind in used])
    figure.canvas.draw()
    picture: UInt8Array = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
    return picture


def _block_kinds(index: BlockIndex, head: int, batch: int) -> torch.Tensor:
    """Returns the kind of every block, ``(nq, nk)``; a selected block in which nothing is allowed is hidden."""
    selected = index.mask()
    for name, value, size in (("batch", batch, index.batch_size), ("head", head, selected.shape[1])):
        if value < 0 or (value >= size and size > 1):
            raise ValueError(f"got {name}={value}; the index has {size}")
    kinds = torch.where(_item(selected, head, batch), _HIDDEN, _NOTHING)
    partial_count, partial_ids, full_count, full_ids = (_item(x, head, batch) for x in index.split)
    for kind, count, ids in ((_PARTIAL, partial_count, partial_ids), (_FULL, full_count, full_ids)):
        row, slot = (torch.arange(ids.shape[-1]) < count[:, None]).nonzero(as_tuple=True)
        kinds[row, ids[row, slot].long()] = kind
    return kinds


def _item(x: torch.Tensor, head: int, batch: int) -> torch.Tensor:
    """Returns what belongs to one head and batch item of a tensor that may be shared by all of them."""
    return x[batch if x.shape[0] > 1 else 0, head if x.shape[1] > 1 else 0].cpu()


def _raster(index: BlockIndex, kinds: torch.Tensor, head: int, batch: int) -> UInt8Array:
    """Returns the kind of every token pair, or of every block when there are too many pairs, ``(rows, columns)``."""
    if index.q_len * index.k_len > _TOKEN_CELLS:
        return kinds.numpy().astype(np.uint8)
    tokens = kinds.repeat_interleave(index.q_block, 0).repeat_interleave(index.k_block, 1)
    tokens = tokens[: index.q_len, : index.k_len]
    attended = _item(index.tokens(), head, batch)
    return torch.where((tokens == _PARTIAL) & ~attended, _HIDDEN, tokens).numpy().astype(np.uint8)


def _new_figure(width: float, height: float, dpi: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "drawing block masks needs matplotlib: pip install 'mmattn[train]'"
        raise ModuleNotFoundError(message, name="matplotlib") from error
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _aspect(index: BlockIndex) -> float:
    """Height of a mask over its width, within what stays readable."""
    return min(max(index.q_len / max(index.k_len, 1), 0.25), 4.0)


def _draw(ax: Axes, index: BlockIndex, raster: UInt8Array) -> None:
    extent = (0.0, index.k_len, index.q_len, 0.0)
    # Colours before resampling: an average of kinds would be another kind, an average of colours is a tint.
    ax.imshow(_COLOURS[raster], extent=extent, aspect="auto", interpolation="auto")
    ax.set_box_aspect(_aspect(index))
    if max(index.num_q_blocks, index.num_k_blocks) <= _GRID_BLOCKS:
        for y in range(index.q_block, index.q_len, index.q_block):
            ax.axhline(y, color="#0000002E", linewidth=0.6)
        for x in range(index.k_block, index.k_len, index.k_block):
            ax.axvline(x, color="#0000002E", linewidth=0.6)
    ax.set_xlabel("key position", fontsize=9)
    ax.set_ylabel("query position", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.locator_params(nbins=5)


def _draw_legend(figure: Figure, kinds: list[int]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=_COLOURS[k] / 255, edgecolor="#00000040", label=_LABELS[k]) for k in kinds]
    if patches:
        figure.legend(
            handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=8, columnspacing=1.2
        )
