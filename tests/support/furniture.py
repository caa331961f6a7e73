"""A folder with what the commands of the pages take for granted, tiny."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from data_sets import write_shanghaitech, write_visa
from foreign_checkpoints import as_authors
from page_blocks import ROOT, blocks
from PIL import Image
from safetensors.torch import load_file

from stpm.train.checkpoint import load_checkpoint

TORCH_HOME = "torch_home"
"""Where torchvision finds the weights that it would download."""
RESULTS = ROOT / "benchmarks/results"
PLATE_SIZE = (160, 192)
"""(height, width) of a photograph that is cut into tiles."""
VISA_MASK = np.zeros((64, 64), np.uint8)
VISA_MASK[20:30, 30:50] = 1


@dataclass(frozen=True)
class Models:
    """What was trained and exported once, for images of 64x64, and the teacher's weights."""

    checkpoint: Path
    stad: Path
    bundle: Path
    stad_bundle: Path
    spade_bundle: Path
    teacher: Path


def furnish(folder: Path, data_root: Path, models: Models, others: Sequence[Path]) -> None:
    """Fill an empty folder.

    Args:
        data_root: in the layout of MVTec AD, with the category `weave`.
        others: roots of CIFAR-10 and MNIST.
    """
    weave = data_root / "weave"
    _put_photographs(folder, weave)
    _put_data_sets(folder, weave, *others)
    _put_masks(folder)
    _put_video(folder / "camera.avi", weave / "test/good")
    _put_models(folder, models)
    _put_weights(folder, models.teacher)
    _put_plans(folder)
    for name, source in (
        ("before.json", "peers_cpu_screw.json"),
        ("after.json", "peers_cpu_bottle.json"),
        ("peers.json", "peers_cpu_bottle.json"),
    ):
        shutil.copy(RESULTS / source, folder / name)


def copy_of(furnished: Path, folder: Path) -> None:
    """Furnish a folder with links to the same files: commands replace files, and change none."""
    shutil.copytree(furnished, folder, copy_function=os.link, dirs_exist_ok=True)


def _put_photographs(folder: Path, weave: Path) -> None:
    good, bad = weave / "train/good", weave / "test/hole"
    for name in ("photos/bottle", "photos/flask", "photos/left/bottle", "good", "archive", "kept"):
        shutil.copytree(good, folder / name)
    shutil.copytree(weave / "test/good", folder / "line")
    shutil.copytree(bad, folder / "known_defects")
    shutil.copy(min(bad.iterdir()), folder / "part.png")
    for name in ("inbox/top", "inbox/side"):
        (folder / name).mkdir(parents=True)
    plates = folder / "photos/plate"
    plates.mkdir()
    for number in range(4):
        random = np.random.default_rng(number)
        plate = random.integers(90, 140, (*PLATE_SIZE, 3), dtype=np.uint8)
        Image.fromarray(plate).save(plates / f"{number}.png")


def _put_data_sets(folder: Path, weave: Path, cifar10: Path, mnist: Path) -> None:
    for name in ("bottle", "screw", "metal_nut"):
        shutil.copytree(weave, folder / "mvtec" / name)
        shutil.copytree(weave, folder / "sets/left" / name)
    for name, source in (("cifar", cifar10), ("mnist", mnist)):
        shutil.copytree(source, folder / name)
    (folder / "visa").mkdir()
    write_visa(folder / "visa", VISA_MASK)
    write_shanghaitech(folder / "shanghaitech")


def _put_masks(folder: Path) -> None:
    parts = {"mask": (4, 60), "clamp": (0, 8), "thread": (0, 32), "label": (32, 64)}
    for name, (first, last) in parts.items():
        mask = np.zeros((64, 64), np.uint8)
        mask[:, first:last] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    polygons = {
        name: [[[first, 0], [last, 0], [last, 64], [first, 64]]]
        for name, (first, last) in parts.items()
        if name in ("thread", "label")
    }
    (folder / "rois.json").write_text(json.dumps(polygons))


def _put_video(path: Path, images: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for image in sorted(images.iterdir()):
        writer.write(cv2.imread(str(image)))
    writer.release()


def _put_models(folder: Path, models: Models) -> None:
    checkpoint = load_checkpoint(models.checkpoint)
    shutil.copy(models.checkpoint, folder / "bottle_augmented.pt")
    for name in ("bottle", "screw"):
        shutil.copy(models.checkpoint, folder / f"{name}.pt")
        torch.save({"state_dict": as_authors(checkpoint.student)}, folder / f"{name}.pth.tar")
    shutil.copy(folder / "bottle.pth.tar", folder / "best.pth.tar")
    shutil.copy(models.stad, folder / "bottle_stad.pt")
    bundles = {
        **dict.fromkeys(("bottle", "bottle_fp16", "bottle_bf16", "bottle_int8"), models.bundle),
        **dict.fromkeys(("bottle-october", "screw", "screw_bf16", "screw_int8"), models.bundle),
        **dict.fromkeys(("bottle_top", "bottle_side", "bottle_side_new"), models.bundle),
        **dict.fromkeys(("bottle_stad", "bottle_stad33"), models.stad_bundle),
        **dict.fromkeys(("bottle_spade", "bottle_new"), models.spade_bundle),
    }
    for name, source in bundles.items():
        copy_of(source, folder / f"{name}.stpm")


def _put_weights(folder: Path, teacher: Path) -> None:
    shutil.copy(teacher, folder / "resnet18.safetensors")
    shutil.copy(teacher, folder / "resnet18_layer3.safetensors")
    torch.save(load_file(teacher), folder / "cifar10_resnet18.pth")
    cache = folder / TORCH_HOME / "hub/checkpoints"
    cache.mkdir(parents=True)
    url = torchvision.models.get_model_weights("resnet18").IMAGENET1K_V1.url
    shutil.copy(folder / "cifar10_resnet18.pth", cache / url.rpartition("/")[2])


def _put_plans(folder: Path) -> None:
    """Write the files that pages show: with what is here for what is not, and for one epoch."""
    line, fleet = (toml_of(ROOT / "docs" / page) for page in ("live.md", "scale.md"))
    changes = {
        'source = "genicam:Basler-21234567"': 'source = "camera.avi"',
        'exposure-us = 800.0\ntrigger = "hardware"\n': "",
        "mqtt://broker/line1": "csv:line1.csv",
        "127.0.0.1:8080": "127.0.0.1:0",
    }
    (folder / "line.toml").write_text(_changed(line, changes))
    changes = {
        "seeds = [0, 1, 2]": "seeds = [0]",
        'cameras = ["left", "top"]': 'cameras = ["left"]',
        "epochs = 100": "epochs = 1\ninput-size = 64",
        'batch = "1..8"': 'batch = "1..8"\nengine = "onnxruntime"',
        "gpus = 0.25": "gpus = 0",
    }
    (folder / "fleet.toml").write_text(_changed(fleet, changes))


def toml_of(page: Path) -> str:
    """Return the first file in TOML that a page shows."""
    return next(block.text for block in blocks(page) if block.language == "toml")


def _changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"{old!r} stands there no more"
        text = text.replace(old, new)
    return text
