"""The ablations: the paper's cells, and runs that go on where they stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner, Result

from stpm.benchmarks.cli import main
from stpm.benchmarks.studies import ablation
from stpm.benchmarks.studies.ablation import CellMean, cell_mean
from stpm.benchmarks.studies.ablation_cells import Axis, Cell, cells, paper_figures
from stpm.runtime import DataError, Detector, ExportError
from stpm.train import run_files
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import labelled_samples

FIELDS = {
    *("axis", "cell", "category", "seed", "epochs", "input_size", "best_epoch"),
    *("train_images", "held_out_images", "test_images", "training_seconds", "teacher"),
    *("engine", "precision", "metrics", "checkpoint", "bundle", "environment"),
}


@pytest.mark.parametrize(
    ("axis", "name", "figures"),
    [
        (Axis.LEVELS, "4", (0.934, 0.957, 0.835)),
        (Axis.LEVELS, "2,3,4,5", (0.949, 0.969, 0.886)),
        (Axis.BACKBONE, "ResNet-50", (0.897, 0.966, 0.913)),
        (Axis.TEACHER, "CIFAR-10", (0.826, 0.931, 0.863)),
        (Axis.TRAINING_SHARE, "10%", (0.907, 0.967, 0.913)),
        (Axis.TRAINING_SHARE, "100%", (0.955, 0.97, 0.921)),
    ],
)
def test_the_papers_figures(axis: Axis, name: str, figures: tuple[float, ...]) -> None:
    assert tuple(paper_figures(axis)[name].values()) == figures


def test_the_cells_are_those_of_the_paper() -> None:
    levels = {cell.name: cell.levels for cell in cells(Axis.LEVELS, {}, None)}
    assert levels.keys() == paper_figures(Axis.LEVELS).keys()
    assert levels["2,3"] == ("layer1", "layer2")
    assert levels["5"] == ("layer4",)
    backbones = {cell.name: cell.backbone for cell in cells(Axis.BACKBONE, {}, None)}
    assert backbones.keys() == paper_figures(Axis.BACKBONE).keys()
    assert backbones["WideResNet50x2"] == "wide_resnet50_2"
    shares = {cell.name: cell.train_share for cell in cells(Axis.TRAINING_SHARE, {}, None)}
    assert shares == {"5%": 0.05, "10%": 0.1, "100%": 1.0}


def test_weights_are_for_all_cells_or_for_one() -> None:
    own, default = Path("own.pth"), Path("default.pth")
    found = cells(Axis.TEACHER, {"MNIST": own}, default)
    weights = {cell.name: cell.teacher_weights for cell in found}
    assert weights == {"ImageNet": default, "MNIST": own, "random": default}
    found = cells(Axis.BACKBONE, {"DenseNet": own}, None)
    assert {c.name: c.teacher_weights for c in found if c.teacher_weights} == {"DenseNet": own}
    with pytest.raises(DataError, match="got the cell 'ResNet-99', expected one of ResNet-18 "):
        cells(Axis.BACKBONE, {"ResNet-99": own}, None)


def invoke(axis: str, *arguments: object) -> Result:
    flags = ("--input-size", 32, *arguments)
    return CliRunner().invoke(main, ["ablation", axis, *map(str, flags)], env={"COLUMNS": "200"})


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


Finished = tuple[Path, list[object], Result]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, data_root: Path, teacher_file: Path
) -> Finished:
    """One cell of the levels after an epoch, and one whose teacher lacks the layer."""
    out = tmp_path_factory.mktemp("ablation")
    flags: list[object] = ["--data", data_root, "--teacher-weights", teacher_file, "--out", out]
    return out, flags, invoke("levels", *flags, "--cell", "2,3", "--cell", "5", "--epochs", 1)


def test_a_cell_that_cannot_be_run_is_left_out_and_named(finished: Finished) -> None:
    out, _, result = finished
    assert result.exit_code == 1
    assert "levels_5_weave_seed0, left out: teacher.safetensors: lacks " in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: 1 of 2 runs failed (levels_5_weave_seed0)")
    assert [line["cell"] for line in results(out)] == ["2,3"]


def test_a_line_says_all_about_a_cell(finished: Finished, data_root: Path) -> None:
    out, _, result = finished
    (line,) = results(out)
    assert set(line) == FIELDS
    assert (line["axis"], line["category"], line["seed"]) == ("levels", "weave", 0)
    assert (line["epochs"], line["input_size"], line["best_epoch"]) == (1, [32, 32], 1)
    assert (line["train_images"], line["held_out_images"], line["test_images"]) == (12, 3, 8)
    assert str(out) not in json.dumps(line), "no path of a machine"

    checkpoint = load_checkpoint(out / line["checkpoint"])
    assert checkpoint.config.levels == ("layer1", "layer2")
    detector = Detector(out / line["bundle"], line["engine"])
    samples = labelled_samples(data_root / "weave")
    scores = [detector(sample.path).score for sample in samples]
    expected = roc_auc_score([sample.is_anomalous for sample in samples], scores)
    assert line["metrics"]["image_auroc"] == pytest.approx(expected)
    rows = [text.split() for text in result.stdout.splitlines()]
    (ours,) = (row for row in rows if row[:1] == ["2,3"] and "paper" not in row)
    assert f"{line['metrics']['aupro']:.4f}" in ours
    assert ["2,3", "paper", "0.849", "0.950", "0.886"] in rows


def test_what_is_done_is_not_done_again(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, flags, _ = finished
    before = (out / "results.jsonl").read_bytes()
    monkeypatch.setattr(ablation, "run_cell", None)
    result = invoke("levels", *flags, "--cell", "2,3", "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert "1/1: levels_2-3_weave_seed0, already done" in result.stderr
    assert (out / "results.jsonl").read_bytes() == before


def test_a_cell_that_is_cut_off_goes_on_from_its_checkpoint(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flags, _ = finished
    flags = [*flags[:-1], tmp_path, "--cell", "4"]
    save, saved = run_files.save_checkpoint, []

    def interrupted(*arguments: Any) -> None:
        if len(saved) == 1:
            raise KeyboardInterrupt
        saved.append(arguments)
        save(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run_files, "save_checkpoint", interrupted)
        result = invoke("levels", *flags, "--epochs", 2)
    assert result.exit_code == 130
    assert "interrupted in levels_4_weave_seed0; repeat the command to continue" in result.stderr
    assert not (tmp_path / "results.jsonl").exists()

    result = invoke("levels", *flags, "--epochs", 2)
    assert result.exit_code == 0, result.stderr
    log = (tmp_path / "levels_4_weave_seed0.log.jsonl").read_text().splitlines()
    assert [json.loads(text)["epoch"] for text in log] == [1, 2]
    assert "epoch 1/2" not in result.stderr
    assert [line["epochs"] for line in results(tmp_path)] == [2]

    result = invoke("levels", *flags, "--epochs", 1)
    assert result.exit_code == 1
    assert "has already been trained for 2 epochs, got --epochs 1" in result.stderr


@pytest.fixture
def untested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops every cell after its training."""

    def export(*arguments: object, **options: object) -> None:
        raise ExportError("not exported.")

    monkeypatch.setattr(ablation, "export_bundle", export)


@pytest.mark.usefixtures("untested")
def test_the_share_of_the_images_that_is_trained_on(finished: Finished, tmp_path: Path) -> None:
    _, flags, _ = finished
    arguments = [*flags[:-1], tmp_path, "--epochs", 1]
    invoke("training-share", *arguments, "--cell", "10%", "--cell", "100%", "--seed", 2)
    for name, counts in (("10pct", (1, 1)), ("100pct", (12, 3))):
        training = load_checkpoint(tmp_path / f"training-share_{name}_weave_seed2.pt").training
        assert (len(training["train"]), len(training["held_out"])) == counts


@pytest.mark.usefixtures("untested")
def test_teachers_of_other_data_and_a_random_one(
    finished: Finished, tmp_path: Path, teacher_file: Path
) -> None:
    _, flags, _ = finished
    weights = ("--teacher-weights", f"MNIST={teacher_file}")
    result = invoke("teacher", *flags[:2], *weights, "--out", tmp_path, "--epochs", 1)
    assert "teacher_random_weave_seed0, left out: not exported" in result.stderr
    random, named = (
        load_checkpoint(tmp_path / f"teacher_{name}_weave_seed0.pt") for name in ("random", "MNIST")
    )
    assert named.teacher_id["source"] == teacher_file.name
    assert random.teacher_id["source"] == "random_teacher.safetensors"
    student = random.resume["student"]["conv1.weight"]
    assert not np.allclose(student, random.teacher["conv1.weight"], atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--cell", "6"), 1, "got the cell '6', expected one of 2 3 4 5 2,3 2,3,4 2,3,4,5"),
        (("--category", "nut"), 1, "there is no category 'nut'"),
        (("--teacher-weights", "absent.pth"), 1, "absent.pth: there is no such file"),
        (("--teacher-weights", "a", "--teacher-weights", "b"), 2, "give NAME=FILE"),
        (("--epochs", 0), 2, "--epochs"),
    ],
)
def test_refuses_what_makes_no_sense(
    data_root: Path, tmp_path: Path, arguments: tuple[object, ...], code: int, said: str
) -> None:
    result = invoke("levels", "--data", data_root, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_line_of_the_results_is_named(finished: Finished, tmp_path: Path) -> None:
    _, flags, _ = finished
    (tmp_path / "results.jsonl").write_text('{"axis": "levels"}\n{"axis": "lev\n')
    result = invoke("levels", *flags[:-1], tmp_path, "--cell", "2")
    assert result.exit_code == 1
    assert "results.jsonl: line 2 is not a result; remove that line." in result.stderr


def test_names_of_cells_make_names_of_files() -> None:
    names = ("2,3,4", "5%", "../my teacher")
    stems = [ablation.Run(Axis.TEACHER, Cell(name), "weave", 3, 1, (32, 32)).stem for name in names]
    assert stems == [
        "teacher_2-3-4_weave_seed3",
        "teacher_5pct_weave_seed3",
        "teacher_..-my-teacher_weave_seed3",
    ]


def line(seed: int, image_auroc: float, aupro: float | None) -> dict[str, Any]:
    return {"seed": seed, "metrics": {"image_auroc": image_auroc, "aupro": aupro}}


def test_means_are_over_categories_then_over_seeds() -> None:
    lines = [line(0, 0.5, 0.1), line(0, 0.7, None), line(1, 0.9, 0.2), line(1, 0.9, 0.3)]
    mean = cell_mean(lines, "image_auroc")
    assert mean is not None
    assert mean.mean == pytest.approx(0.75)
    assert mean.deviation == pytest.approx(np.std([0.6, 0.9], ddof=1))
    assert cell_mean(lines, "aupro") is None
    assert cell_mean([], "image_auroc") is None
    assert cell_mean(lines[:1], "aupro") == CellMean(0.1, None)
