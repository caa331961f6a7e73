"""`stpm-bench` as users run it."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.records.accuracy import METRICS
from stpm.benchmarks.records.result_file import read_result


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_help_names_the_command() -> None:
    code, stdout, _ = run("--help")
    assert code == 0
    assert "accuracy" in stdout


def test_the_table_and_the_json_hold_the_same_figures(
    checkpoint_path: Path, bundle_path: Path, data_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "accuracy.json"
    code, stdout, stderr = run(
        "accuracy", checkpoint_path, bundle_path, "--data", data_root, "--out", out
    )
    assert code == 0, stderr
    content = read_result(out)
    assert content["environment"]["packages"]["torch"] == version("torch")
    assert set(content["models"]) == {"weave.pt", "weave.stpm"}
    rows = content["categories"]["weave"]
    assert rows[0]["engine"] == "torch"
    assert rows[0]["decisions"] is rows[0]["calibration"] is None
    assert {row["name"] for row in rows[1:]} == {"weave.stpm"}
    assert all(row["image_count"] == 8 for row in rows)
    for row in rows:
        assert set(row["overall"]) == set(row["by_kind"]["hole"]) == set(METRICS)
        for name in ("image_auroc", "pixel_auroc", "aupro"):
            assert f"{row['overall'][name]:.4f}" in stdout


def test_published_figures_stand_beside_a_category_of_mvtec(
    checkpoint_path: Path, data_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "bottle").symlink_to(data_root / "weave")
    code, stdout, _ = run("accuracy", checkpoint_path, "--data", tmp_path, "--category", "bottle")
    assert code == 0
    assert "0.9880" in stdout
    assert "0.9592" in stdout


def test_the_gallery_shows_every_test_image_of_a_bundle(
    checkpoint_path: Path, bundle_path: Path, data_root: Path, tmp_path: Path
) -> None:
    models = (checkpoint_path, bundle_path, "--engine", "onnxruntime")
    code, _, stderr = run("accuracy", *models, "--data", data_root, "--gallery", tmp_path)
    assert code == 0, stderr
    pictures = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    kinds = ("good", "hole")
    assert pictures == [Path(f"weave/{kind}/{i:03}.png") for kind in kinds for i in range(4)]


def test_a_missing_folder_for_the_figures_is_seen_before_any_work(
    checkpoint_path: Path, data_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "no/accuracy.json"
    code, stdout, stderr = run("accuracy", checkpoint_path, "--data", data_root, "--out", out)
    assert (code, stdout) == (1, "")
    assert stderr.count("\n") == 1
    assert f"{out.parent}: there is no such folder" in stderr


def test_an_unknown_category_is_one_sentence(checkpoint_path: Path, data_root: Path) -> None:
    code, stdout, stderr = run(
        "accuracy", checkpoint_path, "--data", data_root, "--category", "nut"
    )
    assert code == 1
    assert stdout == ""
    assert stderr.count("\n") == 1
    assert "there is no category 'nut', expected one of weave" in stderr


def test_a_missing_model_is_one_sentence(data_root: Path, tmp_path: Path) -> None:
    code, _, stderr = run("accuracy", tmp_path / "weave.pt", "--data", data_root)
    assert code == 1
    assert "there is no such checkpoint" in stderr
    assert "Traceback" not in stderr


def test_latency_prints_what_it_writes(bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "latency.json"
    flags = ("--engine", "onnxruntime", "--count", 4, "--rounds", 2, "--image-size", "80x70")
    code, stdout, stderr = run("latency", bundle_path, *flags, "--out", out)
    assert code == 0, stderr
    content = read_result(out)
    assert [case["image_size"] for case in content["cases"]] == [[80, 70]] * 3
    for case in content["cases"]:
        assert f"{case['latency_ms']['p50']:.2f}" in stdout
    assert "5626" in stdout
    assert "RTX 2080 Ti" in stdout


def test_compare_finds_no_difference_between_equal_runs(
    bundle_path: Path, data_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "accuracy.json"
    engine = ("--engine", "onnxruntime")
    assert run("accuracy", bundle_path, "--data", data_root, *engine, "--out", out)[0] == 0
    code, stdout, _ = run("compare", out, out)
    assert code == 0
    assert "no difference" in stdout
    latency = tmp_path / "latency.json"
    run("latency", bundle_path, *engine, "--count", 2, "--rounds", 1, "--out", latency)
    code, _, stderr = run("compare", out, latency)
    assert code == 1
    assert stderr.count("\n") == 1


def test_a_foreign_file_is_one_sentence(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.json"
    for content, reason in (("[1]", "kind None"), ("{", "is not JSON"), ("{}", "version None")):
        foreign.write_text(content)
        code, _, stderr = run("compare", foreign, foreign)
        assert code == 1
        assert stderr.count("\n") == 1
        assert reason in stderr


@pytest.mark.parametrize("kept", ["good", "hole"])
def test_a_test_set_of_one_class_gives_what_it_can(
    bundle_path: Path, data_root: Path, tmp_path: Path, kept: str
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data_root / "weave", root / "weave")
    for kind in (root / "weave/test").iterdir():
        if kind.name != kept:
            shutil.rmtree(kind)
    out, page = tmp_path / "result.json", tmp_path / "report.html"
    code, _, stderr = run("accuracy", bundle_path, "--data", root, "--out", out)
    assert code == 0, stderr
    assert f"{root / 'weave/test'}: got 4 " in stderr
    (row, *_) = read_result(out)["categories"]["weave"]
    missing, given = "false_alarm_rate", "detection_rate"
    missing, given = (given, missing) if kept == "good" else (missing, given)
    assert row["decisions"][missing] is None
    assert 0 <= row["decisions"][given] <= 1
    assert row["overall"]["image_auroc"] is None
    assert (row["overall"]["aupro"] is None) == (kept == "good")
    code, _, stderr = run("report", out, "-o", page)
    assert code == 0, stderr
    assert "false alarms" in page.read_text()
