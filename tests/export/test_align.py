"""`stpm-export --align`: thresholds of aligned parts from the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import parts
import pytest
from PIL import Image
from typer.testing import CliRunner

from stpm.export.cli import main
from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.runtime import Detector
from stpm.runtime.errors import DataError
from stpm.train.checkpoint import load_checkpoint


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Parts that are shifted and turned, and one image of none."""
    odd = np.random.default_rng(0).integers(0, 256, (*parts.SIZE, 3), np.uint8)
    drawn = [parts.draw_part((k - 4, 3 - k), 2 * k - 8, seed=k) for k in range(8)]
    paths = [tmp_path / f"{k}.png" for k in range(9)]
    for path, image in zip(paths, [*drawn, odd], strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_an_export_that_aligns(checkpoint_path: Path, images: list[Path], tmp_path: Path) -> None:
    reference = tmp_path / "reference.png"
    Image.fromarray(parts.draw_part()).save(reference)
    out = tmp_path / "part.stpm"
    export_bundle(
        load_checkpoint(checkpoint_path),
        out,
        ExportOptions(engines=("onnxruntime",), align=reference),
        verify=images,
        calibration=images,
        report=lambda _: None,
    )
    detector = Detector(out)
    results = detector.batch(images)
    assert [r.verdict == "unaligned" for r in results] == [False] * 8 + [True]
    expected = sorted(result.score for result in results[:8])
    assert detector.calibration.scores == pytest.approx(expected, rel=1e-4)
    tiled = ExportOptions(engines=("onnxruntime",), align=reference, camera_size=(80, 80))
    with pytest.raises(DataError, match="got a reference of 96x128 pixels, expected the 80x80"):
        export_bundle(
            load_checkpoint(checkpoint_path),
            out,
            tiled,
            verify=images,
            calibration=images,
            report=lambda _: None,
        )


def test_int8_is_aligned_on_site(checkpoint_path: Path) -> None:
    arguments = ["--ckpt", str(checkpoint_path), "--int8", "--align", "part.png"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "stpm-calibrate" in result.output
