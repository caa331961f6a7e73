"""Resizing as matrices: Pillow's own grey levels, and torch's bilinear upsampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from stpm.export.graph import MatrixUpsample, PillowResize
from stpm.export.resample import (
    BLOCK_ROWS,
    PILLOW_PRECISION_BITS,
    antialias_matrix,
    bilinear_matrix,
    blocks_of,
)
from stpm.runtime.images.preprocess import resize

Size = tuple[int, int]
sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))
COMMON = [
    ((900, 900), (256, 256)),
    ((1024, 1024), (256, 256)),
    ((1024, 768), (256, 256)),
    ((1200, 300), (256, 256)),
    ((768, 1024), (256, 256)),
    ((1, 1), (7, 5)),
    ((7, 5), (1, 1)),
    ((64, 64), (64, 64)),
    ((320, 320), (256, 256)),
    ((480, 640), (256, 256)),
    ((2048, 8), (16, 8)),
    ((64, 90), (64, 45)),
    ((90, 64), (45, 64)),
    ((31, 17), (256, 256)),
]


def noise(size: Size) -> NDArray[np.uint8]:
    """Random RGB whose upper half is black and white alone, the hardest to round."""
    image = np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)
    half = size[0] // 2
    image[:half] = np.where(image[:half] < 128, 0, 255)
    return image


def in_graph(image: NDArray[np.uint8], size: Size) -> NDArray[np.float32]:
    return np.asarray(PillowResize(image.shape[:2], size)(torch.from_numpy(image)[None])[0])


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.floor(values + 0.5)


def examples(test):
    for source, target in COMMON:
        test = example(source, target)(test)
    return test


@examples
@settings(deadline=None, max_examples=40)
@given(sizes, sizes)
def test_matrices_give_exactly_pillows_grey_levels(source: Size, target: Size) -> None:
    image = noise(source)[..., 0]
    rows, columns = (
        antialias_matrix(*axis).astype(float) for axis in zip(source, target, strict=True)
    )
    resized = rounded(rows @ rounded(image.astype(float) @ columns.T))
    np.testing.assert_array_equal(resized, resize(image[..., None], target)[..., 0])


@examples
@settings(deadline=None, max_examples=40)
@given(sizes, sizes)
def test_the_graph_gives_exactly_pillows_grey_levels(source: Size, target: Size) -> None:
    image = noise(source)
    np.testing.assert_array_equal(in_graph(image, target), resize(image, target))


@pytest.mark.parametrize("source", [(96, 80), (7, 200), (1, 1)])
def test_every_constant_frame_keeps_its_grey_level(source: Size) -> None:
    frames = torch.arange(256.0).view(256, 1, 1, 1).expand(256, *source, 1)
    resized = PillowResize(source, (64, 48))(frames)
    assert torch.equal(resized, torch.arange(256.0).view(256, 1, 1, 1).expand(256, 64, 48, 1))


@pytest.mark.parametrize(("size", "target"), [(900, 256), (16, 256), (7, 7), (1, 9), (9, 1)])
def test_antialias_weights_are_pillows_fixed_point(size: int, target: int) -> None:
    matrix = antialias_matrix(size, target)
    assert (matrix.shape, matrix.dtype) == ((target, size), np.float32)
    units = matrix.astype(float) * 2**PILLOW_PRECISION_BITS
    np.testing.assert_array_equal(units, np.floor(units))
    assert (units >= 0).all()
    error = np.abs(units.sum(axis=1) - 2**PILLOW_PRECISION_BITS)
    assert (error <= 0.5 * np.count_nonzero(matrix, axis=1)).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 600), st.integers(1, 300))
@example(1280, 256)
@example(5, 251)
def test_blocks_are_the_matrix_without_its_zeros(size: int, target: int) -> None:
    matrix = antialias_matrix(size, target)
    weights, index = blocks_of(matrix)
    rows = target // len(index)
    assert rows >= min(BLOCK_ROWS, target)
    assert index.min() >= 0
    assert index.max() < size
    rebuilt = np.zeros_like(matrix)
    for row, line in enumerate(weights):
        np.add.at(rebuilt[row], index[row // rows], line)
    np.testing.assert_array_equal(rebuilt, matrix)


def test_blocks_of_a_large_camera_hold_few_zeros() -> None:
    weights, index = blocks_of(antialias_matrix(1280, 256))
    assert weights.shape == (256, index.shape[1])
    assert index.shape[1] < 100


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 80), st.integers(1, 300))
def test_bilinear_matrix_is_torchs_interpolation(size: int, target: int) -> None:
    matrix = bilinear_matrix(size, target)
    assert (matrix.shape, matrix.dtype) == ((target, size), np.float32)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    line = torch.from_numpy(np.random.default_rng(size).random((1, 1, size)))
    expected = F.interpolate(line, size=target, mode="linear", align_corners=False)
    np.testing.assert_allclose(matrix @ line[0, 0].numpy(), expected[0, 0].numpy(), atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.tuples(st.integers(1, 70), st.integers(1, 70)), sizes)
def test_matrix_upsampling_is_torchs_interpolation(source: Size, target: Size) -> None:
    level = torch.from_numpy(np.random.default_rng(source).random((2, 1, *source)))
    expected = F.interpolate(level, size=target, mode="bilinear", align_corners=False)
    upsampled = MatrixUpsample([source], target)(level.float())
    np.testing.assert_allclose(upsampled, expected, atol=1e-6)
