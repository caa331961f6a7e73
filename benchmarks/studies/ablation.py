"""The paper's ablations, Tables 6 to 9: train, export and measure a cell at a time, resumably."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from stpm.benchmarks.measure.accuracy import Accuracy, candidates, measure
from stpm.benchmarks.records.environment import environment
from stpm.benchmarks.studies.ablation_cells import RANDOM, Axis, Cell
from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.runtime.errors import DataError
from stpm.runtime.output.console import progress
from stpm.train import pipeline, run_files
from stpm.train.backbones import pyramid
from stpm.train.checkpoint import Checkpoint, load_checkpoint
from stpm.train.datasets import open_category
from stpm.train.methods.stpm.network import ModelConfig
from stpm.train.options import FitOptions
from stpm.train.progress import TrainingProgress

RESULTS = "results.jsonl"
RANDOM_TEACHER_SEED = 2103_04257
"""Unlike any student's seed: with the same one they would be equal before training."""


@dataclass(frozen=True)
class Run:
    """One training of a cell; its files in the output folder are named after it."""

    axis: Axis
    cell: Cell
    category: str
    seed: int
    epochs: int
    input_size: tuple[int, int]

    @property
    def stem(self) -> str:
        """Name of the run's files."""
        cell = re.sub(r"[^\w.-]+", "-", self.cell.name.replace("%", "pct"))
        return f"{self.axis}_{cell}_{self.category}_seed{self.seed}"

    def identity(self) -> dict[str, Any]:
        """Return the fields that tell a finished run from another."""
        return {
            "axis": self.axis.value,
            "cell": self.cell.name,
            "category": self.category,
            "seed": self.seed,
            "epochs": self.epochs,
            "input_size": list(self.input_size),
        }


def finished(out: Path, run: Run) -> dict[str, Any] | None:
    """Return a run's line of the results, or None."""
    identity = run.identity()
    lines = (line for line in read_results(out) if identity.items() <= line.items())
    return next(lines, None)


def read_results(out: Path) -> list[dict[str, Any]]:
    """Read the lines of an output folder's results; none before the first cell is done.

    Raises:
        DataError: a line is no JSON object.
    """
    path = out / RESULTS
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        try:
            lines.append(dict(json.loads(text)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: line {number} is not a result; remove that line.") from error
    return lines


def run_cell(run: Run, data: Path, out: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Train (or continue), export and measure a cell, and append its line to the results.

    Args:
        run: what to do.
        data: root of the data set.
        out: folder of the checkpoint, the bundle and the results.
        report: called with a line about each step of the export.

    Returns:
        The line.

    Raises:
        StpmError: the cell cannot be trained, exported or measured.
    """
    category = open_category(data, run.category)
    samples = category.test_samples()  # before an hour of training
    checkpoint = _train(run, category.folder, category.good_images(), out)
    bundle = out / f"{run.stem}.stpm"
    held_out = checkpoint.held_out_images()
    export_bundle(
        checkpoint, bundle, ExportOptions(), verify=held_out, calibration=held_out, report=report
    )
    candidate, *_ = candidates(bundle, None, None)
    with progress(f"{candidate.name} on {candidate.engine}", len(samples)) as on_images:
        accuracy = measure(candidate, samples, on_images)
    line = run.identity() | _outcome(run, checkpoint, accuracy, out)
    with (out / RESULTS).open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def _train(run: Run, folder: Path, images: Sequence[Path], out: Path) -> Checkpoint:
    path = _checkpoint_path(run, out)
    config = ModelConfig(run.cell.backbone, run.cell.levels, run.input_size)
    options = FitOptions(epochs=run.epochs, train_share=run.cell.train_share, seed=run.seed)
    source = pipeline.read_source(folder, config, options, images=images)
    fit, blank = pipeline.open_run(
        source,
        config,
        options,
        teacher_weights=_teacher_weights(run, out),
        resume=path if path.exists() else None,
    )
    if fit.epoch > run.epochs:
        raise DataError(
            f"{path}: has already been trained for {fit.epoch} epochs, got --epochs "
            f"{run.epochs}; name another folder with --out."
        )
    if fit.epoch < run.epochs:
        with TrainingProgress(fit) as bar:
            bar.cache_teacher()
            with closing(pipeline.train(fit, blank, path, bar.on_step)) as epochs:
                for record in epochs:
                    bar.on_epoch(record)
    return load_checkpoint(path)


def _teacher_weights(run: Run, out: Path) -> Path | None:
    """Return the cell's file; for the random teacher one that is written once."""
    if (run.axis, run.cell.name) != (Axis.TEACHER, RANDOM):
        return run.cell.teacher_weights
    path = out / "random_teacher.safetensors"
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(RANDOM_TEACHER_SEED)
            save_file(pyramid(run.cell.backbone, run.cell.levels).state_dict(), path)
    return path


def _checkpoint_path(run: Run, out: Path) -> Path:
    return out / f"{run.stem}.pt"


def _outcome(run: Run, checkpoint: Checkpoint, accuracy: Accuracy, out: Path) -> dict[str, Any]:
    training, metrics = checkpoint.training, asdict(accuracy.evaluation.overall)
    log = run_files.log_path(_checkpoint_path(run, out)).read_text().splitlines()
    return {
        "best_epoch": training["best_epoch"],
        "train_images": len(training["train"]),
        "held_out_images": len(training["held_out"]),
        "test_images": len(accuracy.evaluation.samples),
        "training_seconds": round(sum(json.loads(line)["seconds"] for line in log), 1),
        "teacher": checkpoint.teacher_id,
        "engine": accuracy.candidate.engine,
        "precision": accuracy.candidate.precision,
        # The rescaled PRO is NaN where it is undefined; JSON has none.
        "metrics": {k: v if v is None or np.isfinite(v) else None for k, v in metrics.items()},
        "checkpoint": _checkpoint_path(run, out).name,
        "bundle": f"{run.stem}.stpm",
        "environment": environment(),
    }


@dataclass(frozen=True)
class CellMean:
    """A metric of a cell: over categories first, then over seeds; `deviation` needs two seeds."""

    mean: float
    deviation: float | None


def cell_mean(lines: Sequence[Mapping[str, Any]], metric: str) -> CellMean | None:
    """Average a metric over a cell's runs; None if a run has none, as without masks.

    Args:
        lines: a cell's results.
        metric: its name in `stpm.train.metrics.Metrics`.
    """
    by_seed: dict[int, list[float]] = {}
    for line in lines:
        value = line["metrics"][metric]
        if value is None:
            return None
        by_seed.setdefault(line["seed"], []).append(value)
    means = [float(np.mean(values)) for values in by_seed.values()]
    if not means:
        return None
    deviation = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return CellMean(float(np.mean(means)), deviation)
