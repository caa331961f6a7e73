"""The training line: good images and a teacher in, a checkpoint out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import CheckpointError, DataError
from stpm.train.backbones import sees_whole_image, state_hash
from stpm.train.checkpoint import Checkpoint, load_checkpoint
from stpm.train.datasets import (
    data_hash,
    list_images,
    note_unused_range,
    read_images,
    read_tiles,
    split_held_out,
    take_share,
)
from stpm.train.epochs import EpochRecord
from stpm.train.methods import Config, Progress, TeacherSource, Trainer, open_method
from stpm.train.options import FitOptions
from stpm.train.run_files import RunFiles

MUST_MATCH = (
    *("batch_size", "learning_rate", "momentum", "weight_decay", "cooldown"),
    *("held_out", "train_share", "seed", "hard_positions", "augment", "tile", "bit_depth"),
)
"""The options that a resumed run may not change; more epochs are welcome."""


@dataclass(frozen=True)
class Source:
    """The good images as read: where from, their names below it, and which are held out.

    Trained on tiles, `names` has each image's name once for each of its tiles.
    """

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
    network = config.to_dict()
    if options.tile and sees_whole_image(network["backbone"], network["levels"]):
        raise CheckpointError(
            "this backbone weights its features by the whole image, expected a purely "
            "convolutional one for --tile; use a ResNet."
        )
    found = list_images(folder) if images is None else images
    chosen = take_share(found, options.train_share, options.seed)
    if options.tile:
        paths, pixels = read_tiles(
            chosen, options.tile, options.seed, on_bad=on_bad, bit_depth=options.bit_depth
        )
    else:
        paths, pixels = read_images(
            chosen, config.input_size, on_bad=on_bad, bit_depth=options.bit_depth
        )
    note_unused_range(paths, pixels)
    train_index, held_out_index = _split(paths, options)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Source(folder.resolve(), names, pixels, train_index, held_out_index)


def _split(paths: Sequence[Path], options: FitOptions) -> tuple[list[int], list[int]]:
    """Split by images, so that no image has tiles on both sides."""
    images = list(dict.fromkeys(paths))
    _, held_out = split_held_out(len(images), options.held_out, options.seed)
    chosen = {images[i] for i in held_out}
    rows: tuple[list[int], list[int]] = ([], [])
    for row, path in enumerate(paths):
        rows[path in chosen].append(row)
    return rows


@contextmanager
def _silently(*_: object) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def open_run(
    source: Source,
    config: Config,
    options: FitOptions,
    *,
    teacher_weights: Path | None = None,
    teacher_images: Path | None = None,
    teacher_folder: Path | None = None,
    resume: Path | None = None,
    warm_start: Path | None = None,
    progress: Progress = _silently,
) -> tuple[Trainer, Checkpoint]:
    """Build teacher and student, new or as a checkpoint left them.

    Args:
        source: from `read_source`.
        config: of the network.
        options: of the training.
        teacher_weights, teacher_images, teacher_folder: see `TeacherSource`.
        resume: checkpoint to continue.
        warm_start: checkpoint whose student, with its teacher, is where training begins.
        progress: shows the training of a teacher, where the method trains one and none is kept.

    Returns:
        The run, ready for its next epoch, and a checkpoint with all but the student's weights.

    Raises:
        CheckpointError: the teacher cannot be had, or a checkpoint does not fit.
    """
    method = open_method(config.method)
    if resume is not None:
        blank = _resumable(resume, source, config, options)
        model = blank.model()
        model.student.requires_grad_(True)
    elif warm_start is not None:
        other = _similar(warm_start, teacher_weights, config)
        model = method.network(config, other.teacher, other.student)
        model.teacher.requires_grad_(False).eval()
        record = _record(source, config, options) | {"warm_start": state_hash(other.student)}
        blank = Checkpoint(config, {}, other.teacher, other.teacher_id, record)
    else:
        teacher = TeacherSource(teacher_weights, teacher_images, teacher_folder)
        names = dict.fromkeys(source.names[i] for i in source.train_index)
        images = [source.folder / name for name in names]
        method.prepare_teacher(config, options, teacher, images, progress)
        model, teacher_id = method.blank(config, options, teacher)
        record = _record(source, config, options)
        blank = Checkpoint(config, {}, dict(model.teacher.state_dict()), teacher_id, record)
    train_images, held_out = (source.images[i] for i in (source.train_index, source.held_out_index))
    fit = method.trainer(model, train_images, held_out, options)
    if resume is not None:
        fit.load_resume_state(blank.resume, blank.student)
    return fit, blank


def train(
    fit: Trainer, blank: Checkpoint, out: Path, on_step: Callable[[int], None]
) -> Generator[EpochRecord, None, None]:
    """Run the remaining epochs; the checkpoint and the log are on disk every few seconds.

    Args:
        fit, blank: from `open_run`.
        out: the checkpoint's path; the log is `log_path(out)`.
        on_step: called after each step with its number of images.

    Yields:
        Each epoch's record. Closing this iterator writes the last finished epoch, as does an
        exception inside it.
    """
    files = RunFiles(fit, blank, out)
    try:
        while fit.epoch < fit.options.epochs:
            record = fit.run_epoch(on_step)
            files.finish_epoch(record)
            yield record
    finally:
        files.write()


def _record(source: Source, config: Config, options: FitOptions) -> dict[str, Any]:
    trained_on = source.images[source.train_index]
    if options.tile:  # whole images, as an export looks for them among others
        names = dict.fromkeys(source.names[i] for i in source.train_index)
        paths = [source.folder / name for name in names]
        _, trained_on = read_images(paths, config.input_size, bit_depth=options.bit_depth)
    return {
        "folder": str(source.folder),
        "train": list(dict.fromkeys(source.names[i] for i in source.train_index)),
        "held_out": list(dict.fromkeys(source.names[i] for i in source.held_out_index)),
        "data_sha256": data_hash(source.images),
        "train_sha256": [data_hash(image) for image in trained_on],
        "options": options.to_dict(),
        "versions": {
            "stpm": version("stpm"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }


def _similar(path: Path, teacher_weights: Path | None, config: Config) -> Checkpoint:
    checkpoint = load_checkpoint(path, teacher_weights)
    other, wished = checkpoint.config.to_dict(), config.to_dict()
    names = dict.fromkeys(("method", *other, *wished))
    del names["input_size"]
    for name in names:
        if other.get(name) != wished.get(name):
            raise CheckpointError(
                f"{path}: has the {name} {other.get(name)}, got {wished.get(name)}, expected "
                "the same in order to continue its student; give the same flags, or leave "
                "--from out."
            )
    return checkpoint


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
            f"{path}: was trained on other images than {source.folder} contains now; restore "
            "them, or start a new training with --overwrite."
        )
    return checkpoint
