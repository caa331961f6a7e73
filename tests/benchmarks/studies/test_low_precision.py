"""FP16 and INT8 against FP32: what is measured, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.benchmarks.studies.low_precision import Comparison, main
from stpm.export.int8 import images as quantization_images

FIGURES = {"image_auroc": 0.9, "pixel_auroc": None, "aupro": 0.8}
GOOD = Comparison("fp16", 4, 1.0, 0.004, 0.003, FIGURES, FIGURES)


@pytest.mark.parametrize(("precision", "count"), [("fp16", 1), ("int8", 2)])
def test_a_model_on_its_test_images(
    precision: str,
    count: int,
    checkpoint_path: Path,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantization_images, "QUANTIZATION_IMAGES", 6)  # of 12
    out = tmp_path / "found.json"
    arguments = [checkpoint_path, "--data", data_root, "--precision", precision, "--out", out]
    result = CliRunner().invoke(main, [str(x) for x in [*arguments, "--choices", count]])
    found = json.loads(out.read_text())["comparisons"]["weave"]
    assert len(found) == count
    for one in found:
        assert one["image_count"] == 8
        assert 0 < one["map_difference"] < (0.01 if precision == "fp16" else 0.5)
        assert 0.5 < one["fp32"]["pixel_auroc"] <= 1
    assert len({one["map_difference"] for one in found}) == count
    failures = [Comparison(**one).failures() for one in found]
    assert result.exit_code == (1 if any(failures) else 0)


def test_a_precision_that_is_none(checkpoint_path: Path, data_root: Path) -> None:
    arguments = [str(checkpoint_path), "--data", str(data_root), "--precision", "fp8"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "expected fp16 or int8" in result.output


def test_each_limit() -> None:
    assert GOOD.failures() == []
    nan = float("nan")
    assert replace(GOOD, rank_correlation=0.9998).failures() == ["rank correlation 0.999800"]
    assert replace(GOOD, rank_correlation=nan).failures() == ["rank correlation nan"]
    assert replace(GOOD, map_difference=0.0051).failures() == ["map difference 0.51%"]
    near, far = (FIGURES | {"image_auroc": value} for value in (0.9004, 0.9006))
    assert replace(GOOD, reduced=near).failures() == []
    assert replace(GOOD, reduced=far).failures() == ["image_auroc 0.9000 and 0.9006"]
    assert replace(GOOD, precision="int8", reduced=far).failures() == []
    lost = FIGURES | {"aupro": 0.7969}
    assert replace(GOOD, precision="int8", reduced=lost).failures() == ["aupro 0.8000 and 0.7969"]
