"""The training line: good images and a teacher in, a checkpoint out."""

from __future__ import annotations

import copy
import json
import platform
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import CheckpointError, DataError
from stpm.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stpm.train.datasets import (
    data_hash,
    list_images,
    note_unused_range,
    read_images,
    split_held_out,
    take_share,
)
from stpm.train.fit import EpochRecord, FitOptions
from stpm.train.methods import Config, TeacherSource, Trainer, open_method

MUST_MATCH = (
    *("batch_size", "learning_rate", "momentum", "weight_decay"),
    *("held_out", "train_share", "seed"),
)
"""The options that a resumed run may not change; more epochs are welcome."""
WRITE_EVERY_SECONDS = 5.0
"""A checkpoint takes a tenth of a second to write, an epoch on a GPU less than that."""


@dataclass(frozen=True)
class Source:
    """The good images as read: where from, their names below it, and which are held out."""

    folder: Path
    names: list[str]
    images: NDArray[np.uint8]
    train_index: list[int]
    held_out_index: list[int]


def read_source(
    folder: Path,
    config: Config,
    options: FitOptions,
    on_bad: Callable[[DataError], None] | None = None,
    *,
    images: Sequence[Path] | None = None,
) -> Source:
    """Check the network, read the good images, and split them.

    Args:
        folder: of the good images.
        config: of the network.
        options: of the training.
        on_bad: see `read_images`.
        images: the good images, directly or deeper in the folder; None takes those directly in it.

    Raises:
        CheckpointError: see `Config.check`.
        DataError: see `read_images` and `split_held_out`.
    """
    config.check()  # before minutes of reading
    found = list_images(folder) if images is None else images
    chosen = take_share(found, options.train_share, options.seed)
    paths, pixels = read_images(chosen, config.input_size, on_bad=on_bad)
    note_unused_range(paths, pixels)
    train_index, held_out_index = split_held_out(len(paths), options.held_out, options.seed)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Source(folder.resolve(), names, pixels, train_index, held_out_index)


def prepare(
    source: Source,
    config: Config,
    options: FitOptions,
    *,
    teacher_weights: Path | None = None,
    teacher_images: Path | None = None,
    teacher_folder: Path | None = None,
    resume: Path | None = None,
) -> tuple[Trainer, Checkpoint]:
    """Build teacher and student, new or as a checkpoint left them.

    The teacher's arguments are those of `TeacherSource`.

    Returns:
        The run, ready for its next epoch, and a checkpoint with all but the student's weights.

    Raises:
        CheckpointError: the teacher cannot be had, or the checkpoint to resume does not fit.
    """
    method = open_method(config.method)
    if resume is None:
        teacher = TeacherSource(teacher_weights, teacher_images, teacher_folder)
        images = [source.folder / source.names[i] for i in source.train_index]
        model, teacher_id = method.blank(config, options, teacher, images)
        record = _record(source, options)
        blank = Checkpoint(config, {}, dict(model.teacher.state_dict()), teacher_id, record)
    else:
        blank = _resumable(resume, source, config, options)
        model = blank.model()
        model.student.requires_grad_(True)
    train_images, held_out = (source.images[i] for i in (source.train_index, source.held_out_index))
    fit = method.trainer(model, train_images, held_out, options)
    if resume is not None:
        fit.load_resume_state(blank.resume, blank.student)
    return fit, blank


def train(
    fit: Trainer, blank: Checkpoint, out: Path, on_step: Callable[[float], None]
) -> Generator[EpochRecord, None, None]:
    """Run the remaining epochs and keep the checkpoint and the log.

    Each epoch is a line of the log. The checkpoint is written after the first epoch, after each
    one that ends `WRITE_EVERY_SECONDS` or more after the last writing, after the last one, and,
    as the last whole epoch left it, when the iterator is closed or an error passes through it.

    Args:
        fit, blank: from `prepare`.
        out: the checkpoint's path; the log is `log_path(out)`.
        on_step: called after each step with its loss.

    Yields:
        Each epoch's record. Stopping between two of them loses nothing.
    """
    if fit.epoch:
        _forget_epochs_after(log_path(out), fit.epoch)
    unwritten: Checkpoint | None = None
    due = time.monotonic()
    try:
        while fit.epoch < fit.options.epochs:
            record = fit.run_epoch(on_step)
            unwritten = _trained(fit, blank)
            if fit.epoch == fit.options.epochs or time.monotonic() >= due:
                _write(unwritten, out, fit)
                unwritten = None
                due = time.monotonic() + WRITE_EVERY_SECONDS
            else:
                # The next epoch changes the tensors; an interruption writes what they are now.
                unwritten = _copied(unwritten)
            with log_path(out).open("w" if record.epoch == 1 else "a") as log:
                log.write(json.dumps(asdict(record)) + "\n")
            yield record
    finally:
        if unwritten is not None:
            _write(unwritten, out, fit)


def _trained(fit: Trainer, blank: Checkpoint) -> Checkpoint:
    outcome = {
        "best_epoch": fit.best_epoch,
        "held_out_map": fit.best_held_out,
        "epochs_done": fit.epoch,
    }
    return replace(
        blank,
        student=fit.best_student,
        training=blank.training | outcome,
        resume=fit.resume_state(),
    )


def _copied(checkpoint: Checkpoint) -> Checkpoint:
    """Copy what training goes on to change; the teacher and each best student stay as they are."""
    return replace(checkpoint, resume=copy.deepcopy(checkpoint.resume))


def _write(checkpoint: Checkpoint, out: Path, fit: Trainer) -> None:
    save_checkpoint(checkpoint, out)
    fit.written_epoch = checkpoint.training["epochs_done"]


def _forget_epochs_after(log: Path, epoch: int) -> None:
    """Drop the lines of epochs whose checkpoint was never written, as a killed run leaves them."""
    if log.is_file():
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(line for line in lines if json.loads(line)["epoch"] <= epoch))


def log_path(checkpoint: Path) -> Path:
    """Return where the JSON lines of a training run stand."""
    return checkpoint.with_suffix(".log.jsonl")


def _record(source: Source, options: FitOptions) -> dict[str, Any]:
    return {
        "folder": str(source.folder),
        "train": [source.names[i] for i in source.train_index],
        "held_out": [source.names[i] for i in source.held_out_index],
        "data_sha256": data_hash(source.images),
        "train_sha256": [data_hash(source.images[i]) for i in source.train_index],
        "options": options.to_dict(),
        "versions": {
            "stpm": version("stpm"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }


def _resumable(path: Path, source: Source, config: Config, options: FitOptions) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    if not checkpoint.resume:
        raise CheckpointError(f"{path}: was not made by stpm-train; it cannot be resumed.")
    if checkpoint.config != config:
        raise CheckpointError(
            f"{path}: was trained as {checkpoint.config}, got {config}; repeat the same flags."
        )
    before = FitOptions().to_dict() | checkpoint.training["options"]  # older ones name fewer
    for name in MUST_MATCH:
        if before[name] != getattr(options, name):
            raise CheckpointError(
                f"{path}: was trained with {name} {before[name]}, got {getattr(options, name)}; "
                "repeat the same flags."
            )
    if checkpoint.training["data_sha256"] != data_hash(source.images):
        raise CheckpointError(
            f"{path}: was trained on other images than {source.folder} holds now; restore them, "
            "or train anew."
        )
    return checkpoint
