"""Quantised networks: what rounding does, what the correction keeps, and the gate before them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.export import pipeline
from stpm.export.int8 import gate
from stpm.export.int8 import images as quantization_images
from stpm.export.int8.gate import LARGEST_LOSS, Gate, GateError
from stpm.export.int8.images import TrainingImages
from stpm.export.int8.quantize import Grid, QuantizedConv, TwoTermConv, quantize
from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.export.weights import fold_batch_norm
from stpm.runtime import Bundle, ExportError, ParityError
from stpm.runtime.backends import Outputs
from stpm.train.backbones import pyramid
from stpm.train.checkpoint import Checkpoint, load_checkpoint
from stpm.train.datasets import list_images, open_category, read_images
from stpm.train.evaluate import Scorer, torch_scorer
from stpm.train.methods import Network
from stpm.train.methods.stpm.network import ModelConfig, Stpm

Networks = Callable[[str], Network]


def channel_means(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    means: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, __, output, name=name: means.update({name: output.mean((0, 2, 3))})
            )
    network(x)
    return means


@pytest.fixture(scope="module")
def pixels(checkpoint: Checkpoint) -> Tensor:
    _, images = read_images(checkpoint.train_images(), checkpoint.config.input_size)
    return torch.from_numpy(images)


@pytest.mark.parametrize(
    ("scale", "zero_point", "limits"),
    [(0.5, 0, (0, 255)), (0.03, 117, (0, 255)), ([0.1, 0.25, 2.0], [0, 0, 0], (-127, 127))],
)
def test_a_grid_rounds_as_numpy_does(
    scale: float | list[float], zero_point: int | list[int], limits: tuple[int, int]
) -> None:
    values = np.random.default_rng(0).normal(0, 60, (3, 5, 2, 2)).astype(np.float32)
    grid = Grid(torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32), limits)
    steps, zero = (np.float32(x).reshape(-1, 1, 1, 1) for x in (scale, zero_point))
    expected = (np.clip(np.rint(values / steps) + zero, *limits) - zero) * steps
    np.testing.assert_allclose(grid.round(torch.from_numpy(values)), expected, rtol=1e-6)


def test_every_channel_keeps_its_mean(
    checkpoint: Checkpoint, networks: Networks, pixels: Tensor
) -> None:
    model = checkpoint.model()
    x, levels = (m.normalise(pixels) for m in (model, networks("int8")))
    for name in model.networks:
        folded = copy.deepcopy(model.get_submodule(name))
        fold_batch_norm(folded)
        expected = channel_means(folded, x)
        found = channel_means(copy.deepcopy(networks("int8").get_submodule(name)), levels)
        assert expected.keys() == found.keys()
        for layer, means in expected.items():
            # A last digit that differs may be rounded to another step.
            np.testing.assert_allclose(found[layer], means, atol=3e-3 * float(means.abs().max()))


def test_convolutions_of_one_input_share_its_grid(networks: Networks) -> None:
    student = networks("int8").student
    first, skip = (student.get_submodule(f"layer2.0.{n}") for n in ("conv1", "downsample.0"))
    assert isinstance(first, QuantizedConv)
    assert isinstance(skip, QuantizedConv)
    assert first.input_scale == skip.input_scale
    assert first.input_zero_point == skip.input_zero_point == 0


def test_the_range_is_that_of_the_inputs(networks: Networks, pixels: Tensor) -> None:
    model = copy.deepcopy(networks("int8"))
    conv = model.teacher.get_submodule("layer1.0.conv2")
    assert isinstance(conv, QuantizedConv)
    seen: list[Tensor] = []
    conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.teacher(model.normalise(pixels))
    assert conv.input_zero_point == 0
    # Before the convolutions in front of it were rounded, it was another by little.
    assert float(conv.input_scale) * 255 == pytest.approx(float(seen[0].max()), rel=0.05)


def test_the_image_is_convolved_without_loss(networks: Networks) -> None:
    model = copy.deepcopy(networks("int8"))
    stem = model.teacher.conv1
    images = torch.randint(0, 256, (2, *model.input_size, 3), dtype=torch.uint8)
    (inputs,) = stem.input_terms(model.normalise(images))
    np.testing.assert_array_equal(inputs[:, :, 3:-3, 3:-3], images.permute(0, 3, 1, 2))
    np.testing.assert_array_equal(inputs[:, :, 0, 0], [[124, 116, 104]] * 2)


def test_two_terms_have_twice_the_digits(networks: Networks) -> None:
    conv = networks("int8").student.get_submodule("layer1.0.conv1")
    assert isinstance(conv, TwoTermConv)
    step = float(conv.input_scale)
    inputs = torch.rand(1, conv.in_channels, 9, 9) * 254 * step
    first, second = conv.input_terms(inputs)
    assert (first - inputs).abs().max() > 0.4 * step
    assert (first + second - inputs).abs().max() < 0.51 * step / 255


def test_weights_make_up_for_each_others_rounding(networks: Networks, pixels: Tensor) -> None:
    torch.manual_seed(0)
    model = copy.deepcopy(networks("fp32"))
    with torch.no_grad():
        model.student.conv1.weight.normal_(0, 1)
    quantized = quantize(model, pixels).student.conv1
    assert isinstance(quantized, QuantizedConv)
    fold_batch_norm(model.student)
    conv = model.student.conv1
    x = model.normalise(pixels)
    std = model.normalise.std.view(3, 1, 1)

    def error(weight: Tensor) -> float:
        changed = nn.functional.conv2d(x, weight * std - conv.weight, stride=2, padding=3)
        return float(changed.var(dim=(0, 2, 3)).mean())

    plain = Grid(quantized.weight_scales, quantized.weight_zero_points, (-127, 127))
    assert error(quantized.weight) < 0.5 * error(plain.round(conv.weight / std))
    np.testing.assert_allclose(quantized.weight, plain.round(quantized.weight), rtol=1e-5)


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "densenet121", "efficientnet_lite0"])
def test_other_backbones_keep_their_features(backbone: str, pixels: Tensor) -> None:
    if backbone == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    levels = ("layer1", "layer2")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        model = Stpm(ModelConfig(backbone, levels, (64, 64)), pyramid(backbone, levels)).eval()
        quantized = quantize(model, pixels)
        expected, found = (m.student(m.normalise(pixels)) for m in (model, quantized))
    for level, features in zip(expected, found, strict=True):
        cosine = nn.functional.cosine_similarity(level, features)
        assert float(cosine.mean()) > 0.99


def test_fewer_images_where_they_are_large(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = checkpoint.train_images()[:6]
    _, expected = read_images(paths, (16, 16))

    def check(size: tuple[int, int], *choices: NDArray[np.uint8]) -> None:
        found = list(TrainingImages(paths, size).choices())
        assert len(found) == len(choices)
        for choice, images in zip(found, choices, strict=True):
            np.testing.assert_array_equal(choice, images)

    check((16, 16), expected)
    monkeypatch.setattr(quantization_images, "QUANTIZATION_IMAGES", 4)
    check((16, 16), expected[::2], expected[1::2])
    monkeypatch.setattr(quantization_images, "QUANTIZATION_PIXELS", 2 * 16 * 16)
    check((16, 16), expected[::3], expected[1::3], expected[2::3])
    monkeypatch.setattr(quantization_images, "QUANTIZATION_PIXELS", 1)
    check((16, 16), *(expected[i : i + 1] for i in range(6)))


def test_the_model_given_is_not_changed(checkpoint: Checkpoint, pixels: Tensor) -> None:
    model = checkpoint.model()
    before = copy.deepcopy(model.state_dict())
    quantize(model, pixels)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def shifted(scorer: Scorer, factor: float) -> Scorer:
    """Makes every other image's scores lower and maps higher by a factor."""

    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        anomaly_maps, scores = scorer(images)
        alternate = np.where(np.arange(len(scores)) % 2, factor, 1 / factor)
        return anomaly_maps * np.float32(factor), (scores * alternate).astype(np.float32)

    return score


def test_the_gate_lets_pass_what_loses_nothing(checkpoint: Checkpoint, data_root: Path) -> None:
    model = checkpoint.model()
    good = list_images(data_root / "weave/test/good")
    scorer = torch_scorer(model)
    fp32 = Gate.of(good, open_category(data_root, "weave").test_samples(), scorer)
    _, images = read_images(good, model.input_size)
    assert fp32.check("any", scorer(list(images))[0], scorer) == {
        "good_map_ratio": pytest.approx(1, rel=1e-6),
        "image_auroc_loss": 0,
        "pixel_auroc_loss": 0,
        "aupro_loss": 0,
    }


def test_the_gate_refuses_a_lower_auroc(checkpoint: Checkpoint, data_root: Path) -> None:
    model = checkpoint.model()
    good = list_images(data_root / "weave/test/good")
    scorer = torch_scorer(model)
    fp32 = Gate.of(good, open_category(data_root, "weave").test_samples(), scorer)
    perfect = replace(fp32, metrics=fp32.metrics | {"image_auroc": 1 + 2 * LARGEST_LOSS})
    _, images = read_images(good, model.input_size)
    with pytest.raises(ParityError, match=r"any in INT8 loses .* of image_auroc .*--bf16"):
        perfect.check("any", scorer(list(images))[0], shifted(scorer, 1.0))


def test_the_gate_refuses_noise_on_good_images(checkpoint: Checkpoint, data_root: Path) -> None:
    model = checkpoint.model()
    good = list_images(data_root / "weave/test/good")
    fp32 = Gate.of(good, [], torch_scorer(model))
    noisy = shifted(torch_scorer(model), 1.5)
    _, images = read_images(good, model.input_size)
    with pytest.raises(ParityError, match=r"1\.50 times as high as FP32, expected at most 1\.3"):
        fp32.check("any", noisy(list(images))[0], noisy)


def test_export_in_int8(
    checkpoint: Checkpoint, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After two epochs good and defective images score alike: rounding changes their order.
    monkeypatch.setattr(gate, "LARGEST_LOSS", 1)
    good = list_images(data_root / "weave/test/good")
    out = tmp_path / "weave.stpm"
    arguments = {"verify": good, "calibration": good, "report": lambda _: None}
    options = ExportOptions("int8")
    with pytest.raises(ExportError, match="--quantize DIR"):
        export_bundle(checkpoint, out, options, **arguments)
    assert not out.exists()
    export_bundle(
        checkpoint,
        out,
        options,
        quantization=checkpoint.train_images(),
        samples=open_category(data_root, "weave").test_samples(),
        **arguments,
    )
    manifest = Bundle(out).manifest
    assert manifest.precision == "int8"
    for record in manifest.engines.values():
        assert record.parity.keys() >= {"map_difference", "good_map_ratio", "aupro_loss"}
        assert -1 <= record.parity["image_auroc_loss"] <= 1


@pytest.mark.parametrize("refusals", [1, 3])
def test_other_images_are_tried_where_the_gate_refuses(
    checkpoint: Checkpoint,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusals: int,
) -> None:
    choices: list[Tensor] = []
    lines: list[str] = []

    def record(model: Network, images: Tensor) -> Network:
        choices.append(images)
        return model

    def refuse_the_first(gate: Gate, *_: object) -> dict[str, float]:
        if len(choices) <= refusals:
            raise GateError(f"number {len(choices)} is refused")
        return {}

    # Of 12 images these are four choices, of which three are tried.
    monkeypatch.setattr(
        quantization_images, "QUANTIZATION_IMAGES", 3
    )  # of 12: four choices, three are tried
    monkeypatch.setattr(pipeline, "quantize", record)
    monkeypatch.setattr(Gate, "check", refuse_the_first)
    good = list_images(data_root / "weave/test/good")
    out = tmp_path / "weave.stpm"
    arguments = {"verify": good, "calibration": good, "report": lines.append}
    images = {"quantization": checkpoint.train_images()}
    options = ExportOptions("int8", engines=("onnxruntime",))
    if refusals == 3:
        with pytest.raises(ParityError, match=r"number 3 is refused; .*--bf16"):
            export_bundle(checkpoint, out, options, **images, **arguments)
    else:
        export_bundle(checkpoint, out, options, **images, **arguments)
    assert out.exists() == (refusals < 3)
    assert len(choices) == min(refusals + 1, 3)
    assert not any(torch.equal(choices[0], other) for other in choices[1:])
    retried = [line for line in lines if "other images" in line]
    expected = [f"number {i + 1} is refused" for i in range(len(choices) - 1)]
    assert retried == [f"{reason}; quantising with other images" for reason in expected]


def test_other_methods_are_refused(spade_path: Path, data_root: Path, tmp_path: Path) -> None:
    good = list_images(data_root / "weave/test/good")
    with pytest.raises(ExportError, match="got INT8 with method spade, expected one of stpm, rd"):
        export_bundle(
            load_checkpoint(spade_path),
            tmp_path / "weave.stpm",
            ExportOptions("int8"),
            verify=good,
            calibration=good,
            quantization=good,
            report=lambda _: None,
        )
