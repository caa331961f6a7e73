"""Bundles to time: those of --bundle, or an untrained ResNet-18, which takes as long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.train.backbones import pyramid
from stpm.train.checkpoint import Checkpoint
from stpm.train.datasets import list_images
from stpm.train.methods.stpm.network import ModelConfig


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=Path, help="to time, instead of an untrained network")


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given: Path | None = request.config.getoption("--bundle")
    return given or untrained_bundle(tmp_path_factory.mktemp("bundle"))


def untrained_bundle(folder: Path) -> Path:
    config = ModelConfig()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher, student = (pyramid(config.backbone, config.levels).state_dict() for _ in range(2))
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = rng.integers(256, size=(*config.input_size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    images = list_images(folder)
    out = folder / "untrained.stpm"
    export_bundle(
        Checkpoint(config, dict(student), dict(teacher), {"source": "random"}, {}),
        out,
        ExportOptions(batch=(1, 8), engines=None),
        verify=images,
        calibration=images,
        report=lambda _: None,
    )
    return out
