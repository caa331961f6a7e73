"""Labelled test images in another place and light, as a data set of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stpm.benchmarks.studies.movement import Movement, moved_by
from stpm.runtime.errors import DataError
from stpm.runtime.partial import partial_path
from stpm.train.datasets import Sample, read_image, read_mask


def write_disturbed(
    samples: Sequence[Sample],
    folder: Path,
    movement: Movement,
    light: float,
    on_images: Callable[[int], None] = lambda _: None,
) -> None:
    """Write test images, moved and brightened or dimmed, in the layout of MVTec AD.

    Args:
        samples: test images.
        folder: of the category to write; whole or not at all.
        movement: of each image and its mask.
        light: largest change of the brightness either way, as a share of it.
        on_images: called with the number of images done since the last call.

    Raises:
        DataError: there is such a folder, or an image cannot be read.
    """
    if folder.exists():
        raise DataError(f"{folder}: is there already, expected a new folder; name another --out.")
    images = [read_image(sample.path) for sample in samples]
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    gains = np.random.default_rng(movement.seed).uniform(1 - light, 1 + light, len(images))
    made = partial_path(folder)
    for sample, image, size, matrix, gain in zip(
        samples, images, sizes, movement.matrices(sizes), gains, strict=True
    ):
        seen = np.rint(moved_by(image, matrix) * gain).clip(0, 255).astype(np.uint8)
        _save(seen, made / "test" / sample.kind / f"{sample.name}.png")
        if sample.is_anomalous:
            mask = moved_by(read_mask(sample, size).astype(np.uint8), matrix)
            path = made / "ground_truth" / sample.kind / f"{sample.name}_mask.png"
            _save(255 * (mask > 0).astype(np.uint8), path)
        on_images(1)
    made.replace(folder)


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
