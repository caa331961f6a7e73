"""`stpm-train`: from a folder of good images to a checkpoint."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpm.runtime.console import command, note, parse_size
from stpm.runtime.errors import DataError, StpmError

if TYPE_CHECKING:
    from stpm.train.fit import FitOptions
    from stpm.train.stpm import ModelConfig


class Device(StrEnum):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Of the student's convolutions in training."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


def train(
    data: Annotated[
        Path | None,
        typer.Option(help="Root of MVTec AD, VisA, CIFAR-10, ShanghaiTech or one laid out alike."),
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Category of --data, the normal class.")
    ] = None,
    good: Annotated[
        Path | None, typer.Option(help="Any folder of good images, instead of --data.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write.", show_default="CATEGORY.pt")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Architecture of teacher and student.")
    ] = "resnet18",
    levels: Annotated[str, typer.Option(help="Pyramid levels to match.")] = "layer1,layer2,layer3",
    input_size: Annotated[
        str, typer.Option(help="Pixels that the networks see, HxW or one number for both.")
    ] = "256",
    teacher_weights: Annotated[
        Path | None,
        typer.Option(
            help=".safetensors or .pth with the backbone's key names.",
            show_default="ImageNet, from torchvision's cache or hub",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of SGD, constant.")] = 0.4,
    held_out: Annotated[
        float,
        typer.Option(min=0.01, max=0.9, help="Share of the images that choose the best epoch."),
    ] = 0.2,
    train_share: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the good images to use at all.")
    ] = 1.0,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth image, as of a video.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of split, initial weights and order.")] = 0,
    cache_gb: Annotated[
        float, typer.Option(min=0, help="Memory for the teacher's features, 10^9 bytes.")
    ] = 4.0,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.AUTO,
    precision: Annotated[
        Precision, typer.Option(help="Of the student; auto is bf16 where the hardware has it.")
    ] = Precision.AUTO,
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Run through torch.compile.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out files that cannot be decoded.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the checkpoint that an earlier run left.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")
    ] = False,
) -> None:
    """Train a student on images of good parts."""
    name = _source_name(data, category, good)
    checkpoint = out or Path(f"{name}.pt")
    _check_out(checkpoint, resume, overwrite)

    from stpm.train.fit import FitOptions
    from stpm.train.stpm import ModelConfig

    config = ModelConfig(backbone, tuple(levels.split(",")), parse_size(input_size))
    options = FitOptions(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        held_out=held_out,
        train_share=train_share,
        seed=seed,
        cache_gb=cache_gb,
        device=device.value,
        precision=precision.value,
        compile=compile_,
    )
    folder, images = _good_images(data, category, good)
    _run(folder, images[::every], checkpoint, config, options, teacher_weights, skip_bad, resume)


def _source_name(data: Path | None, category: str | None, good: Path | None) -> str:
    if good is not None and data is None and category is None:
        return good.resolve().name
    if good is None and data is not None and category is not None:
        return category
    raise typer.BadParameter("give either --good DIR, or --data ROOT with --category NAME.")


def _good_images(
    data: Path | None, category: str | None, good: Path | None
) -> tuple[Path, list[Path]]:
    from stpm.train.datasets import list_images, open_category

    if data is not None and category is not None:
        found = open_category(data, category)
        return found.folder, found.good_images()
    assert good is not None, "one of the two sources was given"
    return good, list_images(good)


def _check_out(checkpoint: Path, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other.")
    if resume and not checkpoint.is_file():
        raise StpmError(f"{checkpoint}: nothing to resume; leave --resume out to start.")
    if checkpoint.is_dir():
        raise StpmError(f"{checkpoint}: is a folder; name a file with --out.")
    if checkpoint.exists() and not (resume or overwrite):
        raise StpmError(
            f"{checkpoint}: exists already; continue it with --resume, replace it with "
            "--overwrite, or name another with --out."
        )
    if not checkpoint.parent.is_dir():
        raise StpmError(f"{checkpoint.parent}: there is no such folder; create it first.")


def _run(
    folder: Path,
    images: list[Path],
    checkpoint: Path,
    config: ModelConfig,
    options: FitOptions,
    teacher_weights: Path | None,
    skip_bad: bool,
    resume: bool,
) -> None:
    from stpm.train import pipeline
    from stpm.train.progress import TrainingProgress

    def report_bad(error: DataError) -> None:
        note(f"left out: {error}")

    source = pipeline.read_source(
        folder, config, options, report_bad if skip_bad else None, images=images
    )
    counts = f"{len(source.train_index)} images to train, {len(source.held_out_index)} held out"
    note(f"{folder}: {counts}")
    fit, blank = pipeline.prepare(
        source,
        config,
        options,
        teacher_weights=teacher_weights,
        resume=checkpoint if resume else None,
    )
    note(
        f"teacher: {config.backbone}, {blank.teacher_id['source']} weights "
        f"{blank.teacher_id['sha256'][:12]}; training on {fit.device} in {fit.dtype}"
    )
    written = fit.epoch
    with TrainingProgress(fit) as progress:
        progress.cache_teacher()
        try:
            for record in pipeline.train(fit, blank, checkpoint, progress.on_step):
                written = record.epoch
                progress.on_epoch(record)
        except KeyboardInterrupt:
            note(
                f"interrupted after epoch {written}; "
                + (
                    f"{checkpoint} is usable, continue it with --resume"
                    if written
                    else "nothing is written yet"
                )
            )
            raise typer.Exit(130) from None
    note(f"best epoch {fit.best_epoch} of {fit.epoch}, held-out map {fit.best_held_out:.3e}")
    typer.echo(checkpoint)


main = command(train)
