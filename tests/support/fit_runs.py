"""Runs of training through the line, and what makes two of them the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from stpm.train import pipeline
from stpm.train.backbones import StateDict
from stpm.train.checkpoint import Checkpoint
from stpm.train.epochs import EpochRecord
from stpm.train.methods import Trainer
from stpm.train.methods.stpm.network import ModelConfig
from stpm.train.methods.stpm.trainer import StpmTrainer
from stpm.train.options import FitOptions

CONFIG = ModelConfig(input_size=(32, 32))
OPTIONS = FitOptions(
    epochs=3, batch_size=5, learning_rate=0.1, cooldown=0.5, device="cpu", precision="fp32"
)


def begin(
    data_root: Path,
    teacher_file: Path,
    options: FitOptions = OPTIONS,
    resume: Path | None = None,
) -> tuple[Trainer, Checkpoint]:
    """12 images to train on, 3 held out."""
    source = pipeline.read_source(data_root / "weave/train/good", CONFIG, options)
    fit, blank = pipeline.open_run(
        source, CONFIG, options, teacher_weights=teacher_file, resume=resume
    )
    fit.prepare(lambda _: None)
    return fit, blank


def start(data_root: Path, teacher_file: Path, options: FitOptions = OPTIONS) -> StpmTrainer:
    fit, _ = begin(data_root, teacher_file, options)
    assert isinstance(fit, StpmTrainer)
    return fit


def epochs(
    data_root: Path,
    teacher_file: Path,
    out: Path,
    options: FitOptions = OPTIONS,
    resume: bool = False,
) -> Iterator[EpochRecord]:
    fit, blank = begin(data_root, teacher_file, options, out if resume else None)
    yield from pipeline.train(fit, blank, out, lambda _: None)


def assert_same_states(a: StateDict, b: StateDict) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]), key


def assert_same_runs(a: Checkpoint, b: Checkpoint) -> None:
    """Best student, last student, momentum, and where both stand."""
    assert_same_states(a.student, b.student)
    assert_same_states(a.resume["student"], b.resume["student"])
    momenta = [run.resume["optimiser"]["state"] for run in (a, b)]
    assert len(momenta[0]) == len(momenta[1]) > 0
    for index, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][index]["momentum_buffer"])
    for name in ("epoch", "best_epoch", "best_held_out"):
        assert a.resume[name] == b.resume[name]
    assert a.training == b.training


def outcomes(log: Path) -> list[tuple[float, ...]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["epoch"], line["loss"], line["held_out"], line["is_best"]) for line in lines]
