"""Tiny data sets in the layouts of VisA and ShanghaiTech Campus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FRAME_SIZE = (10, 16)
"""(height, width) of a video's frames."""
TEST_VIDEOS = {"01_0014": 4, "01_0015": 3, "02_0128": 2}


def write_visa(root: Path, labels: np.ndarray) -> None:
    """Write two objects; of `candle` three images to train on, two good and two defective to test.

    The second mask has a palette whose colours say nothing about the labels.

    Args:
        labels: uint8 (H,W), the mask of both; images have its size.
    """
    lines = ["object,split,label,image,mask"]

    def add(name: str, split: str, label: str, number: int, mask: np.ndarray | None) -> None:
        folder = f"{name}/Data/Images/{label.capitalize()}"
        image = root / folder / f"{number:03}.JPG"
        image.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        Image.fromarray(random.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)).save(image)
        truth = ""
        if mask is not None:
            truth = f"{name}/Data/Masks/Anomaly/{number:03}.png"
            (root / truth).parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(mask)
            if number % 2:
                picture.putpalette([0, 0, 255, 0, 255, 0] * 128)
            picture.save(root / truth)
        lines.append(f"{name},{split},{label},{folder}/{image.name},{truth}")

    for number in (3, 1, 2):
        add("candle", "train", "normal", number, None)
    for number in (4, 5):
        add("candle", "test", "normal", number, None)
    for number in (0, 1):
        add("candle", "test", "anomaly", number, labels)
    add("pcb1", "train", "normal", 0, None)
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(lines) + "\n")


def write_frames(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.full((*FRAME_SIZE, 3), 90, np.uint8)).save(folder / f"{name}.jpg")


def write_shanghaitech(root: Path) -> None:
    """Write two scenes: three training videos, and three test videos with anomalous odd frames."""
    for name, count in (("01_001", 3), ("01_002", 2), ("02_001", 2)):
        write_frames(root / "training/frames" / name, [f"{i:03}" for i in range(count)])
    testing = root / "testing"
    for folder in ("test_frame_mask", "test_pixel_mask"):
        (testing / folder).mkdir(parents=True)
    for seed, (name, count) in enumerate(TEST_VIDEOS.items()):
        write_frames(testing / "frames" / name, [f"{i:03}" for i in range(count)])
        labels = (np.arange(count) % 2).astype(np.int8)
        masks = np.random.default_rng(seed).integers(0, 2, (count, *FRAME_SIZE), dtype=np.uint8)
        np.save(testing / f"test_frame_mask/{name}.npy", labels)
        np.save(testing / f"test_pixel_mask/{name}.npy", masks)
