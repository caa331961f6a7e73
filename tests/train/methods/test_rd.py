"""Reverse distillation: maps, loss and layers against torch's and scipy's own functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.runtime.errors import CheckpointError
from stpm.train.backbones import pyramid
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods import configure, open_method
from stpm.train.methods.rd.network import LEVELS, Rd, RdConfig, UpBlock
from stpm.train.methods.rd.trainer import RdTrainer
from stpm.train.options import FitOptions

CONFIG = RdConfig(input_size=(64, 96))
OPTIONS = FitOptions(
    epochs=2, batch_size=4, learning_rate=0.005, weight_decay=0, device="cpu", precision="fp32"
)


def noise(count: int) -> Tensor:
    draw = np.random.default_rng(5)
    return torch.from_numpy(draw.integers(0, 256, (count, *CONFIG.input_size, 3), np.uint8))


def cosine(a: Tensor, b: Tensor) -> float:
    x, y = (features.double().numpy().ravel() for features in (a, b))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


@pytest.fixture(scope="module")
def model() -> Rd:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Rd(CONFIG, pyramid("resnet18", LEVELS)).eval()


@torch.no_grad()
def test_map_is_the_smoothed_sum_of_one_minus_cosine(model: Rd) -> None:
    images = noise(2)
    maps, scores = model(images)
    levels = model.teacher(model.normalise(images))
    total = torch.zeros(2, 1, *CONFIG.input_size)
    for teacher, student in zip(levels, model.student(levels), strict=True):
        distance = 1 - F.cosine_similarity(teacher.double(), student.double())
        total += F.interpolate(distance[:, None], CONFIG.input_size, mode="bilinear")
    expected = np.stack([gaussian_filter(m[0].numpy(), sigma=4) for m in total])
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4)
    highest = np.sort(expected.reshape(2, -1), axis=1)[:, -ceil(0.01 * expected[0].size) :]
    np.testing.assert_allclose(scores.numpy(), highest.mean(axis=1), rtol=1e-4)


@torch.no_grad()
def test_doubling_is_a_transposed_convolution() -> None:
    """In evaluation, with the same batch norm for all four corners."""
    block = UpBlock(6, 5).eval()
    conv, _, _ = block.first
    assert isinstance(conv, nn.Conv2d)
    transposed = nn.ConvTranspose2d(6, 5, 2, stride=2, bias=False)
    transposed.weight.copy_(conv.weight.view(5, 2, 2, 6).permute(3, 0, 1, 2))
    x = torch.randn(2, 6, 3, 4)
    expected = transposed(x) / (1 + 1e-5) ** 0.5  # fresh statistics: mean 0, variance 1
    torch.testing.assert_close(block.first(x), expected)


def test_student_restores_the_teachers_shapes(model: Rd) -> None:
    levels = model.teacher(model.normalise(noise(1)))
    assert [level.shape for level in model.student(levels)] == [level.shape for level in levels]


def test_loss_is_the_sum_over_levels_of_one_minus_the_cosine_of_whole_levels(model: Rd) -> None:
    images = noise(5).numpy()
    trainer = RdTrainer(model, images[:4], images[4:], OPTIONS)
    trainer.prepare(lambda _: None)
    index = torch.arange(4)
    targets = trainer.train.targets(index)
    levels = [target.float() for target in targets]
    model.student.eval()  # one statistic for both
    with torch.no_grad():
        expected = sum(
            1 - float(np.mean([cosine(*pair) for pair in zip(teacher, student, strict=True)]))
            for teacher, student in zip(levels, model.student(levels), strict=True)
        )
        loss = float(trainer.loss(trainer.train.pixels(index), targets))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_easy_positions_pass_no_gradient(model: Rd) -> None:
    images = noise(5).numpy()
    trainer = RdTrainer(model, images[:4], images[4:], replace(OPTIONS, hard_positions=True))
    trainer.prepare(lambda _: None)
    index = torch.arange(4)
    targets = trainer.train.targets(index)
    found: list[Tensor] = []

    def watched(levels: Sequence[Tensor]) -> list[Tensor]:
        found[:] = [features.detach().requires_grad_() for features in model.student(levels)]
        return found

    trainer.student_features = watched  # type: ignore[method-assign]
    model.student.eval()
    for epoch, limit in ((0, -3.0), (0.3, -0.5), (1, 2.0)):  # of 2: at first, half way, at last
        trainer.epoch = 0
        trainer.cool_down(epoch)
        loss = trainer.loss(trainer.train.pixels(index), targets)
        loss.backward()
        for teacher, student in zip(targets, found, strict=True):
            distance = 1 - F.cosine_similarity(teacher.float(), student.detach())
            is_hard = distance >= distance.mean() + limit * distance.std()
            assert student.grad is not None
            assert torch.equal(student.grad.abs().sum(dim=1) > 0, is_hard)
    trainer.options = OPTIONS
    with torch.no_grad():
        assert trainer.loss(trainer.train.pixels(index), targets) == loss


def test_training_restores_better_and_leaves_the_teacher() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Rd(CONFIG, pyramid("resnet18", LEVELS)).eval().requires_grad_(False)
        model.student.requires_grad_(True)
    before = {key: value.clone() for key, value in model.teacher.state_dict().items()}
    images = noise(9).numpy()
    trainer = RdTrainer(model, images[:8], images[8:], OPTIONS)
    trainer.prepare(lambda _: None)
    records = [trainer.run_epoch() for _ in range(2)]
    assert records[1].loss < records[0].loss
    assert all(torch.equal(value, before[key]) for key, value in model.teacher.state_dict().items())


def test_checkpoint_gives_the_network_back(rd_path: Path) -> None:
    checkpoint = load_checkpoint(rd_path)
    assert checkpoint.config == RdConfig(input_size=(64, 64))
    model = checkpoint.model()
    assert isinstance(model, Rd)
    saved = checkpoint.student["restore1.0.first.0.weight"]
    assert torch.equal(model.student.state_dict()["restore1.0.first.0.weight"], saved)


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        ((100, 128), {}, "got an input size of 100x128, expected multiples of 32, at least 64"),
        ((32, 64), {}, "got an input size of 32x64"),
        ((64, 64), {"backbone": "resnet50"}, "got backbone resnet50, expected resnet18 or"),
        ((64, 64), {"backbone": "vgg"}, "got backbone 'vgg', expected one of"),
    ],
)
def test_what_cannot_be_built_is_refused(
    size: tuple[int, int], settings: dict[str, str], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        configure("rd", size, settings)


def test_weights_of_another_method_are_refused(rd_path: Path) -> None:
    checkpoint = load_checkpoint(rd_path)
    method = open_method("rd")
    with pytest.raises(CheckpointError, match="the checkpoint's student: lacks"):
        method.network(checkpoint.config, checkpoint.teacher, {})
