"""What tiles cost: counts against the cuts, times of every process, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.measure.tiles import tile_count
from stpm.benchmarks.records.result_file import read_result
from stpm.benchmarks.report.chapters import blocks_of
from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.runtime.bundle.tiling import Tiling
from stpm.train.backbones import pyramid, state_hash
from stpm.train.checkpoint import Checkpoint
from stpm.train.methods.stpm.network import ModelConfig

SIZE = (312, 344)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of tiles with random weights, for grey images."""
    folder = tmp_path_factory.mktemp("tiled")
    config = ModelConfig(input_size=(64, 64))
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(pyramid(config.backbone, config.levels).state_dict())
    teacher_id = {"source": "random", "sha256": state_hash(states[0])}
    training = {"options": {"bit_depth": 16, "tile": 64}}
    pixels = np.random.default_rng(0).integers(80, 160, SIZE, np.uint8)
    Image.fromarray(pixels).save(folder / "good.png")
    export_bundle(
        Checkpoint(config, states[1], states[0], teacher_id, training=training),
        folder / "plate.stpm",
        ExportOptions(tile=288, grey=True, engines=("onnxruntime",)),
        verify=[folder / "good.png"],
        calibration=[folder / "good.png"],
        report=lambda _: None,
    )
    return folder / "plate.stpm"


def test_tiles_are_counted() -> None:
    tiling = Tiling((64, 64), (1, 1), 16, (4, 8, 16))  # of which 32 are kept inside
    assert tile_count(tiling, (64, 64)) == 1
    assert tile_count(tiling, (96, 64)) == 2
    assert tile_count(tiling, (112, 128)) == 3 * 3


def test_time_and_memory_of_fresh_processes(tiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles.json"
    arguments = ["tiles", str(tiled), "--count", "1", "--rounds", "2", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    record = read_result(out)
    assert record["kind"] == "tiles"
    assert record["engine"] == "onnxruntime"
    (case,) = record["cases"]
    assert (case["image_size"], case["channels"], case["tiles"]) == (list(SIZE), 1, 4)
    height, width = case["tile_size"]
    assert case["overlap"] == pytest.approx(4 * height * width / (SIZE[0] * SIZE[1]))
    assert [len(times) for times in case["rounds_ms"]] == [1, 1]
    median = np.median(np.concatenate(case["rounds_ms"]))
    assert case["ms_per_megapixel"] == pytest.approx(median / (SIZE[0] * SIZE[1] / 1e6))
    assert case["peak_memory_mib"] is None or case["peak_memory_mib"] > 50
    (block,) = blocks_of(record, "tiles")
    assert block.tables[0].rows[0].cells[0] == f"{SIZE[0]}x{SIZE[1]}"


def test_a_bundle_without_tiles_is_refused(bundle_path: Path) -> None:
    result = CliRunner().invoke(main, ["tiles", str(bundle_path)])
    assert result.exit_code == 1
    assert "takes images whole, expected one with tiles" in " ".join(result.stderr.split())
