"""How a large image is cut into tiles whose maps put together are the map of the whole image.

A network of convolutions gives the same features for a tile as for the image, but near the tile's
edges, where it sees zeros in place of what lies beside. So tiles overlap by a margin on each side,
begin at multiples of the network's stride, and end with the image; only their inner cells are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

MOST_LEVELS = 8
MOST_STRIDE = 64


@dataclass(frozen=True)
class Tiling:
    """How the graph takes an image, and what it gives of each tile.

    Attributes:
        size: (height, width) in pixels of a tile; the graph's input.
        batch: smallest and largest number of tiles that the graph takes at once.
        margin: pixels at a tile's inner edges whose cells are not kept, a multiple of the stride.
        strides: pixels a cell of each level, the finest first; the last is a multiple of all.
    """

    size: tuple[int, int]
    batch: tuple[int, int]
    margin: int
    strides: tuple[int, ...]

    @property
    def stride(self) -> int:
        """Pixels of the coarsest level's cells."""
        return self.strides[-1]

    def step(self, axis: int) -> int:
        """Return the pixels from a tile to the next along an axis, at most."""
        inner = self.size[axis] - 2 * self.margin
        return inner - inner % self.stride

    def check(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError where an image of this size cannot be cut so."""
        for axis, length in enumerate(image_size):
            tile = self.size[axis]
            fits = length >= tile and (length - tile) % self.stride == 0
            if not fits or (length > tile and self.step(axis) < self.stride):
                raise ValueError(
                    f"tiles of {tile} pixels with a margin of {self.margin} do not fit "
                    f"{length} pixels in steps of {self.stride}"
                )

    def golden_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of golden images: two tiles an axis, where there are two."""
        height, width = (
            min(length, self.size[axis] + max(self.step(axis), 0))
            for axis, length in enumerate(image_size)
        )
        return height, width

    def cuts(self, length: int, axis: int) -> Iterator[tuple[int, int, int]]:
        """Cut an axis; yields each tile's first pixel, and the pixels kept of it, [from, to)."""
        tile = self.size[axis]
        spare = (length - tile) // self.stride
        count = 1 if not spare else 1 + -(-(length - tile) // self.step(axis))
        starts = [spare * i // max(1, count - 1) * self.stride for i in range(count)]
        for i, start in enumerate(starts):
            kept_from = 0 if i == 0 else start + self.margin
            kept_to = length if i == count - 1 else starts[i + 1] + self.margin
            yield start, kept_from, kept_to

    @classmethod
    def from_dict(cls, values: Any, image_size: tuple[int, int]) -> Tiling:
        """Read a manifest's `tiles`; ValueError for what it may not be."""
        if not isinstance(values, dict):
            raise ValueError(f"tiles is {brief(values)}, expected an object")
        size, batch = (_integers(values, key, 2, 2) for key in ("size", "batch"))
        strides = _integers(values, "strides", 1, MOST_LEVELS)
        margin = values.get("margin")
        if batch[0] > batch[1] or type(margin) is not int or margin < 0:
            raise ValueError(
                f"tiles: batch is {brief(batch)} and margin {brief(margin)}, expected the "
                "smallest number first, and an integer from 0"
            )
        rising = all(strides[-1] % stride == 0 for stride in strides)
        if not rising or strides[-1] > MOST_STRIDE or margin % strides[-1]:
            raise ValueError(
                f"tiles: strides is {brief(strides)} with a margin of {margin}, expected "
                f"divisors of the last one, which is at most {MOST_STRIDE} and divides the "
                "margin"
            )
        tiling = cls((size[0], size[1]), (batch[0], batch[1]), margin, strides)
        tiling.check(image_size)
        return tiling


def _integers(values: dict[str, Any], key: str, least: int, most: int) -> tuple[int, ...]:
    numbers = values.get(key)
    is_list = isinstance(numbers, list) and least <= len(numbers) <= most
    if not is_list or not all(type(n) is int and n > 0 for n in numbers or ()):
        raise ValueError(f"tiles: {key} is {brief(numbers)}, expected integers above 0")
    return tuple(numbers or ())


def cell_count(length: int, stride: int) -> int:
    """Return how many cells of a stride cover a length."""
    return -(-length // stride)
