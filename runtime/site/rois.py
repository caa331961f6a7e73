"""Regions of interest from pictures and polygons, brought to a map's pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import read_pixels

WHOLE = "image"
"""The name of all that is not ignored, where no region is named."""
_HALF = 0.5
_POLYGONS = '{"NAME": [[[x, y], [x, y], [x, y], ...], ...], ...} in pixels of the image'


def read_rois(
    rois: Sequence[str],
    ignored: Sequence[Path],
    image_size: tuple[int, int],
    map_size: tuple[int, int],
) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Read regions of interest, and bring them to a map's pixels.

    A pixel of the map belongs to the first region that covers half of it or more.

    Args:
        rois: "FILE" or "NAME=FILE" each: a picture of the image's size that is black outside, or
            polygons by name in JSON, `{"NAME": [[[x, y], ...], ...]}`. None for the whole image.
        ignored: such files of what does not count, whatever the regions are.
        image_size: (height, width) in pixels of the camera's images.
        map_size: (height, width) of the anomaly map.

    Returns:
        The regions' names, and uint8 (h,w): 0 for what does not count, else 1 plus the index of
        the region.

    Raises:
        DataError: a file cannot be read, has another size than the images, or marks nothing; or
            nothing of a region is left.
    """
    regions: dict[str, NDArray[np.bool_]] = {}
    for argument in rois:
        name, _, file = argument.rpartition("=")
        for key, mask in _read(Path(file), name or None, image_size).items():
            if key in regions:
                raise DataError(
                    f"{file}: got a second region of interest named {key}, expected "
                    "different names; name it with --roi NAME=FILE."
                )
            regions[key] = mask
    regions = regions or {WHOLE: np.ones(image_size, np.bool_)}
    counts = np.ones(image_size, np.bool_)
    for path in ignored:
        for mask in _read(path, None, image_size).values():
            counts &= ~mask
    labels = np.zeros(map_size, np.uint8)
    for index, (name, mask) in enumerate(regions.items()):
        covered = _share_of_pixels(mask & counts, map_size) >= _HALF
        labels[covered & (labels == 0)] = 1 + index
        if not (labels == 1 + index).any():
            raise DataError(
                f"nothing of the region of interest {name} is left: it is ignored, covered by the "
                "regions before it, or smaller than a pixel of the map; draw it larger."
            )
    return tuple(regions), labels


def _read(
    path: Path, name: str | None, image_size: tuple[int, int]
) -> dict[str, NDArray[np.bool_]]:
    masks = (
        _polygons(path, image_size)
        if path.suffix.lower() == ".json"
        else {path.stem: _picture(path, image_size)}
    )
    if name is not None:
        masks = {name: np.logical_or.reduce(list(masks.values()))}
    for key, mask in masks.items():
        if not mask.any():
            raise DataError(f"{path}: {key} marks no pixel of the image; draw it inside.")
    return masks


def _picture(path: Path, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    pixels = read_pixels(path)
    if pixels.shape[:2] != image_size:
        raise DataError(
            f"{path}: got {pixels.shape[0]}x{pixels.shape[1]} pixels, expected "
            f"{image_size[0]}x{image_size[1]}, the size of the images; draw it on one of "
            "them."
        )
    return np.asarray(pixels.reshape(*image_size, -1).any(axis=2))


def _polygons(path: Path, image_size: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON ({error}); expected {_POLYGONS}."
        ) from None
    if not isinstance(values, Mapping) or not values:
        raise DataError(f"{path}: got no named polygons, expected {_POLYGONS}.")
    return {str(name): _filled(path, polygons, image_size) for name, polygons in values.items()}


def _filled(path: Path, polygons: Any, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = Image.new("1", (image_size[1], image_size[0]))
    try:
        for polygon in polygons:
            points = np.array(polygon, dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
                raise ValueError(f"a polygon has the shape {points.shape}")
            if not np.isfinite(points).all():
                raise ValueError("a corner is not finite")
            ImageDraw.Draw(mask).polygon([tuple(point) for point in points.tolist()], fill=1)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: malformed ({error}); expected {_POLYGONS}.") from None
    return np.asarray(mask)


def _share_of_pixels(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the share of each map pixel that a mask covers, float32 (h,w)."""
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))
