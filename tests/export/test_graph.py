"""The deployment graph computes what the model computes, and leaves the model alone."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from stpm.export.graph import DTYPES, DeploymentGraph, fold_batch_norm, round_weights
from stpm.runtime.bundle.parity import TOLERANCES, Parity, compare
from stpm.runtime.images.preprocess import resize
from stpm.train.backbones import BACKBONES, LEVELS, pyramid, state_hash
from stpm.train.methods.stpm.network import ModelConfig, Stpm

Size = tuple[int, int]
SIZE = (64, 64)
LEVELS_123 = ("layer1", "layer2", "layer3")


def vary_batch_norms(network: nn.Module) -> None:
    """Give every batch norm statistics and weights that a wrong folding would show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)


@functools.cache
def build(
    backbone: str = "resnet18",
    levels: tuple[str, ...] = LEVELS_123,
    size: Size = SIZE,
    vary: bool = True,
) -> Stpm:
    """Returns a network with random weights, the same object for the same arguments."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        model = Stpm(ModelConfig(backbone, levels, size), pyramid(backbone, levels))
        if vary:
            vary_batch_norms(model)
    return model.requires_grad_(False).eval()


def frames(size: Size, count: int = 2) -> NDArray[np.uint8]:
    """Smooth shapes with some noise, of any size, RGB."""
    rng = np.random.default_rng(size)
    coarse = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    smooth = [Image.fromarray(c).resize(size[::-1], Image.Resampling.BICUBIC) for c in coarse]
    return (np.stack(smooth) + rng.normal(0, 5, (count, *size, 3))).clip(0, 255).astype(np.uint8)


def difference(model: Stpm, graph: DeploymentGraph, images: NDArray[np.uint8]) -> Parity:
    """Compare the graph's outputs with the model's on images resized by the host."""
    resized = np.stack([resize(image, model.config.input_size) for image in images])
    expected = model(torch.from_numpy(resized))
    outputs = graph(torch.from_numpy(images))
    assert [output.dtype for output in outputs] == [torch.float32, torch.float32]
    return compare(*(t.numpy() for t in (*expected, *outputs)))


@pytest.mark.parametrize(
    ("backbone", "levels", "size", "vary"),
    [
        ("resnet18", LEVELS_123, SIZE, False),
        ("resnet18", LEVELS_123, SIZE, True),
        ("resnet18", LEVELS_123, (48, 80), True),
        ("resnet18", ("layer3", "layer1"), (70, 33), True),
        ("resnet18", LEVELS, SIZE, True),
        ("squeezenet1_1", LEVELS_123, SIZE, True),
        ("squeezenet1_1", LEVELS_123, (51, 70), True),
        ("densenet121", ("layer1", "layer2"), SIZE, True),
    ],
)
def test_fp32_graph_equals_the_model(
    backbone: str, levels: tuple[str, ...], size: Size, vary: bool
) -> None:
    model = build(backbone, levels, size, vary)
    parity = difference(model, DeploymentGraph(model), frames(size))
    assert parity.holds(1e-5), parity


def test_squeezenet_has_levels_of_odd_sizes() -> None:
    graph = DeploymentGraph(build("squeezenet1_1"))
    assert [m.shape[1] for n, m in graph.upsample.named_buffers() if "rows" in n] == [15, 7, 3]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_folding_keeps_every_backbones_features(backbone: str) -> None:
    if backbone == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        network = pyramid(backbone, LEVELS_123).eval()
        vary_batch_norms(network)
        x = torch.randn(2, 3, *SIZE)
        expected = network(x)
        norms = count_batch_norms(network)
        fold_batch_norm(network)
        for level, features in zip(expected, network(x), strict=True):
            torch.testing.assert_close(
                features, level, rtol=0, atol=1e-5 * float(level.abs().max())
            )
    left = count_batch_norms(network)
    if backbone == "densenet121":  # most of its batch norms stand before the convolution
        assert 0 < left < norms
    else:
        assert left == 0


def count_batch_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_folding_leaves_a_convolution_whose_output_others_use() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.bn(y) + y

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        network = Shared().eval()
        vary_batch_norms(network)
        x = torch.randn(1, 3, 4, 4)
        expected = network(x)
        fold_batch_norm(network)
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("precision", DTYPES)
def test_building_a_graph_leaves_the_model_alone(precision: str) -> None:
    model = copy.deepcopy(build()).train().requires_grad_(True)
    before = copy.deepcopy(model)
    DeploymentGraph(model, precision)
    assert state_hash(model.state_dict()) == state_hash(before.state_dict())
    assert count_batch_norms(model) == count_batch_norms(before) > 0
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.training
    assert model.student.training
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("precision", DTYPES)
def test_only_teacher_and_student_are_in_the_precision(precision: str) -> None:
    model = build()
    graph = DeploymentGraph(model, precision, (96, 80))
    for name, tensor in [*graph.named_parameters(), *graph.named_buffers()]:
        inside = name.startswith(("model.teacher.", "model.student."))
        if tensor.is_floating_point():  # and no index
            assert tensor.dtype == (DTYPES[precision] if inside else torch.float32), name
    parity = difference(model, graph, frames((96, 80)))
    assert parity.holds(TOLERANCES[precision]), parity


@pytest.mark.parametrize("camera_size", [(96, 80), (100, 300), (40, 50), (64, 100), (64, 64)])
def test_camera_graph_equals_resizing_on_the_host(camera_size: Size) -> None:
    model = build()
    graph = DeploymentGraph(model, camera_size=camera_size)
    assert (graph.input_size, graph.map_size) == (camera_size, SIZE)
    parity = difference(model, graph, frames(camera_size))
    assert parity.holds(1e-5), parity


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("grey", [0, 255])
def test_constant_frames_give_finite_scores(grey: int, precision: str) -> None:
    images = torch.full((1, *SIZE, 3), grey, dtype=torch.uint8)
    maps, scores = DeploymentGraph(build(), precision)(images)
    assert torch.isfinite(maps).all()
    assert torch.equal(scores, maps.amax(dim=(1, 2)))


@pytest.mark.parametrize("precision", DTYPES)
def test_features_of_zero_give_a_score_of_zero(precision: str) -> None:
    model = copy.deepcopy(build())
    for parameter in model.parameters():
        parameter.zero_()
    maps, scores = DeploymentGraph(model, precision)(torch.from_numpy(frames(SIZE)))
    assert not maps.any()
    assert not scores.any()


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 11), (torch.bfloat16, 8)])
def test_rounded_filters_keep_their_sums(dtype: torch.dtype, digits: int) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(16, 8, 3, bias=False))
    exact = network[0].weight.detach().double().clone()
    round_weights(network, dtype)
    rounded = network[0].weight.detach()
    assert torch.equal(rounded, rounded.to(dtype).float())
    # A weight may move by its own rounding and by what the one before it lost.
    largest = exact.abs().max() * 2.0**-digits
    assert (rounded - exact).abs().max() <= 2 * largest
    sums = (rounded - exact).flatten(1).sum(1).abs()
    assert sums.max() <= largest
    plain = (exact.to(dtype) - exact).flatten(1).sum(1).abs()
    assert sums.mean() < plain.mean() / 3


def test_fp32_weights_are_left_alone() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    before = network[0].weight.detach().clone()
    round_weights(network, torch.float32)
    assert torch.equal(network[0].weight, before)
