"""The measurement for GPUs, tried on the processor, and the roofline beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from stpm.benchmarks import device as module
from stpm.benchmarks.device import main
from stpm.benchmarks.roofline import Cost, Peak, cost_of
from stpm.train.backbones import pyramid
from stpm.train.stpm import ModelConfig, Stpm

SCRIPT = Path(__file__).parents[2] / "benchmarks/device.sh"


@pytest.fixture
def models(checkpoint_path: Path, bundle_path: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    shutil.copytree(bundle_path, folder / "weave.stpm")
    shutil.copy(checkpoint_path, folder / "weave.pt")
    return folder


def test_the_script_from_end_to_end_on_the_processor(
    models: Path, data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("setuptools", reason="the script builds the package, which needs it")
    out = tmp_path / "device.json"
    options = ["--models", models, "--out", out, "--device", "cpu", "--sizes", "64"]
    options += ["--batches", "1,2", "--rounds", "3"]
    options += ["--train-data", data_root, "--teacher-weights", teacher_file]
    options += ["--epochs", "1", "--seeds", "1"]
    done = subprocess.run(
        [SCRIPT, *map(str, options)],
        # Compiling for the processor takes a minute and shows nothing about a GPU.
        env=os.environ | {"PYTHON": sys.executable, "TORCHDYNAMO_DISABLE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert content["device"] == "cpu"
    assert {"processor", "packages"} <= content["environment"].keys()

    checked = content["correctness"]["weave"]
    for name in ("torch eager fp32", "torch eager fp16", "torch.compile fp16"):
        assert checked[name]["holds"], checked[name]
    for name in ("tensorrt", "torch-cuda", "onnxruntime-cuda"):
        assert "needs an NVIDIA GPU" in checked[name]

    (timing,) = content["timings"]
    cases = timing["cases"]
    assert {(c["batch"], c["host_transfers"]) for c in cases} == {
        (batch, transfers) for batch in (1, 2) for transfers in (True, False)
    }
    assert len(cases) == 3 * 4
    assert all(len(case["seconds"]) == 3 and min(case["seconds"]) > 0 for case in cases)
    (roofline,) = content["roofline"]
    assert 0 < roofline["least_seconds"]["1"] <= roofline["least_seconds"]["2"]
    # What was not measured is not reached.
    assert content["bars"]["host_ms"] == {"bar": 0.35, "reached": None}

    (training,) = content["training"]
    assert (training["category"], training["seed"], training["epochs"]) == ("weave", 0, 1)
    assert training["seconds"] > 0
    assert 0 <= training["image_auroc"] <= 1


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.stderr


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "device.json"
    arguments = ("--models", tmp_path, "--out", out)
    code, stderr = run(*arguments, "--device", "cpu")
    assert code == 1
    assert "holds no NAME.pt with a NAME.stpm beside it" in stderr
    assert run(*arguments, "--device", "cpu", "--batches", "1,x")[0] == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, stderr = run(*arguments)
    assert code == 1
    assert "torch sees no GPU" in stderr
    assert not out.exists()


def test_bars_take_the_fastest_of_ours() -> None:
    def case(name: str, batch: int, transfers: bool, *seconds: float) -> dict[str, object]:
        return {
            "contender": name,
            "batch": batch,
            "host_transfers": transfers,
            "seconds": list(seconds),
        }

    cases = [
        case("torch eager fp32", 1, True, 0.004, 0.005, 0.006),
        case("torch-cuda", 1, True, 0.0005),
        case("tensorrt", 1, True, 0.0004),
        case("tensorrt", 1, False, 0.0002),
        case("tensorrt", 64, False, 0.002),
        case("torch-cuda", 64, False),
    ]
    timings = [{"size": [256, 256], "cases": cases}, {"size": [512, 512], "cases": []}]
    reached = {name: entry["reached"] for name, entry in module._bars(timings).items()}
    assert reached == pytest.approx(
        {
            "host_ms": 0.4,
            "device_ms": 0.2,
            "images_per_second": 32_000,
            "over_eager_fp32": 12.5,
        }
    )


def test_costs_of_a_known_network() -> None:
    """ResNet-18 to layer1: a 7x7 stem with stride 2, a pooling, four 3x3 convolutions, twice."""
    config = ModelConfig(levels=("layer1",), input_size=(64, 64))
    model = Stpm(config, pyramid(config.backbone, config.levels)).eval()
    stem, layer = 7 * 7 * 3 * 64, 3 * 3 * 64 * 64
    cost = cost_of(model, (64, 64), 2)
    assert cost.flop == 2 * 2 * (stem * 32 * 32 + 4 * layer * 16 * 16)
    assert cost.weight_bytes == 2 * 2 * (stem + 4 * layer)
    values = 3 * 64 * 64 + 64 * 32 * 32 + 4 * 2 * 64 * 16 * 16
    assert cost.activation_bytes == 2 * 2 * values
    assert cost.batch(3) == Cost(3 * cost.flop, cost.weight_bytes, 3 * cost.activation_bytes)


def test_the_longer_of_arithmetic_and_traffic_decides() -> None:
    peak = Peak(flop=100.0, bytes=10.0)
    assert peak.least_seconds(Cost(1000, 10, 10)) == 10.0
    assert peak.least_seconds(Cost(100, 20, 30)) == 5.0
