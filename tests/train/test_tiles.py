"""Tiles of photographs: every image has some, they cover it, and a seed fixes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.train.datasets import tiles
from stpm.train.datasets.tiles import places, read_tiles


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(draw.integers(0, 256, (150, 100, 3)).astype(np.uint8)).save(paths[-1])
    return paths


@pytest.mark.parametrize("size", [(64, 64), (65, 200), (129, 500), (640, 641)])
@pytest.mark.parametrize("seed", [0, 1])
def test_places_cover_the_image(size: tuple[int, int], seed: int) -> None:
    found = places(size, 64, 10_000, np.random.default_rng(seed))
    covered = np.zeros(size, bool)
    for top, left in found:
        assert 0 <= top <= size[0] - 64
        assert 0 <= left <= size[1] - 64
        covered[top : top + 64, left : left + 64] = True
    assert covered.all()


def test_tiles_are_the_pixels_of_their_image(photographs: list[Path]) -> None:
    owners, found = read_tiles(photographs, 64, 0)
    assert found.shape[1:] == (64, 64, 3)
    assert len(owners) == len(found) == 3 * 3 * 2
    again, same = read_tiles(photographs, 64, 0)
    assert again == owners
    np.testing.assert_array_equal(found, same)
    for owner, tile in zip(owners[::5], found[::5], strict=True):
        image = np.asarray(Image.open(owner))
        corners = np.argwhere((image[:87, :37] == tile[0, 0]).all(axis=2))
        assert any((image[y : y + 64, x : x + 64] == tile).all() for y, x in corners)


def test_every_image_has_its_share(
    photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "MOST_PIXELS", 7 * 64 * 64)
    owners, _ = read_tiles(photographs, 64, 3)
    assert [owners.count(path) for path in photographs] == [2, 2, 2]


def test_an_image_smaller_than_a_tile(photographs: list[Path]) -> None:
    with pytest.raises(
        DataError, match="has 150x100 pixels, expected at least 128x128, the size of a tile"
    ):
        read_tiles(photographs, 128, 0)
    left_out: list[DataError] = []
    with pytest.raises(DataError, match="none of the images"):
        read_tiles(photographs, 128, 0, on_bad=left_out.append)
    assert len(left_out) == 3
