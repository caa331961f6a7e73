"""Writes a bundle of random weights, a picture, and what this checkout makes of it.

python tests/packages/make_bundle.py DIR
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.runtime import Detector
from stpm.train.backbones import pyramid, state_hash
from stpm.train.checkpoint import Checkpoint
from stpm.train.methods.stpm.network import ModelConfig

SIZE = (64, 64)
PICTURE_SIZE = (80, 96)


def checkpoint() -> Checkpoint:
    """A teacher and a student that learnt nothing."""
    config = ModelConfig(input_size=SIZE)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(pyramid(config.backbone, config.levels).state_dict())
    teacher_id = {"source": "random", "sha256": state_hash(states[0])}
    return Checkpoint(config, states[1], states[0], teacher_id)


def main() -> None:
    """Write part.stpm, part.png, part.ppm and expected.json into an empty folder."""
    folder = Path(sys.argv[1])
    random = np.random.default_rng(3)
    paths = []
    for name in ("part", *range(9)):
        pixels = random.integers(80, 160, (*PICTURE_SIZE, 3), np.uint8)
        paths.append(folder / f"{name}.png")
        Image.fromarray(pixels).save(paths[-1])
    Image.open(paths[0]).save(folder / "part.ppm")
    bundle = folder / "part.stpm"
    export_bundle(
        checkpoint(),
        bundle,
        ExportOptions(batch=(1, 4)),
        verify=paths[1:],
        calibration=paths[1:],
        report=lambda _: None,
    )
    result = Detector(bundle)(paths[0])
    expected = {"score": result.score, "is_anomalous": result.is_anomalous}
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


if __name__ == "__main__":
    main()
