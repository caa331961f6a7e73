"""A camera of 12 bits in 16: from training to the verdict, the same as its images in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from train_cli import refuse, succeed
from typer.testing import CliRunner

from stpm.export.cli import main as export
from stpm.runtime import Bundle, DataError, Detector
from stpm.runtime.bundle.archive import InputContract
from stpm.runtime.images.preprocess import load_image
from stpm.train.checkpoint import load_checkpoint

SIZE = (64, 64)


def deep(seed: int) -> NDArray[np.uint16]:
    """A texture in 12 bits."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    wave = 1800 + 900 * np.sin(rows / 3.0) + 500 * np.cos(columns / 5.0)
    return (wave + random.normal(0, 100, SIZE)).clip(0, 4095).astype(np.uint16)


def shallow(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return np.rint(pixels.astype(np.float64) * 255 / 4095).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same parts in 12 of 16 bits and in 8."""
    root = tmp_path_factory.mktemp("depth")
    for i in range(15):
        for name, pixels in (("deep", deep(i)), ("shallow", shallow(deep(i)))):
            path = root / name / f"{i:02}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root / "deep", root / "shallow"


@pytest.fixture(scope="module")
def checkpoints(folders: tuple[Path, Path], teacher_file: Path) -> list[Path]:
    made = []
    for folder, options in zip(folders, (["--bit-depth", 12], []), strict=True):
        made.append(folder.with_suffix(".pt"))
        flags = ["--teacher-weights", teacher_file, "--input-size", 64, "--epochs", 1]
        succeed("--good", folder, "--out", made[-1], "--batch-size", 4, *flags, *options)
    return made


def test_training_sees_the_same_pixels(checkpoints: list[Path]) -> None:
    first, second = map(load_checkpoint, checkpoints)
    assert (first.bit_depth, second.bit_depth) == (12, 16)
    assert first.training["data_sha256"] == second.training["data_sha256"]
    assert all(torch.equal(first.student[key], second.student[key]) for key in first.student)


def test_the_bundle_keeps_it(checkpoints: list[Path], tmp_path: Path) -> None:
    detectors = []
    for checkpoint in checkpoints:
        out = tmp_path / f"{checkpoint.stem}.stpm"
        arguments = ["--ckpt", checkpoint, "--out", out, "--engine", "onnxruntime"]
        result = CliRunner().invoke(export, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        detectors.append(Detector(out))
    contracts = [detector.bundle.manifest.input for detector in detectors]
    assert contracts == [InputContract(SIZE, bit_depth=12), InputContract(SIZE)]
    thresholds = [detector.calibration.image_threshold for detector in detectors]
    assert thresholds[0] == thresholds[1]
    frame = deep(99)
    Image.fromarray(frame).save(tmp_path / "frame.png")
    expected = detectors[1](shallow(frame)).score
    for source in (frame, tmp_path / "frame.png", np.stack([frame] * 3, axis=2)):
        assert detectors[0](source).score == expected
    assert detectors[0].scores([frame])[0] == expected
    assert detectors[0](shallow(frame)).score == expected, "8 bits are as they are"
    with pytest.raises(DataError, match="value of 4096 from a camera of 12 bits, expected at most"):
        detectors[0](np.full(SIZE, 4096, np.uint16))
    assert Bundle(tmp_path / "deep.stpm").manifest.input.bit_depth == 12


def test_a_run_does_not_change_its_depth(
    checkpoints: list[Path], folders: tuple[Path, Path], teacher_file: Path
) -> None:
    flags = ["--teacher-weights", teacher_file, "--input-size", 64, "--epochs", 2]
    arguments = ["--good", folders[0], "--out", checkpoints[0], "--batch-size", 4, *flags]
    assert "with bit_depth 12, got 16" in refuse(*arguments, "--resume")


@pytest.mark.parametrize("bit_depth", [8, 10, 12, 14, 16])
def test_full_scale_is_white_and_values_are_rounded(bit_depth: int) -> None:
    full = (1 << bit_depth) - 1
    values = np.unique(np.linspace(0, full, 999).astype(np.uint16))[None]
    found = load_image(values, bit_depth)[0, :, 0]
    np.testing.assert_array_equal(found, np.rint(values[0].astype(np.float64) * 255 / full))
    assert (found[0], found[-1]) == (0, 255)
