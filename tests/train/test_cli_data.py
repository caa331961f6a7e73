"""stpm-train on the data sets' layouts, and on a part of their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from train_cli import refuse, succeed

from stpm.train.checkpoint import load_checkpoint


def used(checkpoint: Path) -> list[str]:
    training = load_checkpoint(checkpoint).training
    return sorted(training["train"] + training["held_out"])


def test_every_nth_frame_of_the_videos(flags: list[str], tmp_path: Path) -> None:
    for video, count in (("01_001", 4), ("01_002", 5)):
        folder = tmp_path / "campus/training/frames" / video
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:03}.jpg")
    campus = ("--data", tmp_path / "campus", "--category", "01")
    succeed(*campus, *flags, "--epochs", 1, "--every", 2)
    assert used(tmp_path / "part.pt") == [
        *("01_001/000.jpg", "01_001/002.jpg"),
        *("01_002/000.jpg", "01_002/002.jpg", "01_002/004.jpg"),
    ]
    held_out = load_checkpoint(tmp_path / "part.pt").held_out_images()
    assert all(path.is_file() for path in held_out)


def test_a_share_of_the_images(good: Path, flags: list[str], tmp_path: Path) -> None:
    few = ("--epochs", 1, "--train-share", 0.2)
    succeed("--good", good, *flags, *few)
    first = used(tmp_path / "part.pt")
    assert len(first) == 3
    succeed("--good", good, *flags, *few, "--seed", 1, "--overwrite")
    assert used(tmp_path / "part.pt") != first
    text = refuse("--good", good, *flags, "--epochs", 2, "--seed", 1, "--resume")
    assert "was trained with train_share 0.2, got 1.0" in text


def test_an_unknown_category_or_data_set_is_refused(
    data_root: Path, good: Path, flags: list[str], tmp_path: Path
) -> None:
    text = refuse("--data", data_root, "--category", "nut", *flags)
    assert "there is no category 'nut', expected one of weave" in text
    text = refuse("--data", good, "--category", "weave", *flags)
    assert "contains no known data set" in text
    assert not (tmp_path / "part.pt").exists()
