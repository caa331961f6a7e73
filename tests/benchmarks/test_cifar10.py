"""CIFAR-10 one-class from the batch files to the score, at 32x32, with the commands."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from stpm.benchmarks.cli import main as bench
from stpm.export.cli import main as export
from stpm.runtime import Detector
from stpm.train.checkpoint import load_checkpoint
from stpm.train.cli import main as train

CAT = 3


def succeed(command: typer.Typer, *arguments: object) -> None:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code == 0, result.stderr


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, cifar10_root: Path, teacher_file: Path
) -> Path:
    """Checkpoint, bundle, figures and pictures of the class `cat`."""
    folder = tmp_path_factory.mktemp("cat")
    data = ("--data", cifar10_root, "--category", "cat")
    options = ("--input-size", 32, "--epochs", 2, "--batch-size", 4, "--learning-rate", 0.1)
    succeed(
        train,
        *(*data, "--out", folder / "cat.pt", "--teacher-weights", teacher_file, *options),
        *("--device", "cpu", "--precision", "fp32"),
    )
    succeed(export, "--ckpt", folder / "cat.pt", "--out", folder / "cat.stpm")
    outputs = ("--out", folder / "cat.json", "--gallery", folder / "pictures")
    succeed(bench, "accuracy", folder / "cat.pt", folder / "cat.stpm", *data, *outputs)
    return folder


def test_the_record_names_images_inside_the_batches(folder: Path, cifar10_root: Path) -> None:
    checkpoint = load_checkpoint(folder / "cat.pt")
    training = checkpoint.training
    names = [f"data_batch_{i}/{j:05}" for i in range(1, 6) for j in (CAT, CAT + 10)]
    assert sorted(training["train"] + training["held_out"]) == names
    assert len(training["held_out"]) == 2
    assert Path(training["folder"]) == cifar10_root / "cifar-10-batches-py"


def test_the_levels_have_8_4_and_2_positions_a_side(folder: Path) -> None:
    model = load_checkpoint(folder / "cat.pt").model()
    levels = model.teacher(torch.zeros(1, 3, 32, 32))
    assert [tuple(level.shape[2:]) for level in levels] == [(8, 8), (4, 4), (2, 2)]


def test_the_figures_are_those_of_the_whole_test_set(folder: Path, cifar10_root: Path) -> None:
    batch = pickle.loads(
        (cifar10_root / "cifar-10-batches-py/test_batch").read_bytes(), encoding="latin1"
    )
    images = np.ascontiguousarray(batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    labels = np.array(batch["labels"])
    model = load_checkpoint(folder / "cat.pt").model()
    with torch.inference_mode():
        _, scores = model(torch.from_numpy(images))
    rows = json.loads((folder / "cat.json").read_text())["categories"]["cat"]
    assert len(rows) >= 2, "the checkpoint, and the bundle on each engine"
    for row in rows:
        overall = row["overall"]
        assert row["image_count"] == 20
        assert overall["image_auroc"] == pytest.approx(roc_auc_score(labels != CAT, scores))
        assert overall["pixel_auroc"] is overall["aupro"] is overall["pro_rescaled"] is None
        assert len(row["by_kind"]) == 9
        dogs = np.isin(labels, (CAT, 5))
        expected = roc_auc_score(labels[dogs] == 5, scores[dogs])
        assert row["by_kind"]["dog"]["image_auroc"] == pytest.approx(expected)


def test_bundle_and_pictures_are_made_of_the_batches_images(folder: Path) -> None:
    golden = Detector(folder / "cat.stpm").bundle.golden()
    assert golden.images.shape[1:] == (32, 32, 3)
    pictures = sorted(p.relative_to(folder / "pictures/cat") for p in folder.rglob("*.png"))
    assert len(pictures) == 20
    assert [p for p in pictures if p.parent.name == "good"] == [
        Path("good/00003.png"),
        Path("good/00013.png"),
    ]
