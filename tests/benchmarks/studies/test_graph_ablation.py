"""The graph with one choice undone: which one, and what it does to maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from stpm.benchmarks.studies.graph_ablation import AS_EXPORTED, CHANGES, main
from stpm.export.int8 import quantize
from stpm.export.int8.quantize import QuantizedConv, TwoTermConv
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import read_images

pytest.importorskip("openvino")


@pytest.fixture
def run(
    checkpoint_path: Path, data_root: Path, tmp_path: Path
) -> Callable[[str], dict[str, dict[str, Any]]]:
    def run(precision: str) -> dict[str, dict[str, Any]]:
        out = tmp_path / "found.json"
        arguments = [checkpoint_path, "--data", data_root, "--rounds", 1, "--out", out]
        result = CliRunner().invoke(main, [str(x) for x in [*arguments, "--precision", precision]])
        assert result.exit_code == 0, result.output
        effects = {effect["name"]: effect for effect in json.loads(out.read_text())["effects"]}
        assert list(effects) == list(CHANGES[precision])
        assert all(name in result.output for name in effects)
        assert effects[AS_EXPORTED]["time"] == {"median": 1, "low": 1, "high": 1}
        return effects

    return run


def test_changes_of_the_graph_leave_the_maps(run: Any) -> None:
    for effect in run("fp32").values():
        assert effect["map_difference"] < 1e-5
        assert effect["scatter"] < 1e-5


def test_fewer_digits_stand_farther_from_fp32(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = (AS_EXPORTED, "maps upsampled by Interpolate", "layer1 in FP32")
    monkeypatch.setitem(CHANGES, "int8", {name: CHANGES["int8"][name] for name in compared})
    found = {name: effect["map_difference"] for name, effect in run("int8").items()}
    assert found["layer1 in FP32"] < found[AS_EXPORTED] < 0.5
    assert found["maps upsampled by Interpolate"] == pytest.approx(found[AS_EXPORTED], rel=1e-3)


@pytest.fixture
def student(checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], nn.Module]:
    """By a change's name, the student as it is quantised then, its weights rounded plainly."""
    monkeypatch.setattr(quantize, "_compensate", lambda *_: None)
    checkpoint = load_checkpoint(checkpoint_path)
    model = checkpoint.model()
    _, images = read_images(checkpoint.train_images(), model.input_size)
    return lambda change: (
        CHANGES["int8"][change](model, torch.from_numpy(images), "int8").model.student
    )


def test_what_becomes_of_each_convolution(student: Callable[[str], nn.Module]) -> None:
    def kinds(change: str) -> dict[str, type[nn.Module]]:
        modules = student(change).named_modules()
        return {name: type(m) for name, m in modules if isinstance(m, nn.Conv2d)}

    exported, single = kinds(AS_EXPORTED), kinds("one term")
    second = {name for name, kind in exported.items() if kind is TwoTermConv}
    assert second == {"layer1.0.conv1"}
    assert single == exported | dict.fromkeys(second, QuantizedConv)
    for change, expected in [
        ("the second convolution in FP32", second),
        ("layer2 in FP32", {name for name in exported if name.startswith("layer2")}),
    ]:
        assert {name for name, kind in kinds(change).items() if kind is nn.Conv2d} == expected


def test_ranges(student: Callable[[str], nn.Module]) -> None:
    """Cutting the highest values pays in some layers, and widens none."""

    def scales(change: str) -> dict[str, float]:
        return {
            name: float(module.input_scale)
            for name, module in student(change).named_modules()
            if isinstance(module, QuantizedConv) and name != "conv1"  # the image has its own range
        }

    least, whole, wide = map(
        scales,
        (
            "one term, ranges of least squared error",
            "one term",
            "one term, ranges a quarter wider",
        ),
    )
    assert all(least[name] <= whole[name] for name in whole)
    assert any(least[name] < whole[name] for name in whole)
    assert wide == pytest.approx({name: 1.25 * scale for name, scale in whole.items()})


def test_a_precision_that_is_none(checkpoint_path: Path, data_root: Path) -> None:
    arguments = [str(checkpoint_path), "--data", str(data_root), "--precision", "fp8"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "expected fp32, bf16, int8" in result.output
