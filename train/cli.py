"""`stpm-train`: from a folder of good images to a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stpm.runtime.bundle.archive import MAX_SIDE
from stpm.runtime.errors import DataError, StpmError
from stpm.runtime.output.console import (
    Version,
    command,
    note,
    parse_size,
    progress,
    refuse_ignored,
    say,
)
from stpm.runtime.store import local, on_disk

if TYPE_CHECKING:
    from stpm.train.methods import Config, TeacherSource
    from stpm.train.options import FitOptions


class Device(StrEnum):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """What the student's convolutions compute in during training."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


DEFAULT_SIZE = "256"
TILE_STEP = 32
"""Pixels of the coarsest cells of all methods."""


def train(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Root of MVTec AD, VisA, CIFAR-10, MNIST, ShanghaiTech or a set laid out like one."
        ),
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Category of --data, the normal class.")
    ] = None,
    good: Annotated[
        Path | None, typer.Option(help="Any folder of good images, or s3://..., instead of --data.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write.", show_default="CATEGORY.pt")
    ] = None,
    method: Annotated[str, typer.Option(help="stpm, rd, stad or spade.")] = "stpm",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Schedule: fast, or paper (as published); stad and spade have only paper.",
            show_default="fast",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of the method, such as patch-sizes=17,33,65; may be repeated.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Architecture of teacher and student.", show_default="resnet18"),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(help="Pyramid levels to match.", show_default="layer1,layer2,layer3"),
    ] = None,
    share_to: Annotated[
        str | None,
        typer.Option(
            help="conv1, layer1 or layer2: the student starts from the teacher's features there, "
            "which saves its own first layers; levels up to there are not matched.",
            show_default="a whole student",
        ),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            help="Input size of the networks, HxW or one number for both.", show_default="256"
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=64,
            help="Train on square tiles with this side in pixels, at full resolution, for small "
            "defects in large images; a multiple of 32.",
        ),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(
            help="Teacher weights: .safetensors or .pth with the backbone's key names.",
            show_default="ImageNet, from torchvision's cache or hub",
        ),
    ] = None,
    teacher_images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images on which stad trains its teacher.",
            show_default="the good images",
        ),
    ] = None,
    teacher_folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps stad's teachers for the next category.",
            show_default="stad_teachers",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the images.", show_default="the recipe's"),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images per training step.", show_default="the recipe's"),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=0, help="Of SGD for stpm; of Adam for rd and stad.", show_default="the recipe's"
        ),
    ] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the steps, at the end, over which the learning rate falls to 0.",
            show_default="the recipe's",
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.9, help="Share of the images held out to choose the best epoch."
        ),
    ] = 0.2,
    train_share: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the good images to use.")
    ] = 1.0,
    every: Annotated[
        int, typer.Option(min=1, help="Take every Nth image, for example of a video.")
    ] = 1,
    seed: Annotated[
        int,
        typer.Option(
            min=0, help="Seed of the split, the initial weights and the order of the images."
        ),
    ] = 0,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment",
            help="Randomly shift, rotate, brighten and blur images, for lines whose lighting or "
            "position varies.",
        ),
    ] = False,
    cache_gb: Annotated[
        float, typer.Option(min=0, help="Memory for caching the teacher's features, in 10^9 bytes.")
    ] = 4.0,
    bit_depth: Annotated[
        int,
        typer.Option(min=8, max=16, help="Bits that the camera uses in 16-bit images."),
    ] = 16,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.AUTO,
    precision: Annotated[
        Precision,
        typer.Option(help="Precision of the student; auto takes bf16 if the hardware supports it."),
    ] = Precision.AUTO,
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Use torch.compile.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out files that cannot be decoded.")
    ] = False,
    warm_start: Annotated[
        Path | None,
        typer.Option("--from", help="Checkpoint of a similar product to start from."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint of an earlier run.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")
    ] = False,
    _version: Version = False,
) -> None:
    """Train a method on images of good parts."""
    name = _source_name(data, category, good)
    checkpoint = out or Path(f"{name}.pt")
    _check_out(checkpoint, resume, overwrite)
    if resume and warm_start:
        raise typer.BadParameter("--resume and --from exclude each other.")

    from stpm.train.methods import TeacherSource, configure, open_method, recipe_of

    own = _settings(settings or []) | {
        name: value
        for name, value in (("backbone", backbone), ("levels", levels), ("share_to", share_to))
        if value is not None
    }
    if tile is not None and (input_size is not None or tile % TILE_STEP):
        raise typer.BadParameter(
            f"got --tile {tile}, expected a multiple of {TILE_STEP} without --input-size."
        )
    size = (tile, tile) if tile is not None else parse_size(input_size or DEFAULT_SIZE)
    if max(size) > MAX_SIDE:
        raise typer.BadParameter(f"got --input-size {input_size}, expected up to {MAX_SIDE}.")
    refuse_ignored(context, open_method(method).ignores, f"--method {method}")
    config = configure(method, size, own)
    given: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "cooldown": cooldown,
    }
    options = replace(
        recipe_of(method, recipe),
        **{name: value for name, value in given.items() if value is not None},
        held_out=held_out,
        train_share=train_share,
        seed=seed,
        augment=augment,
        tile=tile or 0,
        cache_gb=cache_gb,
        bit_depth=bit_depth,
        device=device.value,
        precision=precision.value,
        compile=compile_,
    )
    teacher_images = teacher_images and local(teacher_images)
    teacher = TeacherSource(teacher_weights, teacher_images, teacher_folder)
    folder, images = _good_images(data, category, good)
    _run(
        *(folder, images[::every], checkpoint, config, options, teacher),
        skip_bad=skip_bad,
        resume=resume,
        warm_start=warm_start,
    )


def _settings(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if not all(pair.partition("=")[::2]):
            raise typer.BadParameter(f"got --set {pair!r}, expected NAME=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


def _source_name(data: Path | None, category: str | None, good: Path | None) -> str:
    if good is not None and data is None and category is None:
        # A link is named as its user named it.
        return good.name if good.name not in ("", "..") else good.resolve().name
    if good is None and data is not None and category is not None:
        return category
    raise typer.BadParameter("give either --good DIR, or --data ROOT with --category NAME.")


def _good_images(
    data: Path | None, category: str | None, good: Path | None
) -> tuple[Path, list[Path]]:
    from stpm.train.datasets import list_images, open_category

    if data is not None and category is not None:
        found = open_category(local(data), category)
        return found.folder, found.good_images()
    assert good is not None, "one of the two sources was given"
    folder = local(good)
    return folder, list_images(folder)


def _check_out(checkpoint: Path, resume: bool, overwrite: bool) -> None:
    on_disk(checkpoint)
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other.")
    if resume and not checkpoint.is_file():
        raise StpmError(f"{checkpoint}: nothing to resume; leave --resume out to start.")
    if checkpoint.is_dir():
        raise StpmError(f"{checkpoint}: is a folder; name a file with --out.")
    if checkpoint.exists() and not (resume or overwrite):
        raise StpmError(
            f"{checkpoint}: already exists; continue it with --resume, replace it with "
            "--overwrite, or choose another name with --out."
        )
    if not checkpoint.parent.is_dir():
        raise StpmError(f"{checkpoint.parent}: there is no such folder; create it first.")


def _run(
    folder: Path,
    images: list[Path],
    checkpoint: Path,
    config: Config,
    options: FitOptions,
    teacher: TeacherSource,
    *,
    skip_bad: bool,
    resume: bool,
    warm_start: Path | None,
) -> None:
    from stpm.train import pipeline
    from stpm.train.progress import TrainingProgress

    def on_bad(error: DataError) -> None:
        if not skip_bad:
            raise DataError(f"{error} Or leave such files out with --skip-bad.") from error
        note(f"left out: {error}")

    source = pipeline.read_source(folder, config, options, on_bad, images=images)
    counts = f"{len(source.train_index)} images to train, {len(source.held_out_index)} held out"
    note(f"{folder}: {counts}")
    fit, blank = pipeline.open_run(
        source,
        config,
        options,
        teacher_weights=teacher.weights,
        teacher_images=teacher.images,
        teacher_folder=teacher.folder,
        resume=checkpoint if resume else None,
        warm_start=warm_start,
        progress=progress,
    )
    note(
        f"{config.method}, teacher: {blank.teacher_id['source']} weights "
        f"{blank.teacher_id['sha256'][:12]}; training on {fit.device} in {fit.dtype}"
    )
    with TrainingProgress(fit) as bar:
        bar.cache_teacher()
        try:
            run = pipeline.train(fit, blank, checkpoint, bar.on_step)
            with _sigterm_as_interrupt(), closing(run) as epochs:
                for record in epochs:
                    bar.on_epoch(record)
        except KeyboardInterrupt as interruption:
            note(
                f"interrupted after epoch {fit.written_epoch}; "
                + (
                    f"{checkpoint} is usable, continue it with --resume"
                    if fit.written_epoch
                    else "nothing is written yet"
                )
            )
            number = next(iter(interruption.args), signal.SIGINT)
            raise typer.Exit(128 + number) from None
    note(f"best epoch {fit.best_epoch} of {fit.epoch}, held-out map {fit.best_held_out:.3e}")
    say(checkpoint)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, end the run as Ctrl-C does."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


main = command(train)
