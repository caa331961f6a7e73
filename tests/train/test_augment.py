"""Disturbed images: what changes, by how much, and that a resumed run sees the same."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fit_runs import OPTIONS, assert_same_runs, epochs, start
from torch import Tensor

from stpm.train.augment import BRIGHTNESS, SHIFT, Augmentation
from stpm.train.checkpoint import load_checkpoint

SIZE = (64, 96)


def disc(count: int) -> Tensor:
    """A bright disc in the middle of grey."""
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    inside = (rows - 31.5) ** 2 + (columns - 47.5) ** 2 < 15**2
    image = np.where(inside[..., None], 160, 40).astype(np.uint8).repeat(3, axis=2)
    return torch.from_numpy(image).expand(count, -1, -1, -1).clone()


def centre(image: Tensor) -> tuple[float, float]:
    values = image[..., 0].double()
    bright = values > (values.min() + values.max()) / 2
    rows, columns = np.nonzero(bright.numpy())
    return float(rows.mean()), float(columns.mean())


def test_images_move_and_change_their_light_within_limits() -> None:
    images = disc(40)
    changed = Augmentation(0, SIZE)(images, torch.arange(40), 0)
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    offsets = np.array([centre(image) for image in changed]) - (31.5, 47.5)
    limits = np.array([side * 1.25 * SHIFT for side in SIZE]) + 1  # of the padded image
    assert (np.abs(offsets) <= limits).all()
    assert (np.abs(offsets).max(axis=0) > 1).all()
    light = changed.double().mean(dim=(1, 2, 3)) / images[0].double().mean()
    assert 1 - BRIGHTNESS - 0.05 < float(light.min()) < 0.95
    assert 1.05 < float(light.max()) < 1 + BRIGHTNESS + 0.05
    assert int(changed[:, 0].min()) > 20, "no black corners"


def test_an_image_is_disturbed_by_seed_epoch_and_index_alone() -> None:
    images = disc(3)
    index = torch.tensor([4, 9, 2])
    expected = Augmentation(1, SIZE)(images, index, 5)
    torch.manual_seed(77)
    assert torch.equal(Augmentation(1, SIZE)(images[1:2], index[1:2], 5)[0], expected[1])
    for seed, epoch, number in ((2, 5, 9), (1, 6, 9), (1, 5, 8)):
        other = Augmentation(seed, SIZE)(images[:1], torch.tensor([number]), epoch)
        assert not torch.equal(other[0], expected[1])


def test_the_teacher_sees_the_disturbed_images(data_root: Path, teacher_file: Path) -> None:
    fit = start(data_root, teacher_file, replace(OPTIONS, augment=True))
    assert fit.train.cached_count == 0
    assert fit.held_out.cached_count == len(fit.held_out)
    index = torch.tensor([1, 7])
    pixels, *targets = fit.train.batch(index, 3)
    assert not torch.equal(pixels, fit.train.pixels(index))
    with torch.no_grad():
        levels = fit.model.teacher(pixels)
    for target, wished in zip(targets, fit.targets(levels), strict=True):
        torch.testing.assert_close(target, wished.half())


def test_a_resumed_run_gives_the_same_bits(
    data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, augment=True)
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    list(epochs(data_root, teacher_file, whole, options))
    with closing(epochs(data_root, teacher_file, parts, options)) as run:
        next(run)
    list(epochs(data_root, teacher_file, parts, options, resume=True))
    assert_same_runs(load_checkpoint(parts), load_checkpoint(whole))
