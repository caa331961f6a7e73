"""STAD beside STPM in one run of peers, and on CIFAR-10 one-class."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.benchmarks import peers
from stpm.benchmarks.accuracy import accuracy_result
from stpm.benchmarks.peers import peers_result
from stpm.benchmarks.tables import peers_tables
from stpm.export.pipeline import ExportOptions, export_bundle
from stpm.train.checkpoint import load_checkpoint
from stpm.train.cli import main as train
from stpm.train.datasets import labelled_samples, list_images


def test_other_methods_are_timed_and_compared_with_their_own_reference(
    checkpoint_path: Path,
    bundle_path: Path,
    stad_path: Path,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "contenders", lambda *_: {})
    stad = tmp_path / "weave_stad.stpm"
    images = list_images(data_root / "weave/test/good")
    export_bundle(
        load_checkpoint(stad_path),
        stad,
        ExportOptions(engines=("onnxruntime",)),
        verify=images,
        calibration=images,
        report=lambda _: None,
    )
    samples = labelled_samples(data_root / "weave")
    content = peers_result(checkpoint_path, [bundle_path, stad], samples, images=2, rounds=2)
    by_method = {row["method"]: row for row in content["peers"]}
    assert set(by_method) == {"stpm", "stad"}
    assert all(row["correct"] for row in content["peers"])
    assert all(0 <= row["pixel_auroc"] <= 1 for row in content["peers"])
    _, times = peers_tables(content)
    shown = {row.cells[0].split(",")[0]: row.cells[3] for row in times.rows}
    assert shown["STAD"] == f"{by_method['stad']['ratio']['median']:.1f}"
    assert shown["SPADE"] == ""


def test_stad_runs_on_cifar10_one_class(
    cifar10_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "airplane.pt"
    arguments = ["--method", "stad", "--data", cifar10_root, "--category", "airplane"]
    arguments += ["--input-size", 12, "--set", "patch-sizes=17", "--set", "students=2"]
    arguments += ["--set", "teacher-steps=1", "--set", "teacher-batch=4", "--epochs", 1]
    arguments += ["--train-share", 0.4]
    arguments += ["--teacher-folder", tmp_path, "--teacher-weights", teacher_file, "--out", out]
    result = CliRunner().invoke(train, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr
    (accuracy,) = accuracy_result([out], cifar10_root, every=5)["categories"]["airplane"]
    assert 0 <= accuracy["overall"]["image_auroc"] <= 1
    assert accuracy["overall"]["pixel_auroc"] is None
