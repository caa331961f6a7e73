"""A tiny real run that the tests share: textured images, a random teacher, a student, a bundle."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stpm.runtime.backends.gpu import gpu_count

# Before torch is imported: on tiny images a second thread only gets in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if not gpu_count():
    # Before Triton is imported, by whom ever: its kernels are tested in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import pytest
import torch
from browsers import CHROMIUM, FLAGS
from PIL import Image
from safetensors.torch import save_file

from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.train.backbones import LEVELS, pyramid
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import list_images
from stpm.train.methods import configure, recipe_of
from stpm.train.methods.stpm.network import ModelConfig
from stpm.train.options import FitOptions
from stpm.train.pipeline import open_run, read_source, train

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZE = (64, 64)
"""(height, width) of the network's input in the tests."""
STAD_SIZE = (12, 12)
"""Every layer of STAD runs for every pixel."""
STAD_SHARE = 0.4
CONFIG = ModelConfig(input_size=SIZE)
OPTIONS = FitOptions(epochs=2, batch_size=4, learning_rate=0.1, device="cpu", precision="fp32")


def texture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A grey texture with noise, uint8 (H,W)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    wave = 110 + 40 * np.sin(rows / 3.0) + 30 * np.cos(columns / 5.0)
    noise = np.random.default_rng(seed).normal(0, 8, size)
    return (wave + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the layout of MVTec AD with the category `weave`."""
    root = tmp_path_factory.mktemp("data")
    category = root / "weave"
    folders = ("train/good", "test/good", "test/hole", "ground_truth/hole")
    train_good, test_good, hole, truth = (category / name for name in folders)
    for folder in (train_good, test_good, hole, truth):
        folder.mkdir(parents=True)
    for i in range(15):
        Image.fromarray(texture(i)).save(train_good / f"{i:03}.png")
    for i in range(4):
        Image.fromarray(texture(100 + i)).save(test_good / f"{i:03}.png")
        image, mask = texture(200 + i), np.zeros(SIZE, np.uint8)
        image[20:36, 10 + 8 * i : 26 + 8 * i] = 250
        mask[20:36, 10 + 8 * i : 26 + 8 * i] = 255
        Image.fromarray(image).save(hole / f"{i:03}.png")
        Image.fromarray(mask).save(truth / f"{i:03}_mask.png")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for tests that are marked with `in_browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def python2_batch(labels: Sequence[int], images: np.ndarray) -> bytes:
    """A batch of CIFAR-10 as Python 2 pickled it: text where Python 3 has bytes.

    Args:
        labels: in [0, 9].
        images: uint8 (N,32,32,3).
    """
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    raw = rows.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01" + number(len(rows)) + number(3072) + b"\x86" + dtype + b"\x89"
    array += b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    content = text(b"batch_label") + text(b"one of five") + text(b"filenames") + b"]"
    content += text(b"labels") + b"](" + b"".join(b"K" + bytes([x]) for x in labels) + b"e"
    return b"\x80\x02}(" + content + text(b"data") + array + b"u."


def cifar10_images(count: int, seed: int) -> np.ndarray:
    """Coloured stripes whose direction and width tell the class `i % 10`, uint8 (N,32,32,3)."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    images = np.empty((count, 32, 32, 3), np.uint8)
    for i in range(count):
        phase = (rows if i % 2 else columns) / (1 + i % 10)
        wave = 120 + 60 * np.sin(phase)[..., None] * np.array([1.0, 0.5, -1.0])
        images[i] = (wave + random.normal(0, 8, (32, 32, 3))).clip(0, 255)
    return images


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 as torchvision extracts it, of 20 images a batch, two a class. Do not change it."""
    root = tmp_path_factory.mktemp("cifar10")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    labels = [i % 10 for i in range(20)]
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        (folder / name).write_bytes(python2_batch(labels, cifar10_images(20, seed)))
    return root


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of bytes as MNIST's files hold it (yann.lecun.com/exdb/mnist)."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST as published, of 40 and 20 images of stripes, every digit alike. Do not change it."""
    root = tmp_path_factory.mktemp("mnist")
    for part, count in (("train", 40), ("t10k", 20)):
        images = cifar10_images(count, count)[:, :28, :28, 0]
        labels = np.arange(count, dtype=np.uint8) % 10
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return root


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ResNet-18 weights up to layer3 in torchvision's key names."""
    return _random_weights(tmp_path_factory.mktemp("teacher"), CONFIG.levels)


@pytest.fixture(scope="session")
def whole_teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with layer4."""
    return _random_weights(tmp_path_factory.mktemp("whole_teacher"), LEVELS)


def _random_weights(folder: Path, levels: Sequence[str]) -> Path:
    path = folder / "teacher.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(7)
        save_file(pyramid("resnet18", levels).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def checkpoint_path(
    tmp_path_factory: pytest.TempPathFactory, data_root: Path, teacher_file: Path
) -> Path:
    """A student of two epochs."""
    out = tmp_path_factory.mktemp("checkpoint") / "weave.pt"
    source = read_source(data_root / "weave/train/good", CONFIG, OPTIONS)
    fit, blank = open_run(source, CONFIG, OPTIONS, teacher_weights=teacher_file)
    fit.cache_teacher(lambda _: None)
    for _ in train(fit, blank, out, lambda _: None):
        pass
    return out


SIZES = {"spade": SIZE, "rd": (64, 64), "stad": STAD_SIZE}


def _trained(method: str, settings: dict[str, str], good: Path, teacher: Path, out: Path) -> Path:
    config = configure(method, SIZES[method], settings)
    share = STAD_SHARE if method == "stad" else 1.0
    options = replace(
        recipe_of(method, "paper"), epochs=1, train_share=share, device="cpu", precision="fp32"
    )
    source = read_source(good, config, options)
    fit, blank = open_run(
        source, config, options, teacher_weights=teacher, teacher_folder=out.parent / "teachers"
    )
    fit.prepare(lambda _: None)
    for _ in train(fit, blank, out, lambda _: None):
        pass
    return out


@pytest.fixture(scope="session")
def stad_path(
    tmp_path_factory: pytest.TempPathFactory, data_root: Path, teacher_file: Path
) -> Path:
    """Two students of one epoch beside a teacher of two steps, p = 17."""
    settings = {"patch-sizes": "17", "students": "2", "teacher-steps": "2", "teacher-batch": "4"}
    out = tmp_path_factory.mktemp("stad") / "weave.pt"
    return _trained("stad", settings, data_root / "weave/train/good", teacher_file, out)


@pytest.fixture(scope="session")
def rd_path(tmp_path_factory: pytest.TempPathFactory, data_root: Path, teacher_file: Path) -> Path:
    """A bottleneck and decoder of one epoch."""
    out = tmp_path_factory.mktemp("rd") / "weave.pt"
    return _trained("rd", {}, data_root / "weave/train/good", teacher_file, out)


@pytest.fixture(scope="session")
def spade_path(
    tmp_path_factory: pytest.TempPathFactory, data_root: Path, whole_teacher_file: Path
) -> Path:
    """A gallery of 12 images, of which an image has 5 neighbours."""
    out = tmp_path_factory.mktemp("spade") / "weave.pt"
    good = data_root / "weave/train/good"
    return _trained("spade", {"neighbours": "5"}, good, whole_teacher_file, out)


@pytest.fixture(scope="session")
def bundle_path(
    tmp_path_factory: pytest.TempPathFactory, checkpoint_path: Path, data_root: Path
) -> Path:
    """That student exported in FP32 for batches of 1 to 4. Copy it before changing it."""
    out = tmp_path_factory.mktemp("bundle") / "weave.stpm"
    checkpoint = load_checkpoint(checkpoint_path)
    export_bundle(
        checkpoint,
        out,
        ExportOptions(batch=(1, 4)),
        verify=list_images(data_root / "weave/test/good"),
        calibration=checkpoint.held_out_images(),
        report=lambda _: None,
    )
    return out
