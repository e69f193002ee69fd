"""Tiles: where they are in a frame, what sizes a network takes, and how rendered tiles are blended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dailies.models.signature import Signature
from dailies.render.batches import even_size
from dailies.render.tensors import padded_length

Span = tuple[int, int]
"""Start and stop along one axis, in pixels."""


@dataclass(frozen=True)
class Grid:
    """The tiles of one padded frame, which all have the same size."""

    rows: list[Span]
    columns: list[Span]

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of each tile."""
        (top, bottom), (left, right) = self.rows[0], self.columns[0]
        return bottom - top, right - left

    @property
    def tiles(self) -> list[tuple[Span, Span]]:
        """The rows and columns of each tile, row by row."""
        return [(row, column) for row in self.rows for column in self.columns]


@dataclass(frozen=True)
class Tiling:
    """How frames are cut into tiles that a network takes."""

    signature: Signature
    tile_size: int
    """The most pixels along each side of a tile, as the settings ask for."""
    overlap: int
    """The fewest pixels that neighbours share, as the settings ask for."""

    def sizes(self) -> list[int]:
        """Return the tile sizes to try as memory runs out, largest first: each is at most half the one before."""
        signature = self.signature
        if signature.tile:
            return [max(signature.tile)]
        smallest = min(padded_length(1, signature.multiple, least) for least in signature.least)
        sizes = [max(self.tile_size, smallest)]
        while (half := sizes[-1] // 2 // signature.multiple * signature.multiple) >= smallest:
            sizes.append(half)
        return sizes

    def takes_whole(self, size: tuple[int, int]) -> bool:
        """Return whether the network takes a whole padded frame of a size, (height, width)."""
        if self.signature.tile:
            return size == self.signature.tile
        return all(most is None or side <= most for side, most in zip(size, self.signature.most, strict=True))

    def overlap_at(self, tile_size: int) -> int:
        """Return the fewest pixels that tiles of a size share: at most half a tile if it is smaller than asked for."""
        smaller = self.signature.tile or ((tile_size,) if tile_size < self.tile_size else ())
        return min([self.overlap, *(side // 2 for side in smaller)])

    def grid(self, size: tuple[int, int], tile_size: int) -> Grid:
        """Cut a padded frame of a size, (height, width), into tiles of at most ``tile_size`` pixels a side."""
        return Grid(*(self._spans(length, axis, tile_size) for axis, length in enumerate(size)))

    def _spans(self, length: int, axis: int, tile_size: int) -> list[Span]:
        signature, overlap = self.signature, self.overlap_at(tile_size)
        multiple = signature.multiple
        if signature.tile:
            return fixed_spans(length, signature.tile[axis], overlap, multiple)
        most = min(tile_size, signature.most[axis] or tile_size) // multiple * multiple
        tile = max(most, padded_length(1, multiple, signature.least[axis]))
        return spans(length, tile, min(overlap, tile - multiple), multiple)


def render_tiles(
    padded: Tensor,
    grid: Grid,
    run: Callable[[Sequence[Tensor]], list[Tensor]],
    *,
    scale: int,
    channels: int,
    batch_size: int,
) -> Tensor:
    """Run a network over the tiles of a frame and blend its outputs.

    Args:
        padded: ``(rows, channels, height, width)``; the result is on the same device.
        grid: the tiles.
        run: returns the network's output for each of several tiles.
        scale: output pixels per input pixel along one axis.
        channels: channels of the output.
        batch_size: the most tiles that are run together.
    """
    height, width = (side * scale for side in padded.shape[2:])
    weight = _window(*(side * scale for side in grid.tile), padded.device)
    total = padded.new_zeros((padded.shape[0], channels, height, width))
    weights = padded.new_zeros((1, 1, height, width))

    # in a function, whose local variables do not keep outputs in memory while the next tiles are run
    def blend(tiles: Sequence[tuple[Span, Span]]) -> None:
        outputs = run([padded[:, :, slice(*row), slice(*column)] for row, column in tiles])
        for output, ((top, bottom), (left, right)) in zip(outputs, tiles, strict=True):
            place = (..., slice(top * scale, bottom * scale), slice(left * scale, right * scale))
            total[place] += output.to(padded.device) * weight
            weights[place] += weight

    tiles = grid.tiles
    together = even_size(len(tiles), batch_size)
    while tiles:
        count = together if len(tiles) >= together else 1
        blend(tiles[:count])
        tiles = tiles[count:]
    return total / weights


def spans(length: int, tile: int, overlap: int, stride: int = 32) -> list[Span]:
    """Cover ``length`` pixels with as few tiles as possible; neighbours share at least ``overlap`` pixels.

    All tiles have the same size, the smallest that covers the length with that many tiles. They start on multiples
    of ``stride``: a network whose total stride divides it samples every tile on the grid of the whole frame.

    Args:
        length: pixels along this axis, padded to a multiple of ``stride``.
        tile: the most pixels that a tile may have.
        overlap: the fewest pixels that neighbours share; rounded up to a multiple of ``stride``.
        stride: pixels.

    Returns:
        ``(start, stop)`` of each tile, ascending; the first starts at 0, the last stops at ``length``.
        A length of at most ``tile`` is a single span.

    Raises:
        ValueError: no such tiles exist.
    """
    _check(length, tile, overlap, stride)
    total, most, shared = length // stride, tile // stride, -(-overlap // stride)
    if total <= most:
        return [(0, length)]
    if shared >= most:
        raise ValueError(
            f"tiles of {tile} pixels cannot advance by a stride of {stride} and share {overlap}; "
            f"make the tile at least {(shared + 1) * stride}"
        )
    count = -(-(total - shared) // (most - shared))
    size = -(-(total + (count - 1) * shared) // count)
    starts = [i * (total - size) // (count - 1) for i in range(count)]
    return [(start * stride, (start + size) * stride) for start in starts]


def fixed_spans(length: int, tile: int, overlap: int, stride: int = 32) -> list[Span]:
    """Cover ``length`` pixels with tiles of exactly ``tile`` pixels, for a network that takes no other size.

    Otherwise like ``spans``. ``tile`` and ``length`` are multiples of ``stride``, and ``length`` is at least ``tile``.
    Neighbours share at least ``overlap`` pixels, or as many as tiles of this size allow.
    """
    if length < tile or length % stride or tile % stride or tile < 1:
        raise ValueError(f"{length} pixels cannot be covered by tiles of exactly {tile} on multiples of {stride}")
    rest, step = (length - tile) // stride, max(1, (tile - overlap) // stride)
    count = 1 + -(-rest // step)
    starts = [i * rest // (count - 1) * stride for i in range(count)] if count > 1 else [0]
    return [(start, start + tile) for start in starts]


def weights(size: int) -> np.ndarray:
    """Return the blending weights of a tile along one axis, float32 ``(size,)`` in (0, 1], highest in the middle.

    They are a Gaussian with a standard deviation of an eighth of the tile: 0.0003 at the ends and never 0, so that
    pixels under a single tile count too. With a quarter of the tile, 0.14 at the ends, NAFNets showed seams of 5 to 8
    code values instead of 1. Blend with sum(weight × value) / sum(weight).
    """
    if size < 1:
        raise ValueError(f"a tile has at least 1 pixel, not {size}")
    distance = np.arange(size) - (size - 1) / 2
    return np.exp(-0.5 * (distance / (size / 8)) ** 2).astype(np.float32)


def window(height: int, width: int) -> np.ndarray:
    """Return the blending weights of a tile, float32 ``(height, width)``: the outer product of both axes' weights."""
    return np.outer(weights(height), weights(width))


def _check(length: int, tile: int, overlap: int, stride: int) -> None:
    if stride < 1:
        raise ValueError(f"the stride must be at least 1 pixel, not {stride}")
    if length < 1 or length % stride:
        raise ValueError(f"the length must be padded to a positive multiple of {stride}, not {length}")
    if tile < stride:
        raise ValueError(f"a tile of {tile} pixels is smaller than the stride of {stride}")
    if not 0 <= overlap < tile:
        raise ValueError(f"an overlap of {overlap} pixels must be at least 0 and below the tile's {tile}")


@lru_cache(maxsize=4)
def _window(height: int, width: int, device: torch.device) -> Tensor:
    return torch.from_numpy(window(height, width)).to(device)
