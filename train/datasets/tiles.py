"""Tiles of photographs at full resolution, at seeded places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import FULL_DEPTH
from stpm.train.datasets.images import read_image

MOST_PIXELS = 2000 * 512 * 512
"""Of all tiles together, 1.6 GB, but for one tile of each image."""


def read_tiles(
    paths: Sequence[Path],
    side: int,
    seed: int,
    *,
    on_bad: Callable[[DataError], None] | None = None,
    bit_depth: int = FULL_DEPTH,
    most_tiles: int | None = None,
) -> tuple[list[Path], NDArray[np.uint8]]:
    """Cut tiles out of images: so many of each as cover it, or an equal share of `most_tiles`.

    Args:
        paths: of the images.
        side: of a tile, in pixels.
        seed: of the places, which lie on a grid that covers the image, each moved at random
            within it.
        on_bad, bit_depth: see `read_images`.
        most_tiles: of all images together, but for one of each; None: so many as `MOST_PIXELS`.

    Returns:
        The image of each tile, and the tiles uint8 (N,side,side,3).

    Raises:
        DataError: an image cannot be read or is smaller than a tile.
    """
    if most_tiles is None:
        most_tiles = MOST_PIXELS // (side * side)
    most = max(1, most_tiles // len(paths))
    owners: list[Path] = []
    tiles: list[NDArray[np.uint8]] = []
    for number, path in enumerate(paths):
        try:
            image = read_image(path, bit_depth)
            if min(image.shape[:2]) < side:
                raise DataError(
                    f"{path}: has {image.shape[0]}x{image.shape[1]} pixels, expected at "
                    f"least {side}x{side}, the size of a tile; choose a smaller --tile."
                )
        except DataError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        draw = np.random.default_rng((seed, number))
        for top, left in places(image.shape[:2], side, most, draw):
            owners.append(path)
            tiles.append(image[top : top + side, left : left + side])
    if not tiles:
        raise DataError("none of the images could be decoded; expected at least one.")
    return owners, np.stack(tiles)


def places(
    size: Sequence[int], side: int, most: int, draw: np.random.Generator
) -> list[tuple[int, int]]:
    """Choose the top left corners of an image's tiles.

    Args:
        size: (height, width) in pixels, at least `side` each.
        side: of a tile.
        most: so many at most; fewer than cover the image are chosen among them.
        draw: what is random about them.
    """
    corners = [_along(length, side, draw) for length in size]
    grid = [(top, left) for top in corners[0] for left in corners[1]]
    chosen = draw.permutation(len(grid))[:most]
    return [grid[i] for i in sorted(chosen)]


def _along(length: int, side: int, draw: np.random.Generator) -> list[int]:
    """Return starts that cover an axis; each but the outermost is moved as far as that allows."""
    count = -(-length // side)
    spare = (count * side - length) // max(1, count - 1)  # by which neighbours overlap
    starts = np.linspace(0, length - side, count).round().astype(int)
    moves = draw.integers(-(spare // 2), spare // 2 + 1, count)
    moves[0] = moves[-1] = 0
    return [int(start) for start in np.clip(starts + moves, 0, length - side)]
