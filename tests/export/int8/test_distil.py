"""Fine-tuning the student as it runs in INT8."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from stpm.export.int8 import distil
from stpm.export.int8.quantize import QuantizedConv
from stpm.train.checkpoint import Checkpoint
from stpm.train.datasets import read_images
from stpm.train.methods import Network


@pytest.fixture(scope="module")
def pixels(checkpoint: Checkpoint) -> Tensor:
    _, images = read_images(checkpoint.train_images(), checkpoint.config.input_size)
    return torch.from_numpy(images)


def mean_map(model: Network, images: Tensor) -> float:
    with torch.no_grad():
        return float(model(images)[0].mean())


def test_the_student_comes_closer_to_the_teacher(
    networks: Callable[[str], Network], pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "LEARNING_RATE", 2e-3)  # twelve images make few steps
    quantized = networks("int8")
    model = copy.deepcopy(quantized)
    counts: list[int] = []
    distil.distil(model, pixels, 4, counts.append)
    assert sum(counts) == 4 * len(pixels)
    assert mean_map(model, pixels) < 0.99 * mean_map(quantized, pixels)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    before, after = quantized.state_dict(), model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    convs = {name for name, m in model.named_modules() if isinstance(m, QuantizedConv)}
    learnt = {name for name in convs if name.startswith("student.")} - {"student.conv1"}
    assert changed == {f"{name}.{kind}" for name in learnt for kind in ("weight", "bias")}


def test_it_does_the_same_each_time(networks: Callable[[str], Network], pixels: Tensor) -> None:
    first, second = (copy.deepcopy(networks("int8")) for _ in range(2))
    for model in (first, second):
        distil.distil(model, pixels, 1)
    for key, value in first.state_dict().items():
        np.testing.assert_array_equal(value, second.state_dict()[key])
