"""Scores images larger than the graph takes, tile by tile, as if they were scored whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.backends import Engine, Outputs
from stpm.runtime.batches import run_in_batches
from stpm.runtime.bundle.manifest import InputContract
from stpm.runtime.bundle.tiling import Tiling, cell_count

BAND = 256
"""Rows of the map that are made at a time."""


class TiledEngine:
    """An engine for whole images around one whose graph gives the level maps of tiles.

    Of each tile the graph gives one row of numbers: the levels' distances one after the other.
    """

    def __init__(self, engine: Engine, tiling: Tiling) -> None:
        """Wrap an engine of the graph with the bundle's tiling."""
        self._engine = engine
        self._tiling = tiling
        self._contract = InputContract(tiling.size, tiling.batch, "graph")

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score images uint8 (N,H,W,C) of a size that the tiles fit."""
        maps = np.stack([self._map(image) for image in images])
        return maps, maps.max(axis=(1, 2))

    def layer_precisions(self) -> dict[str, str]:
        """Return the engine's."""
        return self._engine.layer_precisions()

    def built_with(self) -> dict[str, str]:
        """Return the engine's."""
        return self._engine.built_with()

    def _map(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = image.shape[0], image.shape[1]
        levels = [
            np.empty([cell_count(length, stride) for length in size], np.float32)
            for stride in self._tiling.strides
        ]
        height, width = self._tiling.size
        columns = list(self._tiling.cuts(size[1], 1))
        for top, *rows in self._tiling.cuts(size[0], 0):
            tiles = np.stack(
                [image[top : top + height, left : left + width] for left, *_ in columns]
            )
            packed, _ = run_in_batches(self._engine, tiles, self._contract)
            for (left, *kept), row in zip(columns, packed.reshape(len(tiles), -1), strict=True):
                self._keep(levels, row, (top, left), (rows, kept))
        return product_of_levels(levels, size)

    def _keep(
        self,
        levels: Sequence[NDArray[np.float32]],
        packed: NDArray[np.float32],
        corner: tuple[int, int],
        kept: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Put a tile's inner cells into the image's levels."""
        offset = 0
        for level, stride in zip(levels, self._tiling.strides, strict=True):
            cells = [cell_count(side, stride) for side in self._tiling.size]
            tile = packed[offset : offset + cells[0] * cells[1]].reshape(cells)
            offset += tile.size
            (top, bottom), (left, right) = (
                (first // stride, cell_count(last, stride)) for first, last in kept
            )
            row, column = (start // stride for start in corner)
            level[top:bottom, left:right] = tile[
                top - row : bottom - row, left - column : right - column
            ]


def product_of_levels(
    levels: Sequence[NDArray[np.float32]], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Upsample level maps bilinearly to (height, width), and multiply them.

    Args:
        levels: float32 (h,w) each.
        size: in pixels, at least each level's.

    Returns:
        float32 (height,width), as the graph of a whole image computes it.
    """
    result = np.empty(size, np.float32)
    axes = [[bilinear_axis(level.shape[i], size[i]) for i in (0, 1)] for level in levels]
    for top in range(0, size[0], BAND):
        band = result[top : top + BAND]
        for number, (level, (rows, columns)) in enumerate(zip(levels, axes, strict=True)):
            low, high, share = (part[top : top + BAND] for part in rows)
            tall = level[low] + (level[high] - level[low]) * share[:, None]
            low, high, share = columns
            wide = tall[:, low] + (tall[:, high] - tall[:, low]) * share
            if number == 0:
                band[...] = wide
            else:
                band *= wide
    return result


def bilinear_axis(
    size: int, target: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return what bilinear interpolation takes along an axis, half-pixel centres.

    Args:
        size: values of the input.
        target: values of the output.

    Returns:
        Of each output the lower and the higher input's index, and the higher one's share.
    """
    position = np.maximum((np.arange(target) + 0.5) * size / target - 0.5, 0.0)
    low = np.minimum(np.floor(position).astype(np.intp), size - 1)
    return low, np.minimum(low + 1, size - 1), (position - low).astype(np.float32)
