"""The image AUROC of several scores, against pairs counted one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stpm.benchmarks.records.result_file import read_result
from stpm.benchmarks.report.chapters import blocks_of
from stpm.benchmarks.studies.image_scores import main
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import open_category
from stpm.train.evaluate import score_files, torch_scorer


def auroc_by_pairs(truth: list[bool], scores: list[float]) -> float:
    pairs = [
        1.0 if bad > good else 0.5 if bad == good else 0.0
        for bad, is_bad in zip(scores, truth, strict=True)
        for good, is_good in zip(scores, truth, strict=True)
        if is_bad and not is_good
    ]
    return sum(pairs) / len(pairs)


def test_scores_are_read_off_the_same_maps(
    checkpoint_path: Path, data_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    arguments = [checkpoint_path, "--data", data_root, "--out", out]
    more = ["--score", "max", "--score", "top1%"]
    result = CliRunner().invoke(main, [str(x) for x in [*arguments, *more]])
    assert result.exit_code == 0, result.output

    samples = open_category(data_root, "weave").test_samples()
    scorer = torch_scorer(load_checkpoint(checkpoint_path).model())
    maps, _ = score_files(scorer, [sample.path for sample in samples])
    truth = [sample.is_anomalous for sample in samples]
    ordered = np.sort(maps.reshape(len(maps), -1), axis=1)
    count = int(np.ceil(0.01 * ordered.shape[1]))

    record = read_result(out)
    assert record["kind"] == "image_scores"
    (model,) = record["scored"]
    assert (model["method"], model["category"], model["image_count"]) == (
        *("stpm", "weave"),
        len(samples),
    )
    assert model["image_auroc"] == pytest.approx(
        {
            "max": auroc_by_pairs(truth, ordered[:, -1].tolist()),
            "top1%": auroc_by_pairs(truth, ordered[:, -count:].mean(axis=1).tolist()),
        }
    )
    (block,) = blocks_of(record, "a")
    assert block.tables[0].columns == ("", "max", "top1%")


def test_an_unknown_score_is_refused(checkpoint_path: Path, data_root: Path) -> None:
    arguments = [str(checkpoint_path), "--data", str(data_root), "--score", "mean"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "got the score 'mean', expected max, or topP%" in result.output
