"""Regions of interest from masks and polygons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.runtime.site.rois import read_rois

SIZE = (40, 60)


def picture(
    path: Path, box: tuple[int, int, int, int] | None, size: tuple[int, int] = SIZE
) -> Path:
    mask = np.zeros(size, np.uint8)
    if box is not None:
        top, left, bottom, right = box
        mask[top:bottom, left:right] = 255
    Image.fromarray(mask).save(path)
    return path


def test_a_mask_is_scaled_to_the_map(tmp_path: Path) -> None:
    # Columns 0 to 22: pixels of the map are 4 wide, the sixth is covered by half.
    names, labels = read_rois(
        [str(picture(tmp_path / "part.png", (0, 0, 40, 22)))], [], SIZE, (10, 15)
    )
    assert names == ("part",)
    assert labels.dtype == np.uint8
    expected = np.zeros((10, 15), np.uint8)
    expected[:, :6] = 1
    np.testing.assert_array_equal(labels, expected)


def test_regions_have_names_and_ignored_places(tmp_path: Path) -> None:
    polygons = {
        "left": [[[0, 0], [29, 0], [29, 39], [0, 39]]],
        "all": [[[0, 0], [59, 0], [59, 39], [0, 39]]],
    }
    (tmp_path / "two.json").write_text(json.dumps(polygons))
    hole = picture(tmp_path / "hole.png", (20, 0, 40, 60))
    names, labels = read_rois([str(tmp_path / "two.json")], [hole], SIZE, SIZE)
    assert names == ("left", "all")
    assert (labels[:20, :30] == 1).all()  # the first that covers it
    assert (labels[:20, 30:] == 2).all()
    assert (labels[20:] == 0).all()
    named, _ = read_rois([f"one={tmp_path / 'two.json'}"], [], SIZE, SIZE)
    assert named == ("one",)


def test_all_that_is_not_ignored(tmp_path: Path) -> None:
    names, labels = read_rois([], [picture(tmp_path / "clamp.png", (0, 0, 40, 8))], SIZE, SIZE)
    assert names == ("image",)
    assert (labels[:, :8] == 0).all()
    assert (labels[:, 8:] == 1).all()


def test_a_deep_or_coloured_mask_counts_what_is_not_black(tmp_path: Path) -> None:
    colour = np.zeros((*SIZE, 3), np.uint8)
    colour[:5, :, 2] = 1
    Image.fromarray(colour).save(tmp_path / "blue.png")
    _, labels = read_rois([str(tmp_path / "blue.png")], [], SIZE, SIZE)
    assert (labels[:5] == 1).all()
    assert (labels[5:] == 0).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "got no named polygons"),
        ("{}", "got no named polygons"),
        ('{"a": 1}', "malformed"),
        ('{"a": [[[0, 0], [1, 1]]]}', "malformed (a polygon has the shape (2, 2))"),
        ('{"a": [[[0, 0], [1, NaN], [3, 3]]]}', "a corner is not finite"),
        ('{"a": [[[90, 90], [95, 90], [95, 95]]]}', "a marks no pixel of the image"),
        ('{"a": []}', "a marks no pixel of the image"),
    ],
)
def test_bad_polygons_are_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "rois.json"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        read_rois([str(path)], [], SIZE, SIZE)
    assert str(path) in str(error.value)
    assert says in str(error.value)


def test_masks_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    def refused(rois: list[Path], ignored: list[Path], map_size: tuple[int, int] = SIZE) -> str:
        with pytest.raises(DataError) as error:
            read_rois(list(map(str, rois)), ignored, SIZE, map_size)
        return str(error.value)

    part = picture(tmp_path / "part.png", (0, 0, 20, 20))
    empty = picture(tmp_path / "empty.png", None)
    everything = picture(tmp_path / "everything.png", (0, 0, 40, 60))
    other = picture(tmp_path / "other.png", (0, 0, 20, 20), (20, 20))
    spot = picture(tmp_path / "spot.png", (0, 0, 1, 1))
    assert "empty marks no pixel" in refused([empty], [])
    assert "got 20x20 pixels, expected 40x60, the size of the images" in refused([other], [])
    assert "nothing of the region of interest part is left" in refused([part], [everything])
    assert "nothing of the region of interest image is left" in refused([], [everything])
    assert "nothing of the region of interest spot is left" in refused([spot], [], (4, 6))
    assert "got a second region of interest named part" in refused([part, part], [])
    assert "there is no such file" in refused([tmp_path / "absent.png"], [])
