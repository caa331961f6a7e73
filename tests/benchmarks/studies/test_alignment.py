"""`stpm-bench align` on drawn parts: what is moved is found again, and the figures add up."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import parts
import pytest
from PIL import Image
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.records.result_file import read_result
from stpm.benchmarks.report.chapters import blocks_of
from stpm.runtime.site.cli import main as calibrate


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Drawn parts as a data set, some of them with a spot."""
    category = tmp_path / "data/part"
    for folder in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        (category / folder).mkdir(parents=True)
    for seed in range(19):
        Image.fromarray(parts.draw_part(seed=seed)).save(category / f"train/good/{seed:03}.png")
    for seed in range(3):
        good, bad = (parts.draw_part(seed=40 + seed, defect=d) for d in (False, True))
        Image.fromarray(good).save(category / f"test/good/{seed:03}.png")
        Image.fromarray(bad).save(category / f"test/spot/{seed:03}.png")
        mask = np.zeros(parts.SIZE, np.uint8)
        mask[44:52, 58:66] = 255
        Image.fromarray(mask).save(category / f"ground_truth/spot/{seed:03}_mask.png")
    odd = np.random.default_rng(0).integers(0, 256, (*parts.SIZE, 3), np.uint8)
    Image.fromarray(odd).save(category / "test/good/003.png")
    return tmp_path / "data"


def test_the_study(bundle_path: Path, drawn: Path, tmp_path: Path) -> None:
    line = Path(shutil.copytree(bundle_path, tmp_path / "part.stpm"))
    good = str(drawn / "part/train/good")
    plain = [str(line), "--data", str(drawn), "--engine", "onnxruntime"]
    refused = CliRunner().invoke(main, ["align", *plain])
    assert refused.exit_code == 1
    assert "aligns no parts, expected a bundle that does" in refused.stderr
    result = CliRunner().invoke(calibrate, [str(line), good, "--align", f"{good}/000.png"])
    assert result.exit_code == 0, result.output
    out = tmp_path / "align.json"
    result = CliRunner().invoke(main, ["align", *plain, "--out", str(out)])
    assert result.exit_code == 0, result.output

    record = read_result(out)
    assert record["kind"] == "alignment"
    assert (record["good_count"], record["defect_count"]) == (4, 3)
    assert [(case["images"], case["aligned"]) for case in record["cases"]] == [
        ("as they lie", False),
        ("as they lie", True),
        ("shifted and turned", False),
        ("shifted and turned", True),
    ]
    for case in record["cases"]:
        # The noise is no part, and counts as rejected.
        assert case["good_unaligned"] == int(case["aligned"])
        assert case["good_rejected"] >= case["good_unaligned"]
        assert case["defects_unaligned"] == 0
    assert record["apart_px"]["median"] is not None
    assert record["apart_px"]["median"] < 0.5
    (block,) = blocks_of(record, "a")
    assert len(block.tables) == 2
