"""`stpm-export`: from a checkpoint to a verified, calibrated bundle."""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpm.runtime.backends import ENGINES, installed_engines
from stpm.runtime.bundle.archive import MANIFEST, MAX_BATCH, MAX_SIDE
from stpm.runtime.bundle.scoring import MAX_AREA
from stpm.runtime.capabilities import processor_precisions
from stpm.runtime.errors import ExportError
from stpm.runtime.output.console import Version, command, note, parse_size, refuse_ignored, say
from stpm.runtime.site.align import LIMIT
from stpm.runtime.store import local, on_disk

if TYPE_CHECKING:
    from stpm.train.checkpoint import Checkpoint


TENSORRT_FLAGS = ("--best-batch", "--optimization-level", "--workspace-mb")


class Precision(StrEnum):
    """What teacher and student compute in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    AUTO = "auto"


def export(
    context: typer.Context,
    ckpt: Annotated[
        Path, typer.Option(help="Checkpoint from stpm-train, the STPM authors' code or anomalib.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Bundle to write.", show_default="NAME.stpm")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Of teacher and student; auto takes the fastest that passes all checks."),
    ] = Precision.FP32,
    fp16: Annotated[bool, typer.Option("--fp16", help="Teacher and student in FP16.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Teacher and student in bfloat16.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Convolutions in INT8; refused if it costs accuracy.")
    ] = False,
    score: Annotated[
        str | None,
        typer.Option(
            help="Image score: max of the map, or topP%, the mean of its highest P percent.",
            show_default="the checkpoint's score; max if it has none",
        ),
    ] = None,
    camera_size: Annotated[
        str | None,
        typer.Option(help="Size of the camera's images, HxW, to resize inside the graph."),
    ] = None,
    tile: Annotated[
        int,
        typer.Option(
            min=0,
            help="Side of the tiles that cover a large image at full resolution; for students of "
            "stpm-train --tile. Larger tiles overlap less and need more memory.",
            show_default=False,
        ),
    ] = 0,
    grey: Annotated[
        bool,
        typer.Option(
            "--grey", help="For grey cameras: a graph of one plane instead of three equal ones."
        ),
    ] = False,
    batch: Annotated[
        str, typer.Option(help="Images per run: N, or MIN..MAX for any number in between.")
    ] = "1",
    verify: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images to compare with FP32 torch.",
            show_default="the images held out in training",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Folder of good images, not used in training, to set the thresholds.",
            show_default="the images held out in training",
        ),
    ] = None,
    quantize: Annotated[
        Path | None,
        typer.Option(
            help="Folder of good images to quantise on, for --int8.",
            show_default="the training images",
        ),
    ] = None,
    distil: Annotated[
        int,
        typer.Option(
            min=0, help="Epochs for fine-tuning the INT8 student against the INT8 teacher."
        ),
    ] = 0,
    data: Annotated[
        Path | None,
        typer.Option(help="Root of a labelled data set, to check the accuracy of --int8."),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(
            help="Category of --data.",
            show_default="the one that the checkpoint's name begins with",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that may be rejected.",
            show_default="0.01, or the smallest that the images support",
        ),
    ] = None,
    roi: Annotated[
        list[str] | None,
        typer.Option(
            help="Region of interest, [NAME=]FILE: a mask of the images' size, black outside, or "
            "polygons in JSON. May be repeated.",
            show_default="the whole image",
        ),
    ] = None,
    ignore: Annotated[
        list[Path] | None,
        typer.Option(help="Region to ignore, a file as for --roi. May be repeated."),
    ] = None,
    align: Annotated[
        Path | None,
        typer.Option(
            help="Image of a good part: parts that lie shifted and turned are brought to it first."
        ),
    ] = None,
    align_limit: Annotated[
        str | None,
        typer.Option(
            help="How far a part may lie from --align: SHIFT,DEGREES, the shift in % of the "
            "longer side or in pixels.",
            show_default=LIMIT,
        ),
    ] = None,
    min_area: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_AREA,
            help="Smallest defect that counts, in pixels of the image; 0 for any.",
        ),
    ] = 0,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="Engine to verify; may be repeated. tensorrt-rtx can be built without a GPU.",
            show_default="all that can run here",
        ),
    ] = None,
    gpu_arch: Annotated[
        str | None,
        typer.Option(
            help="GPUs to build tensorrt-rtx for, such as sm86,sm89,sm120.",
            show_default="the library's portable set",
        ),
    ] = None,
    best_batch: Annotated[
        int | None, typer.Option(min=1, help="Batch to tune TensorRT for.", show_default="MAX")
    ] = None,
    workspace_mb: Annotated[
        int, typer.Option(min=1, help="GPU memory that TensorRT may use for a layer while it runs.")
    ] = 1024,
    optimization_level: Annotated[
        int,
        typer.Option(
            min=0, max=5, help="TensorRT's builder optimisation level; 5 searches longest."
        ),
    ] = 3,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(help="Teacher weights, for foreign checkpoints that lack the teacher."),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            help="Input size of the network, HxW, for foreign checkpoints that do not record it.",
            show_default="256x256 if not recorded",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing bundle.")
    ] = False,
    _version: Version = False,
) -> None:
    """Export a checkpoint, verify every engine against it, and set the thresholds."""
    chosen = _precision(precision, fp16=fp16, bf16=bf16, int8=int8)
    may_quantize = chosen in (Precision.INT8, Precision.AUTO)
    if not may_quantize and (quantize or distil or data or category):
        raise typer.BadParameter(
            "--quantize, --distil, --data and --category apply only to INT8; add --int8 or "
            "--precision auto."
        )
    if may_quantize and align is not None:
        raise typer.BadParameter(
            "--align is not for INT8, whose gate compares whole images; export, then align with "
            "stpm-calibrate --align."
        )
    if align_limit is not None and align is None:
        raise typer.BadParameter("--align-limit goes with --align.")
    size = parse_size(camera_size) if camera_size else None
    if size is not None and max(size) > MAX_SIDE:
        raise typer.BadParameter(f"got --camera-size {camera_size}, expected up to {MAX_SIDE}.")
    limits = parse_batch(batch)
    archs = parse_gpu_archs(gpu_arch)
    if archs and "tensorrt-rtx" not in (engine or ()):
        raise typer.BadParameter("--gpu-arch applies only to --engine tensorrt-rtx; leave it out.")
    if not any(name in ("tensorrt", "tensorrt-rtx") for name in engine or installed_engines()):
        refuse_ignored(context, TENSORRT_FLAGS, "an export without TensorRT")
    if best_batch is not None and not limits[0] <= best_batch <= limits[1]:
        raise typer.BadParameter(f"got --best-batch {best_batch}, expected a value within --batch.")
    if chosen is not Precision.AUTO:
        _note_imitation(chosen, engine)
    bundle = out or Path(ckpt.name.split(".")[0] + ".stpm")
    on_disk(bundle)
    if bundle != ckpt:  # what is given in place of a checkpoint is refused by its reader
        _check_out(bundle, overwrite)

    from stpm.export.auto import export_fastest
    from stpm.export.options import ExportOptions
    from stpm.export.pipeline import export_bundle
    from stpm.runtime.backends.tensorrt.build import BuildOptions
    from stpm.train.checkpoint import load_checkpoint
    from stpm.train.datasets import find_category, list_images, open_category
    from stpm.train.methods import with_score

    checkpoint = load_checkpoint(
        ckpt, teacher_weights, parse_size(input_size) if input_size else None
    )
    if score is not None:
        checkpoint = replace(checkpoint, config=with_score(checkpoint.config, score))
    options = ExportOptions(
        precision=chosen.value,
        distil=distil,
        camera_size=size,
        tile=tile,
        grey=grey,
        batch=limits,
        false_alarm_rate=false_alarm_rate,
        engines=tuple(engine) if engine else None,
        rois=tuple(roi or ()),
        ignored=tuple(ignore or ()),
        min_area=min_area,
        align=align and local(align),
        align_limit=align_limit or LIMIT,
        build=BuildOptions(workspace_mb, optimization_level, best_batch, archs),
    )
    verify, calibrate, quantize, data = (
        folder and local(folder) for folder in (verify, calibrate, quantize, data)
    )
    calibration = _folder_or(calibrate, checkpoint.held_out_images(), "--calibrate")
    for flag, folder in (("--verify", verify), ("--calibrate", calibrate)):
        if folder is not None:
            _check_not_trained_on(checkpoint, list_images(folder), flag)
    trained_on = (
        _folder_or(quantize, checkpoint.train_images(), "--quantize") if may_quantize else []
    )
    samples = (
        open_category(data, category or find_category(ckpt, data)).test_samples() if data else []
    )
    build = export_fastest if chosen is Precision.AUTO else export_bundle
    build(
        checkpoint,
        bundle,
        options,
        verify=list_images(verify) if verify else calibration,
        calibration=calibration,
        quantization=trained_on,
        samples=samples,
        report=note,
    )
    say(bundle)


def _note_imitation(precision: str, engines: list[str] | None) -> None:
    """Say it where the processor, if that is to run the bundle, only imitates a precision."""
    native = processor_precisions()
    for_gpu = engines and all(name in ENGINES and ENGINES[name].needs_gpu for name in engines)
    if native is None or precision in native or for_gpu:
        return
    note(
        f"this processor has no {precision.upper()} arithmetic and emulates it, more slowly "
        f"than it computes in {' or '.join(native)}; stpm-run --engines shows which "
        "precisions run fast here"
    )


def parse_batch(text: str) -> tuple[int, int]:
    """Read "N" or "MIN..MAX" as (smallest, largest).

    Raises:
        typer.BadParameter: anything else.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})(?:\.\.([1-9]\d{0,3}))?", text)
    limits = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < limits[0] <= limits[1] <= MAX_BATCH:
        raise typer.BadParameter(
            f"got --batch {text!r}, expected N, or MIN..MAX such as 1..16, up to {MAX_BATCH}."
        )
    return limits


def parse_gpu_archs(text: str | None) -> tuple[str, ...]:
    """Read "sm86,sm89" as names of architectures; nothing is none.

    Raises:
        typer.BadParameter: anything else.
    """
    names = tuple(text.lower().split(",")) if text is not None else ()
    if not all(re.fullmatch(r"sm\d{2,3}", name) for name in names):
        raise typer.BadParameter(
            f"got --gpu-arch {text!r}, expected a list such as sm86,sm89,sm120."
        )
    return names


def _check_out(bundle: Path, overwrite: bool) -> None:
    if bundle.exists() and not overwrite:
        raise ExportError(
            f"{bundle}: already exists; replace it with --overwrite, or choose another name "
            "with --out."
        )
    if bundle.exists() and not (bundle / MANIFEST).is_file():
        raise ExportError(
            f"{bundle}: is not a bundle, so it is not replaced; choose another name with --out."
        )
    if not bundle.absolute().parent.is_dir():
        raise ExportError(f"{bundle.parent}: there is no such folder; create it first.")


def _folder_or(folder: Path | None, recorded: list[Path], flag: str) -> list[Path]:
    """List a folder's images, or take those that the checkpoint recorded, if they are there."""
    from stpm.train.datasets import image_exists, list_images

    if folder is not None:
        return list_images(folder)
    missing = [path for path in recorded if not image_exists(path)]
    if missing:
        raise ExportError(
            f"{missing[0]}: this image, recorded in training, no longer exists "
            f"({len(missing)} of {len(recorded)} are missing); restore it, or name a folder "
            f"of good images with {flag} DIR."
        )
    return recorded


def _check_not_trained_on(checkpoint: Checkpoint, paths: list[Path], flag: str) -> None:
    """Say it, or refuse, where images that set thresholds were trained on: they score too low."""
    from stpm.train.datasets import data_hash, read_images

    trained_on = set(checkpoint.training.get("train_sha256", ()))
    if not trained_on:
        return
    _, images = read_images(paths, checkpoint.config.input_size, bit_depth=checkpoint.bit_depth)
    count = sum(data_hash(image) in trained_on for image in images)
    if count == len(paths):
        raise ExportError(
            f"all {count} images of {flag} were used in training, expected others, because "
            "images that the student has seen score too low; name a folder of other good "
            "images."
        )
    if count:
        note(
            f"{count} of the {len(paths)} images of {flag} were used in training and score "
            "too low; leave them out"
        )


def _precision(precision: Precision, **chosen: bool) -> Precision:
    names = [name for name, is_chosen in chosen.items() if is_chosen]
    flags = [f"--{name}" for name in names]
    if precision is not Precision.FP32:
        flags.append(f"--precision {precision}")
    if len(flags) > 1:
        raise typer.BadParameter(f"{' and '.join(flags)} exclude each other.")
    return Precision(names[0]) if names else precision


main = command(export)
