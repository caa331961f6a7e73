"""`stpm-calibrate`: thresholds from good images on site, against NumPy's own order statistics."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from stpm.runtime import Bundle, Detector
from stpm.runtime.bundle import archive
from stpm.runtime.site.cli import main


@pytest.fixture
def line(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle to change."""
    return Path(shutil.copytree(bundle_path, tmp_path / "line.stpm"))


@pytest.fixture
def good(data_root: Path) -> Path:
    return data_root / "weave/train/good"


@pytest.fixture
def bad(data_root: Path) -> Path:
    return data_root / "weave/test/hole"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refuse(line: Path, *arguments: object) -> str:
    """Exit code 1, one sentence, and the bundle as it was."""
    before = {path.name: path.read_bytes() for path in line.iterdir()}
    result = run(line, *arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert {path.name: path.read_bytes() for path in line.iterdir()} == before
    *_, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    return last


def scores_of(line: Path, engine: str, folder: Path) -> list[float]:
    return [r.score for r in Detector(line, engine).batch(sorted(folder.glob("*.png")))]


def test_thresholds_are_those_of_the_images(line: Path, good: Path) -> None:
    before = Bundle(line).manifest
    stdout = succeed(line, good, "--false-alarm-rate", 0.1, "--warn-rate", 0.3)
    after = Bundle(line).manifest
    assert after.files == before.files
    for engine, record in after.engines.items():
        scores = sorted(scores_of(line, engine, good))
        calibration = record.calibration
        assert calibration.scores == pytest.approx(tuple(scores), rel=1e-6)
        count = calibration.image_count
        assert count == len(scores) == 15
        for rate, threshold in (
            (0.1, calibration.image_threshold),
            (0.3, calibration.warn_threshold),
        ):
            rank = math.ceil((count + 1) * (1 - rate) - 1e-9)
            assert threshold == pytest.approx(scores[rank - 1], rel=1e-6)
        assert calibration.calibrated.endswith("+00:00")
        assert [f.image_threshold for f in record.former] == [
            before.engines[engine].calibration.image_threshold
        ]
        assert f"{engine}: threshold {calibration.image_threshold:.4g}, before " in stdout
        verdicts = [r.verdict for r in Detector(line, engine).batch(sorted(good.glob("*.png")))]
        assert (verdicts.count("anomalous"), verdicts.count("warn")) == (0, 3)


def test_one_engine_alone(line: Path, good: Path) -> None:
    before = Bundle(line).manifest.engines
    result = run(line, good, "--engine", "onnxruntime")
    assert result.exit_code == 0, result.output
    after = Bundle(line).manifest.engines
    assert after["onnxruntime"].former
    others = before.keys() - {"onnxruntime"}
    assert others
    for name in others:
        assert after[name] == before[name]
        assert f"{name}: keeps its thresholds" in result.stderr


def test_a_threshold_by_hand_says_its_rate(line: Path, good: Path) -> None:
    succeed(line, good, "--engine", "onnxruntime", "--false-alarm-rate", 0.1)
    scores = sorted(scores_of(line, "onnxruntime", good))
    threshold = (scores[9] + scores[10]) / 2  # five of 15 lie above
    stdout = succeed(line, "--threshold", threshold, "--engine", "onnxruntime")
    assert "for 37.50% false alarms" in stdout
    record = Bundle(line).manifest.engines["onnxruntime"]
    assert record.calibration.image_threshold == threshold
    assert record.calibration.false_alarm_rate == pytest.approx(6 / 16)
    assert len(record.former) == 2
    results = Detector(line, "onnxruntime").batch(sorted(good.glob("*.png")))
    assert sum(r.is_anomalous for r in results) == 5
    assert all(r.regions for r in results if r.is_anomalous)


def test_known_defects_are_counted(line: Path, good: Path, bad: Path) -> None:
    arguments = (line, good, "--bad", bad, "--engine", "onnxruntime", "--json")
    found = json.loads(succeed(*arguments, "--false-alarm-rate", 0.1))["onnxruntime"]
    goods, bads = (np.array(scores_of(line, "onnxruntime", f)) for f in (good, bad))
    assert found["defects"]
    for row in found["defects"]:
        assert row["found"] == (bads > row["threshold"]).sum()
        assert row["rejected"] == (goods > row["threshold"]).sum()
        assert row["false_alarm_rate"] == pytest.approx((1 + row["rejected"]) / 16)
    thresholds = [row["threshold"] for row in found["defects"]]
    assert thresholds == sorted(thresholds, reverse=True)
    assert found["calibration"]["image_threshold"] in thresholds
    lowest = found["defects"][-1]
    assert lowest["found"] == len(bads)
    assert lowest["threshold"] < bads.min()
    (*_, advice) = succeed(line, good, "--bad", bad, "--engine", "onnxruntime").splitlines()
    assert advice.startswith(f"  all found: stpm-calibrate {line} --threshold ")
    succeed(line, "--threshold", advice.split()[-1], "--engine", "onnxruntime")
    assert all(r.is_anomalous for r in Detector(line, "onnxruntime").batch(sorted(bad.glob("*"))))


def test_a_dry_run_changes_nothing(line: Path, good: Path) -> None:
    before = {path.name: path.read_bytes() for path in line.iterdir()}
    assert "onnxruntime: threshold" in succeed(line, good, "--dry-run")
    assert {path.name: path.read_bytes() for path in line.iterdir()} == before


def test_former_thresholds_are_bounded(line: Path, good: Path) -> None:
    succeed(line, good, "--engine", "onnxruntime")
    for step in range(22):
        succeed(line, "--threshold", 1 + step, "--engine", "onnxruntime")
    former = Bundle(line).manifest.engines["onnxruntime"].former
    assert len(former) == 20
    assert [f.image_threshold for f in former[:2]] == [21, 20]
    assert all(f.scores == () for f in former)


def test_a_failure_leaves_the_bundle(
    line: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(archive.Path, "write_text", full)
    assert "No space left on device" in refuse(line, good)
    assert sorted(path.name for path in line.parent.iterdir()) == ["line.stpm"]


def test_what_cannot_be_calibrated_is_refused(line: Path, good: Path, tmp_path: Path) -> None:
    assert "needs 99 or more" in refuse(line, good, "--false-alarm-rate", 0.01)
    said = refuse(line, good, "--false-alarm-rate", 0.2, "--warn-rate", 0.1)
    assert "got --warn-rate 0.1, expected at least the false-alarm rate of 0.2" in said
    said = refuse(line, good, "--warn-rate", 1.5)
    assert "got --warn-rate 1.5, expected a number above 0 and below 1" in said
    assert "there is no such file" in refuse(line, tmp_path / "absent")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert "broken.png" in refuse(line, good, broken)
    values = json.loads((line / "manifest.json").read_text())
    for record in values["engines"].values():
        record["calibration"]["scores"] = []
    (line / "manifest.json").write_text(json.dumps(values))
    assert "has no scores of good images" in refuse(line, "--threshold", 1)


@pytest.mark.parametrize(
    "arguments", [(), ("good", "--threshold", "1"), ("--threshold", "1", "--warn-rate", "0.1")]
)
def test_wrong_usage(line: Path, arguments: tuple[str, ...]) -> None:
    assert run(line, *arguments).exit_code == 2
