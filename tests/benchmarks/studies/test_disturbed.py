"""Test images in another place and light: the same data set, moved and dimmed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.studies.movement import Movement, moved_by
from stpm.train.datasets import open_category, read_image, read_mask


def disturb(data_root: Path, out: Path, **options: float) -> None:
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    arguments = ["disturb", "--data", data_root, "--category", "weave", "--out", out, *flags]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output


def test_undisturbed_it_is_the_same_data_set(data_root: Path, tmp_path: Path) -> None:
    disturb(data_root, tmp_path, shift=0, degrees=0, light=0)
    before, after = (open_category(root, "weave").test_samples() for root in (data_root, tmp_path))
    assert [(s.kind, s.name) for s in after] == [(s.kind, s.name) for s in before]
    for old, new in zip(before, after, strict=True):
        image = read_image(old.path)
        np.testing.assert_array_equal(read_image(new.path), image)
        size = image.shape[:2]
        np.testing.assert_array_equal(read_mask(new, size), read_mask(old, size))


def test_light_changes_within_its_limit_and_the_seed_repeats_it(
    data_root: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        disturb(data_root, tmp_path / name, shift=0, degrees=0, light=0.3, seed=4)
    samples = open_category(data_root, "weave").test_samples()
    gains = []
    for sample, first, second in zip(
        samples,
        open_category(tmp_path / "first", "weave").test_samples(),
        open_category(tmp_path / "second", "weave").test_samples(),
        strict=True,
    ):
        assert first.path.read_bytes() == second.path.read_bytes()
        image, seen = read_image(sample.path), read_image(first.path)
        unclipped = (seen < 255) & (image > 20)
        gains.append(float((seen[unclipped] / image[unclipped]).mean()))
    assert min(gains) > 0.7 - 0.02
    assert max(gains) < 1.3 + 0.02
    assert np.ptp(gains) > 0.2


def test_a_movement_takes_a_pixel_where_it_says() -> None:
    (matrix,) = Movement(0.1, 30, 2).matrices([(41, 61)])
    image = np.zeros((41, 61, 3), np.uint8)
    image[18:23, 28:33] = 200
    x, y = matrix @ [30, 20, 1]
    rows, columns = np.nonzero(moved_by(image, matrix)[..., 0] > 100)
    assert (columns.mean(), rows.mean()) == (pytest.approx(x, abs=0.5), pytest.approx(y, abs=0.5))


def test_a_folder_that_is_there_is_kept(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "weave").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "weave/mine.png")
    arguments = ["disturb", "--data", data_root, "--category", "weave", "--out", tmp_path]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 1
    assert "is there already, expected a new folder" in result.stderr
    assert [path.name for path in (tmp_path / "weave").iterdir()] == ["mine.png"]
