"""Which good images INT8 is quantised on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stpm.runtime.images.preprocess import FULL_DEPTH, RGB
from stpm.train.datasets import read_images, read_tiles

QUANTIZATION_IMAGES = 32
"""At most, taken evenly from those that were trained on."""
QUANTIZATION_PIXELS = QUANTIZATION_IMAGES << 18
"""Most pixels of all of them, so that 4 GB suffice: 8 images of 1024x1024."""


@dataclass(frozen=True)
class TrainingImages:
    """Good images that were trained on, read as they were.

    Attributes:
        paths: of the images.
        size: (height, width) of the network's input.
        bit_depth: see `load_image`.
        channels: of the network's input.
        are_cut: whether tiles of that size were cut out of them; else they are resized to it.
    """

    paths: Sequence[Path]
    size: tuple[int, int]
    bit_depth: int = FULL_DEPTH
    channels: int = RGB
    are_cut: bool = False

    def all(self) -> Tensor:
        """Read them all, uint8 (N,height,width,channels)."""
        return self._read(self.paths)

    def choices(self) -> Iterator[Tensor]:
        """Read one choice to quantise on after the other, uint8 (N,height,width,channels).

        Each is taken evenly from the paths, and no two share an image. Where tiles are cut out of
        fewer images than may be taken, each gives several.
        """
        height, width = self.size
        most = max(min(QUANTIZATION_IMAGES, QUANTIZATION_PIXELS // (height * width)), 1)
        step = -(-len(self.paths) // most)
        for start in range(step):
            yield self._read(self.paths[start::step], seed=start, most_tiles=most)

    def _read(self, paths: Sequence[Path], seed: int = 0, most_tiles: int | None = None) -> Tensor:
        if self.are_cut:
            _, pixels = read_tiles(
                paths, self.size[0], seed, bit_depth=self.bit_depth, most_tiles=most_tiles
            )
        else:
            _, pixels = read_images(paths, self.size, bit_depth=self.bit_depth)
        return torch.from_numpy(pixels[..., : self.channels])
