"""Paints a small data set in the layout of MVTec AD: parts under a camera, some of them damaged.

The parts are photographs that scikit-image ships.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image
from skimage import data

from stpm.runtime.errors import DataError, StpmError
from stpm.runtime.output.console import note, say

Grey = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float64]
Painter = Callable[[Grey, np.random.Generator, float], tuple[Grey, Flags]]

CATEGORIES = ("brick", "coins", "page")
SHIFT = 3  # pixels that a part may lie off, to every side
LIGHT = 0.05  # share by which the light varies, up and down
NOISE = 2.0  # deviation of the sensor's noise in grey levels
SIZES = (0.10, 0.16, 0.24, 0.34)  # a defect's extent as a fraction of the tile's side
MIN_TILE, MAX_TILE = 32, 184


def _finish(tile: Grey, painted: Field, mask: Flags) -> tuple[Grey, Flags]:
    """Rounds the painting inside the mask and moves every pixel there that kept its grey level."""
    levels = np.rint(painted.clip(0, 255)).astype(np.uint8)
    # A mask that names unchanged pixels would charge a detector for missing what is not there.
    moved = np.where(tile < 128, tile + 1, tile - 1).astype(np.uint8)
    return np.where(mask, np.where(levels == tile, moved, levels), tile), mask


def _axes(side: int, rng: np.random.Generator, reach: float) -> tuple[Field, Field]:
    """Returns each pixel's coordinates on turned axes, the origin `reach` or more from a border."""
    row, column = rng.uniform(reach, side - 1 - reach, 2)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    y, x = y - row, x - column
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _grain(tile: Grey) -> float:
    """Returns 0 for a smooth texture up to 1 for a rough one, in which faint damage drowns."""
    return float(min(np.abs(np.diff(tile.astype(np.float64))).mean() / 20, 1))


def _scratch(tile: Grey, rng: np.random.Generator, size: float) -> tuple[Grey, Flags]:
    """Draws a thin bowed line, bright or dark, that tapers at both ends."""
    half = 1.2 * size
    u, v = _axes(len(tile), rng, half)
    along = (u / half).clip(-1, 1) ** 2
    width = rng.uniform(0.8, 1.2) + 0.02 * size
    distance = np.abs(v - rng.uniform(-0.2, 0.2) * size * (1 - along))
    mask = (np.abs(u) <= half) & (distance <= np.maximum(width * np.sqrt(1 - along), 0.6))
    tone = 125 + rng.choice([-1, 1]) * (85 + 40 * _grain(tile))
    middle = rng.uniform(0.45, 0.65) + 0.3 * _grain(tile)
    cover = middle * (1 - 0.4 * np.minimum(distance / width, 1))
    return _finish(tile, tile + cover * (tone - tile), mask)


def _blob(tile: Grey, rng: np.random.Generator, size: float) -> tuple[Grey, Flags]:
    """Lays an uneven stain over the tile that darkens or brightens it, most in the middle."""
    u, v = _axes(len(tile), rng, 0.76 * size)
    turn = np.arctan2(v, u)
    outline = np.full(tile.shape, 0.5 * size)
    for wave in range(2, 6):
        bump = rng.uniform(-0.4, 0.4) / wave
        outline += 0.5 * size * bump * np.cos(wave * turn + rng.uniform(0, 2 * np.pi))
    radius = np.hypot(u, v) / outline
    strength = (rng.uniform(0.25, 0.4) + 0.25 * _grain(tile)) * rng.choice([-1, 1])
    return _finish(tile, tile * (1 + strength * (1 - 0.5 * radius**2)), radius <= 1)


def _patch(tile: Grey, rng: np.random.Generator, size: float, *, donor: Grey) -> tuple[Grey, Flags]:
    """Pastes a turned, rounded rectangle of another texture at nearly the brightness it covers."""
    u, v = _axes(len(tile), rng, 0.6 * size)
    half, ratio = 0.5 * size, rng.uniform(0.6, 1.0)
    mask = np.abs(u / half) ** 4 + np.abs(v / (ratio * half)) ** 4 <= 1
    piece = donor.astype(np.float64)
    # Neither brightness nor contrast must give the patch away: its texture is the defect.
    piece = (piece - piece[mask].mean()) * min(tile.std() / piece.std(), 1)
    return _finish(tile, piece + tile[mask].mean() + rng.uniform(-15, 15), mask)


def _hole(tile: Grey, rng: np.random.Generator, size: float) -> tuple[Grey, Flags]:
    """Sinks a dark ellipse that swallows the texture, deepest in the middle."""
    u, v = _axes(len(tile), rng, 0.5 * size)
    half, ratio = 0.5 * size, rng.uniform(0.5, 0.9)
    radius = np.hypot(u / half, v / (ratio * half))
    cover = (rng.uniform(0.6, 0.8) + 0.15 * _grain(tile)) * (1 - 0.35 * radius**2)
    return _finish(tile, tile + cover * (0.25 * tile.mean() - tile), radius <= 1)


def _captures(category: str, rng: np.random.Generator, side: int) -> Iterator[Grey]:
    """Yields without end what a fixed camera sees of one part after the other.

    Each part lies a little elsewhere, in a little other light, and the sensor adds noise.
    """
    photograph = np.asarray(getattr(data, category)(), dtype=np.float64)
    middle = [(length - side) // 2 for length in photograph.shape]
    while True:
        top, left = middle + rng.integers(-SHIFT, SHIFT + 1, 2)
        part = photograph[top : top + side, left : left + side]
        seen = part * rng.uniform(1 - LIGHT, 1 + LIGHT) + rng.normal(0, NOISE, part.shape)
        yield np.rint(seen.clip(0, 255)).astype(np.uint8)


def _images(
    category: str, train_good: int, test_good: int, defects_per_kind: int, tile_size: int, seed: int
) -> Iterator[tuple[str, Grey]]:
    """Yields every image and mask of one category with its path inside the category's folder."""
    index = CATEGORIES.index(category)
    # Seeded by category, so that one painted alone equals the same one painted among others.
    rng = np.random.default_rng([seed, index])
    donor = next(_captures(CATEGORIES[index - 1], rng, tile_size))
    painters: dict[str, Painter] = {
        "scratch": _scratch,
        "blob": _blob,
        "patch": partial(_patch, donor=donor),
        "hole": _hole,
    }
    captures = _captures(category, rng, tile_size)
    for part, count in (("train", train_good), ("test", test_good)):
        for number, tile in enumerate(islice(captures, count)):
            yield f"{part}/good/{number:03}.png", tile
    for kind, painter in painters.items():
        for number, undamaged in enumerate(islice(captures, defects_per_kind)):
            size = SIZES[number % len(SIZES)] * tile_size
            tile, mask = painter(undamaged, rng, size)
            yield f"test/{kind}/{number:03}.png", tile
            yield f"ground_truth/{kind}/{number:03}_mask.png", mask.astype(np.uint8) * np.uint8(255)


def _free_folders(root: Path, categories: Sequence[str]) -> list[Path]:
    """Returns one folder per category; raises DataError for a strange or an occupied one."""
    for category in categories:
        if category not in CATEGORIES:
            raise DataError(
                f"got category {category!r}, expected one of {', '.join(CATEGORIES)}; choose one."
            )
    folders = [root / category for category in dict.fromkeys(categories)]
    for folder in folders:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(
                f"{folder}: exists and is not empty; remove it, or choose another folder."
            )
    return folders


def _refuse_numbers(counts: Sequence[int], tile_size: int, seed: int) -> None:
    """Raises DataError for numbers that cannot be painted."""
    if not MIN_TILE <= tile_size <= MAX_TILE:
        raise DataError(
            f"got tile size {tile_size}, expected {MIN_TILE} to {MAX_TILE} pixels; choose another."
        )
    if min(counts) < 1:
        raise DataError(f"got a count of {min(counts)}, expected at least 1 image; raise it.")
    if seed < 0:
        raise DataError(f"got seed {seed}, expected 0 or more; choose another.")


def _write(folder: Path, images: Iterator[tuple[str, Grey]]) -> None:
    for path, image in images:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / path)


def paint_parts(
    root: Path,
    *,
    categories: Sequence[str] = CATEGORIES,
    train_good: int = 100,
    test_good: int = 40,
    defects_per_kind: int = 10,
    tile_size: int = 128,
    seed: int = 0,
) -> list[Path]:
    """Writes categories of good and damaged tiles with exact masks, the same bytes for a seed.

    Args:
        root: Folder that receives one folder per category.
        categories: Names out of CATEGORIES; a repeated name is painted once.
        train_good: Good training images per category.
        test_good: Good test images per category, of the same part in the same light.
        defects_per_kind: Test images per kind of defect, their sizes cycling through SIZES.
        tile_size: Side of every image in pixels, 32 to 184.
        seed: Seed of every random choice, at least 0.

    Returns:
        The category folders, in the order asked for.

    Raises:
        DataError: An argument is out of range, a folder holds something or cannot be written.

    Source:
        The photographs skimage.data.brick, coins and page; the layout of MVTec AD,
        Bergmann et al., CVPR 2019.
    """
    counts = (train_good, test_good, defects_per_kind)
    _refuse_numbers(counts, tile_size, seed)
    try:
        folders = _free_folders(root, categories)
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".painted-", dir=root) as unfinished:
            for folder in folders:
                images = _images(folder.name, *counts, tile_size, seed)
                _write(Path(unfinished, folder.name), images)
            for folder in folders:
                if folder.exists():
                    folder.rmdir()
                Path(unfinished, folder.name).rename(folder)
    except OSError as error:
        raise DataError(f"cannot write to {root} ({error}); choose another folder.") from error
    return folders


def _command(
    out: Annotated[Path, typer.Argument(help="Folder that receives the categories.")],
    category: Annotated[
        list[str] | None, typer.Option(help="Category; may be repeated; all by default.")
    ] = None,
    train_good: int = 100,
    test_good: int = 40,
    defects_per_kind: int = 10,
    tile_size: int = 128,
    seed: int = 0,
) -> None:
    """Paint a small data set in the layout of MVTec AD: parts under a camera, some damaged."""
    try:
        folders = paint_parts(
            out,
            categories=category or CATEGORIES,
            train_good=train_good,
            test_good=test_good,
            defects_per_kind=defects_per_kind,
            tile_size=tile_size,
            seed=seed,
        )
    except StpmError as error:
        note(str(error))
        raise typer.Exit(1) from error
    for folder in folders:
        say(folder)


def main() -> None:
    """Runs the command line."""
    typer.run(_command)


if __name__ == "__main__":
    main()
