"""STPM: distances, loss and map against explicit loops, and the network's contract."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stpm.train.backbones import BACKBONES, pyramid
from stpm.train.methods import config_from_dict, interpolate_to
from stpm.train.methods.distances import matching_loss, squared_distance, unit_features
from stpm.train.methods.stpm.network import ModelConfig, Stpm, anomaly_map

CONFIG = ModelConfig(input_size=(64, 96))
SHAPES = ((2, 8, 4, 6), (2, 16, 2, 3), (2, 4, 1, 2))


def features(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def levels(seed: int) -> list[Tensor]:
    return [features(seed + i, shape) for i, shape in enumerate(SHAPES)]


def distances_by_hand(teacher: Tensor, student: Tensor) -> NDArray[np.float64]:
    """From the raw features of both, position by position, in double precision."""
    n, _, height, width = teacher.shape
    t, s = teacher.double().numpy(), student.double().numpy()
    out = np.zeros((n, 1, height, width))
    for i, y, x in np.ndindex(n, height, width):
        a, b = t[i, :, y, x], s[i, :, y, x]
        out[i, 0, y, x] = sum((a / np.sqrt(a @ a) - b / np.sqrt(b @ b)) ** 2)
    return out


def bilinear_by_hand(level: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Half-pixel centres, clamped at the borders; level is (h,w)."""

    def weights(n_in: int, n_out: int) -> NDArray[np.float64]:
        matrix = np.zeros((n_out, n_in))
        for i in range(n_out):
            position = min(max((i + 0.5) * n_in / n_out - 0.5, 0), n_in - 1)
            low = int(position)
            high = min(low + 1, n_in - 1)
            matrix[i, low] += 1 - (position - low)
            matrix[i, high] += position - low
        return matrix

    return weights(level.shape[0], size[0]) @ level @ weights(level.shape[1], size[1]).T


@pytest.fixture(scope="module")
def model() -> Stpm:
    """Random and different teacher and student."""
    torch.manual_seed(5)
    built = Stpm(CONFIG, pyramid(CONFIG.backbone, CONFIG.levels))
    return built.requires_grad_(False).eval()


def images(count: int, size: tuple[int, int] = CONFIG.input_size) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_squared_distance_equals_the_explicit_sum(scale: float) -> None:
    teacher, student = features(0, SHAPES[0]), features(1, SHAPES[0]) * scale
    distance = squared_distance(unit_features(teacher), student)
    assert distance.shape == (2, 1, 4, 6)
    np.testing.assert_allclose(distance, distances_by_hand(teacher, student), atol=1e-6)
    cosine = F.cosine_similarity(teacher, student, dim=1)[:, None]
    np.testing.assert_allclose(distance, 2 * (1 - cosine), atol=1e-6)


def test_squared_distance_spans_zero_to_four() -> None:
    unit = unit_features(features(0, SHAPES[0]))
    assert squared_distance(unit, 3 * unit).max() < 1e-12
    np.testing.assert_allclose(squared_distance(unit, -unit), 4, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_fp32(dtype: torch.dtype) -> None:
    teacher, student = features(0, SHAPES[0]).to(dtype), features(1, SHAPES[0]).to(dtype)
    distance = squared_distance(unit_features(teacher), student)
    assert distance.dtype == torch.float32
    np.testing.assert_allclose(
        distance, distances_by_hand(teacher.float(), student.float()), atol=1e-6
    )


@pytest.mark.parametrize(
    ("teacher_is_zero", "student_is_zero", "expected"),
    [(True, True, 0.0), (False, True, 1.0), (True, False, 1.0)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_features_give_a_finite_distance_and_gradient(
    teacher_is_zero: bool, student_is_zero: bool, expected: float, dtype: torch.dtype
) -> None:
    teacher = features(0, SHAPES[0]).to(dtype) * (not teacher_is_zero)
    student = (features(1, SHAPES[0]).to(dtype) * (not student_is_zero)).requires_grad_()
    distance = squared_distance(unit_features(teacher), student)
    np.testing.assert_allclose(distance.detach(), expected, atol=1e-6)
    distance.mean().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(student.grad).all()


def test_matching_loss_is_twice_the_papers() -> None:
    teachers, students = levels(0), levels(10)
    paper = 0.0
    for teacher, student in zip(teachers, students, strict=True):
        n, _, height, width = teacher.shape
        halves = 0.5 * distances_by_hand(teacher, student)
        paper += sum(halves[i].sum() / (height * width) for i in range(n)) / n
    loss = matching_loss([unit_features(t) for t in teachers], students)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(2 * paper, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matching_loss_has_the_gradient_that_autograd_finds(dtype: torch.dtype) -> None:
    targets = [unit_features(t).half() for t in levels(0)]
    gradients = []
    for loss_of in (
        matching_loss,
        lambda ts, ss: sum(squared_distance(t, s).mean() for t, s in zip(ts, ss, strict=True)),
    ):
        students = [level.to(dtype).requires_grad_() for level in levels(10)]
        (3 * loss_of(targets, students)).backward()
        gradients.append([s.grad.float().numpy() for s in students])
    rounding = torch.finfo(dtype).eps
    for ours, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(
            ours, expected, rtol=4 * rounding, atol=rounding * np.abs(expected).max()
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_matching_loss_of_a_student_that_is_near_its_teacher(dtype: torch.dtype) -> None:
    """Where the two terms of the gradient nearly cancel: in double precision, step by step."""
    raw = features(0, SHAPES[0])
    target = unit_features(raw).half()
    student = (3 * raw + 0.3 * features(1, SHAPES[0])).to(dtype).requires_grad_()
    loss = matching_loss([target], [student])
    loss.backward()  # type: ignore[no-untyped-call]
    exact = student.detach().double().requires_grad_()
    unit = exact / exact.square().sum(dim=1, keepdim=True).sqrt()
    expected = (target.double() - unit).square().sum(dim=1).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    assert 1e-3 < expected.item() < 2e-2
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert exact.grad is not None
    largest = float(exact.grad.abs().max())
    np.testing.assert_allclose(
        student.grad.double() / largest,  # type: ignore[union-attr]
        exact.grad / largest,
        atol=max(1e-5, torch.finfo(dtype).eps),
    )


def test_anomaly_map_is_the_product_of_the_upsampled_levels() -> None:
    size, distances = (16, 24), [level[:, :1].abs() for level in levels(0)]
    result = anomaly_map(distances, interpolate_to(size))
    assert result.shape == (2, *size)
    assert result.dtype == torch.float32
    for i in range(2):
        expected = np.ones(size)
        for level in distances:
            expected *= bilinear_by_hand(level[i, 0].double().numpy(), size)
        np.testing.assert_allclose(result[i], expected, rtol=1e-5, atol=1e-7)


def test_one_level_alone_is_the_upsampled_distance() -> None:
    distance = levels(0)[0][:, :1]
    single = anomaly_map([distance], interpolate_to((8, 12)))
    np.testing.assert_allclose(
        single[0], bilinear_by_hand(distance[0, 0].double().numpy(), (8, 12)), atol=1e-6
    )


def test_a_student_that_equals_the_teacher_scores_zero(model: Stpm) -> None:
    twin = Stpm(CONFIG, model.teacher).eval()
    twin.student.load_state_dict(model.teacher.state_dict())
    with torch.inference_mode():
        assert twin(images(2))[0].max() < 1e-18
        assert model(images(2))[0].min() > 1e-3


def test_forward_scores_uint8_images_with_channels_last(model: Stpm) -> None:
    batch = images(3)
    with torch.inference_mode():
        maps, scores = model(batch)
        mean, std = model.normalise.mean, model.normalise.std
        x = ((batch.double() - mean) / std).float().permute(0, 3, 1, 2)
        teachers, students = model.teacher(x), model.student(x)
    assert (maps.shape, maps.dtype) == ((3, *CONFIG.input_size), torch.float32)
    assert (scores.shape, scores.dtype) == ((3,), torch.float32)
    assert torch.equal(scores, maps.flatten(1).max(dim=1).values)
    expected = np.ones(CONFIG.input_size)
    for teacher, student in zip(teachers, students, strict=True):
        by_hand = distances_by_hand(teacher[:1], student[:1])[0, 0]
        expected *= bilinear_by_hand(by_hand, CONFIG.input_size)
    np.testing.assert_allclose(maps[0], expected, rtol=1e-4)


def test_images_of_a_batch_do_not_touch_each_other(model: Stpm) -> None:
    batch = images(3)
    with torch.inference_mode():
        together = model(batch)[0]
        apart = torch.cat([model(batch[i : i + 1])[0] for i in range(3)])
    np.testing.assert_allclose(together, apart, rtol=1e-5)


@pytest.mark.parametrize("value", [0, 255])
def test_constant_images_give_finite_scores(model: Stpm, value: int) -> None:
    with torch.inference_mode():
        maps, scores = model(torch.full((1, *CONFIG.input_size, 3), value, dtype=torch.uint8))
    assert torch.isfinite(maps).all()
    assert torch.isfinite(scores).all()


def test_normalise_follows_the_backbone(model: Stpm) -> None:
    grey = torch.tensor([124.0, 116.0, 104.0]).view(1, 1, 1, 3)
    expected = [
        (124 / 255 - 0.485) / 0.229,
        (116 / 255 - 0.456) / 0.224,
        (104 / 255 - 0.406) / 0.225,
    ]
    np.testing.assert_allclose(model.normalise(grey).flatten(), expected, atol=1e-6)
    lite = BACKBONES["efficientnet_lite0"]
    assert (lite.mean, lite.std) == ((127.0,) * 3, (128.0,) * 3)


def test_teacher_and_student_share_no_weights(model: Stpm) -> None:
    teacher, student = model.teacher.state_dict(), model.student.state_dict()
    assert teacher.keys() == student.keys()
    assert not any(teacher[key].data_ptr() == student[key].data_ptr() for key in teacher)
    assert not {"mean", "std"} & model.state_dict().keys()


@pytest.mark.parametrize(
    "config", [ModelConfig(), ModelConfig("resnet50", ("layer2", "layer1"), (480, 640))]
)
def test_config_survives_json(config: ModelConfig) -> None:
    restored = config_from_dict(json.loads(json.dumps(config.to_dict())))
    assert restored == config
    assert hash(restored) == hash(config)
