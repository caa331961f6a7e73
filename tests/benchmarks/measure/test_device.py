"""The measurement for GPUs, tried on the processor, and the roofline beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stpm.benchmarks.measure.gpu import cli
from stpm.benchmarks.measure.gpu.cases import bars, cases
from stpm.benchmarks.measure.gpu.cli import main
from stpm.benchmarks.measure.gpu.process import WorkerProcess
from stpm.benchmarks.measure.gpu.run import DevicePlan, measure
from stpm.benchmarks.measure.gpu.training import Trainings, train_models
from stpm.benchmarks.measure.roofline import Cost, Peak, cost_of
from stpm.runtime import BackendError
from stpm.train.backbones import pyramid
from stpm.train.methods.stpm.network import ModelConfig, Stpm

SCRIPT = Path(__file__).parents[3] / "benchmarks/device.sh"


@pytest.fixture
def model(checkpoint_path: Path, bundle_path: Path, tmp_path: Path) -> Path:
    """A checkpoint with its bundle beside it."""
    shutil.copytree(bundle_path, tmp_path / "weave.stpm")
    return Path(shutil.copy(checkpoint_path, tmp_path / "weave.pt"))


def test_the_script_from_end_to_end_on_the_processor(
    model: Path, data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    """With a contender that kills itself among them, and one for a GPU that is not here."""
    pytest.importorskip("setuptools", reason="the script builds the package, which needs it")
    out = tmp_path / "device.json"
    contenders = ["dies", "torch eager fp32", "tensorrt", "torch eager fp16"]
    options: list[object] = ["--model", model, "--out", out, "--device", "cpu", "--sizes", "64"]
    options += ["--batches", "1,2", "--rounds", "3", "--minutes", "10"]
    options += [text for name in contenders for text in ("--contender", name)]
    options += ["--train-data", data_root, "--teacher-weights", teacher_file]
    options += ["--epochs", "1", "--seeds", "2"]
    done = subprocess.run(
        [SCRIPT, *map(str, options)],
        env=os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert content["device"] == "cpu"
    assert {"processor", "packages"} <= content["environment"].keys()

    assert content["refused"]["dies"].startswith("died of SIGSEGV")
    assert "tensorrt" in content["refused"]["tensorrt"]
    assert content["left_out"] == []
    checked = content["correctness"]
    assert checked.keys() == {"torch eager fp32", "torch eager fp16"}
    assert all(found["holds"] for found in checked.values()), checked

    cases = content["cases"]
    assert {(c["contender"], c["batch"], c["mode"]) for c in cases} == {
        (name, batch, mode)
        for name in checked
        for batch in (1, 2)
        for mode in ("maps", "scores", "device")
    }
    assert all(len(case["seconds"]) == 3 and min(case["seconds"]) > 0 for case in cases)
    (roofline,) = content["roofline"]
    assert 0 < roofline["least_seconds"]["1"] <= roofline["least_seconds"]["2"]
    # What was not measured is not reached.
    assert content["bars"]["gpu_ms"] == {"bar": 0.21, "reached": None}

    runs = [(run["category"], run["seed"], run["side_by_side"]) for run in content["training"]]
    assert runs == [("weave", 0, 1), ("weave", 0, 2), ("weave", 1, 2)]
    for run in content["training"]:
        assert run["seconds"] > run["epoch_seconds"] > 0
        assert 0 <= run["image_auroc"] <= 1


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.stderr


def test_what_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "device.json"
    arguments = ("--model", tmp_path / "absent.pt", "--out", out)
    code, stderr = run(*arguments, "--device", "cpu")
    assert code == 1
    assert "got no checkpoint with a bundle beside it" in stderr
    arguments = ("--model", model, "--out", out)
    assert run(*arguments, "--device", "cpu", "--batches", "1,x")[0] == 2
    assert run(*arguments, "--device", "cpu", "--contender", "abacus")[0] == 2
    monkeypatch.setattr(cli, "gpu_count", lambda: 0)
    code, stderr = run(*arguments)
    assert code == 1
    assert "there is no NVIDIA GPU" in stderr
    assert not out.exists()


def test_a_contender_that_hangs_is_given_up(tmp_path: Path) -> None:
    request = {
        "do": "open",
        "contender": "hangs",
        "checkpoint": "",
        "size": 64,
        "onnx": "",
        "frames": str(tmp_path / "frames.npy"),
        "batch": 1,
        "device": "cpu",
        "started": 0.0,
    }
    np.save(tmp_path / "frames.npy", np.zeros((1, 64, 64, 3), np.uint8))
    with WorkerProcess("hangs", tmp_path / "cache") as worker:
        with pytest.raises(BackendError, match="gave no answer to 'open' within 1 s"):
            worker.ask(request, 1)
        with pytest.raises(BackendError, match="gave no answer"):
            worker.ask({"do": "time"}, 100)


def test_the_time_limit_is_kept_and_what_is_left_out_is_named(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    plan = DevicePlan(
        model, ["torch eager fp32"], [1], [64, 96], 3, "cpu", time.monotonic() - 1, folder
    )
    content: dict[str, Any] = {}
    measure(plan, content, lambda: None)
    assert content["left_out"] == ["64x64", "roofline", "96x96"]
    assert content["cases"] == []


def test_a_training_that_is_not_done_in_time_is_ended(data_root: Path, teacher_file: Path) -> None:
    """The first seed alone; there is no time to begin the others."""
    # Less would do, but a busy machine needs a while to start a process.
    plan = Trainings(data_root, teacher_file, 10**6, 3, "cpu", time.monotonic() + 20)
    content: dict[str, Any] = {"left_out": []}
    train_models(plan, content, lambda: None)
    (run,) = content["training"]
    assert run["error"] == "not done when the time was up"
    assert content["left_out"] == ["training of weave, seeds [0, 1, 2]"]


def test_what_surrounds_the_timing_may_fail(model: Path, tmp_path: Path) -> None:
    """A graph that cannot be made costs its size, and the rest is still measured."""
    folder = tmp_path / "work"
    folder.mkdir()
    deadline = time.monotonic() + 300
    plan = DevicePlan(model, ["torch eager fp32"], [1], [64, 96], 1, "cpu", deadline, folder)
    (folder / "64.onnx").mkdir()
    content: dict[str, Any] = {}
    measure(plan, content, lambda: None)
    assert list(content["refused"]) == ["preparation of 64x64"]
    assert {case["size"] for case in content["cases"]} == {96}
    assert [row["size"] for row in content["roofline"]] == [64, 96]


def test_an_engine_is_opened_without_the_training_code() -> None:
    """Or its time to the first score would be that of imports."""
    program = (
        "import sys, stpm.benchmarks.measure.gpu.worker, stpm.benchmarks.measure.gpu.contenders; "
    )
    program += "print(*(name for name in sys.modules if name.startswith(('torch', 'stpm.'))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = done.stdout.split()
    assert "stpm.runtime.backends" in loaded, done.stderr
    assert not [n for n in loaded if n.startswith(("torch", "stpm.train", "stpm.export"))]


def test_the_important_cases_come_first() -> None:
    listed = cases([256, 512], [2, 1, 256, 4, 64, 8, 128], ["torch-cuda", "torch.compile fp16"])
    order = list(dict.fromkeys((case.size, case.batch) for case in listed))
    assert order[:7] == [(256, n) for n in (1, 64, 128, 256, 2, 4, 8)]
    compiled = {case.batch for case in listed if "torch.compile fp16" in case.contenders}
    assert compiled == {1, 64}


def test_bars_take_what_was_measured() -> None:
    def case(name: str, batch: int, mode: str, size: int = 256, **times: float) -> dict[str, Any]:
        lists = {key: [value, value] for key, value in times.items()}
        return {"contender": name, "batch": batch, "mode": mode, "size": size} | lists

    content = {
        "cases": [
            case("torch eager fp32", 1, "device", seconds=0.004),
            case("torch-cuda", 1, "device", seconds=0.0003, gpu_seconds=0.0002),
            case("torch-cuda", 64, "device", seconds=0.0021, gpu_seconds=0.002),
            case("torch-cuda", 64, "device", 512, seconds=0.009, gpu_seconds=0.0084),
            case("torch-cuda", 1, "maps", seconds=0.00028),
        ],
        "sustained": {"torch-cuda": {"scores": {"images_per_second": [9, 26_000, 27_000]}}},
        "starts": {"empty cache": {"first_score_s": 15.0}, "full cache": {"error": "broken"}},
        "training": [
            {"category": "a", "side_by_side": 1, "seconds": 20.0, "epoch_seconds": 6.0},
            *({"category": "a", "side_by_side": 3, "seconds": s} for s in (29.0, 30.0, 28.0)),
            {"category": "b", "side_by_side": 1, "seconds": 90.0, "epoch_seconds": 60.0},
        ],
    }
    reached = {name: entry["reached"] for name, entry in bars(content).items()}
    assert reached == pytest.approx(
        {
            "gpu_ms": 0.2,
            "host_ms": 0.28,
            "images_per_second": 32_000,
            "host_scores_per_second": 26_000,
            "over_eager_fp32": 20,
            "first_score_s": 15,
            "later_score_s": None,
            "size_512_over_4_times_256": 1.05,
            "training_epochs_s": 6,
            "training_s": 20,
            "three_trainings_over_one": 1.5,
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
