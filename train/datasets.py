"""Images on disk: a folder of good parts, or a category in the layout of MVTec AD."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.runtime.preprocess import IMAGE_SUFFIXES, load_image, resize

GOOD = "good"
"""The kind of test images without a defect."""


@dataclass(frozen=True)
class Sample:
    """One test image: its path, its defect kind (`GOOD` for none) and its mask, if there is one."""

    path: Path
    kind: str
    mask: Path | None

    @property
    def is_anomalous(self) -> bool:
        """Whether the part is labelled as defective."""
        return self.kind != GOOD


def list_images(folder: Path) -> list[Path]:
    """List the images directly in a folder, sorted by name.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path.")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        expected = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{folder}: holds no image; expected files ending in {expected}.")
    return paths


def labelled_samples(category: Path) -> list[Sample]:
    """List the test images of an MVTec AD category with their masks.

    Args:
        category: a folder with `test/KIND/NAME.png` and `ground_truth/KIND/NAME_mask.png`. A
            category without `ground_truth` gives samples without masks.

    Raises:
        DataError: a folder is missing or empty, or masks and images do not pair up.
    """
    root = category / "test"
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; expected the layout of MVTec AD.")
    samples = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        images = list_images(folder)
        masks = _masks(category, folder.name, images)
        samples += [Sample(p, folder.name, masks.get(p.stem)) for p in images]
    if not samples:
        raise DataError(f"{root}: holds no folder; expected test/good and test/KIND folders.")
    return samples


def _masks(category: Path, kind: str, images: Sequence[Path]) -> dict[str, Path]:
    folder = category / "ground_truth" / kind
    if kind == GOOD or not (category / "ground_truth").is_dir():
        return {}
    masks = {p.stem.removesuffix("_mask"): p for p in list_images(folder)}
    stems = {p.stem for p in images}
    for stem in sorted(masks.keys() - stems):
        raise DataError(f"{masks[stem]}: there is no image {stem} in test/{kind}; remove the mask.")
    for stem in sorted(stems - masks.keys()):
        raise DataError(f"{folder}: the mask {stem}_mask.png is missing; add it.")
    return masks


def read_mask(sample: Sample, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a sample's ground truth at (height, width), nearest neighbour; all False without a mask.

    Raises:
        DataError: the mask cannot be decoded or its size differs from its image's.
    """
    if sample.mask is None:
        return np.zeros(size, dtype=np.bool_)
    mask = load_image(sample.mask)[..., 0]
    image_size = load_image(sample.path).shape[:2]
    if mask.shape != image_size:
        raise DataError(
            f"{sample.mask}: has {mask.shape[0]}x{mask.shape[1]} pixels, expected "
            f"{image_size[0]}x{image_size[1]} like its image; export the mask again."
        )
    height, width = size
    resized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized) > 127


def read_images(
    paths: Iterable[Path],
    size: tuple[int, int],
    *,
    on_bad: Callable[[DataError], None] | None = None,
) -> tuple[list[Path], NDArray[np.uint8]]:
    """Read and resize images into one array.

    Args:
        paths: the files.
        size: (height, width) in pixels.
        on_bad: called with the error of a file that cannot be decoded, which is then left out;
            None stops at the first one.

    Returns:
        The paths that were read, and uint8 (N,height,width,3).

    Raises:
        DataError: a file cannot be decoded and `on_bad` is None, or none could be.
    """
    kept, images = [], []
    for path in paths:
        try:
            images.append(resize(load_image(path), size))
            kept.append(path)
        except DataError as error:
            if on_bad is None:
                raise DataError(f"{error} Or leave such files out with --skip-bad.") from error
            on_bad(error)
    if not images:
        raise DataError("none of the images could be decoded; expected at least one.")
    return kept, np.stack(images)


def split_held_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split indices into training and held-out ones, as the authors' code does with scikit-learn.

    Args:
        count: how many images there are.
        share: of them to hold out, rounded up.
        seed: of the permutation.

    Returns:
        Training indices and held-out indices, each in ascending order.

    Raises:
        DataError: fewer than two images.
    """
    if count < 2:
        raise DataError(
            f"got {count} good image, expected at least 2, one of them held out; add some."
        )
    held_out = min(int(np.ceil(count * share)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())


def data_hash(images: NDArray[np.uint8]) -> str:
    """Hash the pixels that training sees (sha256, hexadecimal)."""
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
