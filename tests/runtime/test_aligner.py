"""Places of drawn parts are found to a fraction of a pixel, and what has none is not guessed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import parts
import pytest
from PIL import Image
from real_data import REAL_DATA, needs_real_data

from stpm.runtime.aligner import Aligner, Placement
from stpm.runtime.bundle.alignment import Alignment
from stpm.runtime.images.preprocess import load_image

LIMITS = Alignment(parts.SIZE, 0.15, 20.0, 0.8)


def aligner_of(limits: Alignment = LIMITS, reference: np.ndarray | None = None) -> Aligner:
    blank = Aligner(limits, np.empty(0, np.uint8))
    return Aligner(limits, blank.picture(parts.draw_part() if reference is None else reference))


def farthest(found: Placement, shift: tuple[float, float], degrees: float) -> float:
    """How far a corner of the outline is from where it was drawn, in pixels of `SIZE`."""
    drawn = np.array([parts.place(corner, shift, degrees) for corner in parts.OUTLINE])
    # Of the pixel whose centre is at 0; a drawing's coordinates begin at the pixel's corner.
    rest = np.array([parts.place(corner, (0, 0), 0) for corner in parts.OUTLINE]) - 0.5
    got = rest @ found.matrix[:, :2].T + found.matrix[:, 2] + 0.5
    return float(np.hypot(*(got - drawn).T).max())


@pytest.mark.parametrize(
    ("shift", "degrees"),
    [((0, 0), 0), ((6, -4), 0), ((0, 0), 10), ((-6, 5), -10), ((10.3, 2.6), 17.2)],
)
def test_a_place_is_found(shift: tuple[float, float], degrees: float) -> None:
    aligner = aligner_of()
    found = aligner.place(aligner.picture(parts.draw_part(shift, degrees, seed=3, defect=True)))
    assert found is not None
    assert farthest(found, shift, degrees) < 0.35
    assert found.correlation > 0.97


def test_any_turn_of_a_larger_image() -> None:
    limits = replace(LIMITS, size=(384, 512), degrees=180.0)
    aligner = aligner_of(limits, parts.draw_part(size=(384, 512)))
    assert limits.working_size == (192, 256)
    image = parts.draw_part((3, 2), -161, size=(384, 512), seed=1)
    found = aligner.place(aligner.picture(image))
    assert found is not None
    at_rest = replace(
        found,
        matrix=np.column_stack(
            [
                found.matrix[:, :2],
                # Pixels of `SIZE` are twice as large.
                (found.matrix @ [0.5, 0.5, 1] + 0.5) / 2 - 0.5,
            ]
        ),
    )
    assert farthest(at_rest, (3, 2), -161) < 0.5
    apart = np.abs(found.to_reference(image).astype(float) - parts.draw_part(size=(384, 512)))
    assert np.median(apart) < 6


def test_a_round_part_is_only_shifted() -> None:
    aligner = aligner_of(replace(LIMITS, degrees=0.0))
    found = aligner.place(aligner.picture(parts.draw_part((7, -3), 0, seed=1)))
    assert found is not None
    np.testing.assert_array_equal(found.matrix[:, :2], np.eye(2))
    assert farthest(found, (7, -3), 0) < 0.35


@pytest.mark.parametrize(
    "image",
    [
        np.full((*parts.SIZE, 3), 90, np.uint8),
        np.random.default_rng(0).integers(0, 256, (*parts.SIZE, 3), np.uint8),
        255 - parts.draw_part(),
        parts.draw_part((25, 0), 0),
        parts.draw_part((0, 0), 30),
        parts.draw_part((0, 0), 180),
    ],
    ids=["flat", "noise", "inverted", "too far", "turned too far", "upside down"],
)
def test_what_is_not_the_part_has_no_place(image: np.ndarray) -> None:
    aligner = aligner_of()
    inputs, places = aligner(image[None])
    assert places == [None]
    np.testing.assert_array_equal(inputs[0], image)


def test_maps_come_back_where_the_camera_saw_them() -> None:
    aligner = aligner_of()
    shift, degrees = (8.0, -5.0), 9.0
    _, (found,) = aligner(parts.draw_part(shift, degrees)[None])
    assert found is not None
    # Of half the size, as maps may be.
    corner = (-30, -10)
    x, y = parts.place(corner, (0, 0), 0)
    anomaly_map = np.zeros((48, 64), np.float32)
    anomaly_map[round(y / 2) - 1 : round(y / 2) + 2, round(x / 2) - 1 : round(x / 2) + 2] = 1
    back = found.to_camera(anomaly_map)
    rows, columns = np.mgrid[:48, :64]
    centre = (columns * back).sum() / back.sum(), (rows * back).sum() / back.sum()
    place = ((round(x / 2) + 0.5) * 2 - 64, (round(y / 2) + 0.5) * 2 - 48)
    expected = parts.place(place, shift, degrees)
    assert centre == pytest.approx((expected[0] / 2 - 0.5, expected[1] / 2 - 0.5), abs=0.15)
    labels = found.labels_to_camera(np.ones((48, 64), np.uint8))
    # The image's left edge lies 8 pixels left of the reference: the camera saw more there.
    assert not labels[24, :2].any()
    assert labels[24, 8:56].all()


@needs_real_data
def test_real_screws_are_brought_together() -> None:
    """A screw of any turn is found; turned and shifted further, it is found there."""
    folder = REAL_DATA / "data/mvtec/screw"
    reference = load_image(folder / "train/good/000.png")
    limits = Alignment((256, 256), 0.2, 180.0, 0.8)
    aligner = aligner_of(limits, reference)
    for name in ("000", "012", "024"):
        image = Image.open(folder / f"test/good/{name}.png").convert("RGB")
        moved = image.rotate(-10, Image.Resampling.BICUBIC, translate=(7, -9), fillcolor=(190,) * 3)
        before, after = (aligner.place(aligner.picture(np.asarray(one))) for one in (image, moved))
        assert before is not None
        assert after is not None
        turn = [np.degrees(np.arctan2(p.matrix[1, 0], p.matrix[0, 0])) for p in (before, after)]
        assert (turn[1] - turn[0]) % 360 == pytest.approx(10, abs=1)
