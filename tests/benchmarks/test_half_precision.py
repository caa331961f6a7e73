"""FP16 against FP32: what is measured, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from stpm.benchmarks.half_precision import Agreement, main

FIGURES = {"image_auroc": 0.9, "pixel_auroc": None}
GOOD = Agreement(4, 1.0, 0.004, 0.003, FIGURES, FIGURES)


def test_a_model_on_its_test_images(checkpoint_path: Path, data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "fp16.json"
    arguments = [checkpoint_path, "--data", data_root, "--out", out]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    found = json.loads(out.read_text())["categories"]["weave"]
    assert found["image_count"] == 8
    assert 0 < found["map_difference"] < 0.01
    assert found["rank_correlation"] > 0.9
    assert 0.5 < found["fp32"]["pixel_auroc"] <= 1
    failures = Agreement(**found).failures()
    assert result.exit_code == (1 if failures else 0)


def test_each_limit() -> None:
    assert GOOD.failures() == []
    nan = float("nan")
    assert replace(GOOD, rank_correlation=0.9998).failures() == ["rank correlation 0.999800"]
    assert replace(GOOD, rank_correlation=nan).failures() == ["rank correlation nan"]
    assert replace(GOOD, map_difference=0.0051).failures() == ["map difference 0.51%"]
    near, far = ({"image_auroc": value, "pixel_auroc": None} for value in (0.9004, 0.9006))
    assert replace(GOOD, reduced=near).failures() == []
    assert replace(GOOD, reduced=far).failures() == ["image_auroc 0.9000 and 0.9006"]
