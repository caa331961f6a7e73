"""STAD beside STPM in one run of peers, and on CIFAR-10 one-class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.benchmarks.measure.accuracy import accuracy_result
from stpm.benchmarks.measure.peers import peers_result
from stpm.benchmarks.report.tables_speed import peers_tables
from stpm.benchmarks.report.verdict_speed import speed_findings
from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.train.checkpoint import load_checkpoint
from stpm.train.cli import main as train
from stpm.train.datasets import labelled_samples, list_images


def test_other_methods_are_timed_and_compared_with_their_own_reference(
    checkpoint_path: Path,
    bundle_path: Path,
    stad_path: Path,
    data_root: Path,
    tmp_path: Path,
) -> None:
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
    content = peers_result(
        checkpoint_path, [bundle_path, stad], samples, images=2, rounds=2, bundles_only=True
    )
    assert content["left_out"] == []
    by_method = {row["method"]: row for row in content["peers"]}
    assert set(by_method) == {"stpm", "stad"}
    assert all(row["correct"] for row in content["peers"])
    assert all(0 <= row["pixel_auroc"] <= 1 for row in content["peers"])
    _, times, methods = peers_tables(content)
    shown = {row.cells[0].split(",")[0]: row.cells[3] for row in times.rows}
    assert shown["STAD"] == f"{by_method['stad']['ratio']['median']:.1f}"
    assert shown["SPADE"] == ""
    settings = {row.cells[0]: row.cells[1:] for row in methods.rows}
    assert "patch sizes 17" in settings["weave_stad.stpm"][0]
    assert "train share 0.4" in settings["weave_stad.stpm"][1]
    content["peers"].append(by_method["stad"] | {"name": "weave_stad33.stpm onnxruntime"})
    both = {row.cells[0].split(",")[0]: row.cells[3] for row in peers_tables(content)[1].rows}
    assert both["STAD"].splitlines() == [
        f"{shown['STAD']} weave_stad.stpm",
        f"{shown['STAD']} weave_stad33.stpm",
    ]


@pytest.mark.parametrize(("ratio", "answer"), [(21.0, "CARE"), (23.0, "YES")])
def test_the_verdict_compares_the_methods_with_the_papers_ratio(
    peers_content: str, ratio: float, answer: str
) -> None:
    content = json.loads(peers_content)
    assert "other methods" not in " ".join(f.question for f in speed_findings([content]))
    content["peers"][0]["method"] = "stpm"
    content["peers"][1] |= {"method": "stad", "name": "other.stpm openvino"}
    content["peers"][1]["ratio"]["median"] = ratio
    (finding,) = (f for f in speed_findings([content]) if "other methods" in f.question)
    assert finding.answer.name == answer
    (detail,) = finding.details
    assert f"other.stpm (STAD): {ratio} times" in detail
    assert "in the paper, 22 times" in detail


@pytest.mark.parametrize(("data", "category"), [("cifar10_root", "airplane"), ("mnist_root", "9")])
def test_stad_runs_on_one_class_sets(
    data: str,
    category: str,
    teacher_file: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    root, out = request.getfixturevalue(data), tmp_path / f"{category}.pt"
    arguments = ["--method", "stad", "--data", root, "--category", category]
    arguments += ["--input-size", 12, "--set", "patch-sizes=17", "--set", "students=2"]
    arguments += ["--set", "teacher-steps=1", "--set", "teacher-batch=4", "--epochs", 1]
    arguments += ["--train-share", 0.5]
    arguments += ["--teacher-folder", tmp_path, "--teacher-weights", teacher_file, "--out", out]
    result = CliRunner().invoke(train, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr
    (accuracy,) = accuracy_result([out], root, every=3)["categories"][category]
    assert 0 <= accuracy["overall"]["image_auroc"] <= 1
    assert accuracy["overall"]["pixel_auroc"] is None
