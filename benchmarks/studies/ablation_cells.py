"""The settings that the paper's ablations compare, and its figures for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from stpm.benchmarks.records.paper import tables
from stpm.runtime.errors import DataError

LEVELS = ("layer1", "layer2", "layer3")
IMAGENET = "ImageNet"
RANDOM = "random"
BACKBONES = {
    "ResNet-18": "resnet18",
    "ResNet-34": "resnet34",
    "ResNet-50": "resnet50",
    "WideResNet50x2": "wide_resnet50_2",
    "SqueezeNet": "squeezenet1_1",
    "DenseNet": "densenet121",
}
"""Ours by the paper's names."""
SHARES = {"5%": 0.05, "10%": 0.1, "100%": 1.0}
PAPER_METRICS = {"AR_I": "image_auroc", "AR_P": "pixel_auroc", "PRO": "aupro"}


class Axis(StrEnum):
    """What an ablation varies."""

    LEVELS = "levels"
    BACKBONE = "backbone"
    TEACHER = "teacher"
    TRAINING_SHARE = "training-share"


@dataclass(frozen=True)
class Cell:
    """One setting of an axis, under the name that the paper's table gives it."""

    name: str
    backbone: str = "resnet18"
    levels: tuple[str, ...] = LEVELS
    train_share: float = 1.0
    teacher_weights: Path | None = None


def cells(axis: Axis, teacher_weights: Mapping[str, Path], default: Path | None) -> list[Cell]:
    """List the cells of the paper's table, and for the teachers those that have weights.

    Args:
        axis: what to vary.
        teacher_weights: files by the name of a cell; on the axis `teacher` the names are free.
        default: weights for every cell that has none of its own; None takes ImageNet's.

    Raises:
        DataError: a name is not one of the cells.
    """
    if axis is Axis.LEVELS:
        names = tables()["stpm"]["ablation_levels"]["levels"]
        found = [
            Cell(name, levels=tuple(f"layer{int(group) - 1}" for group in name.split(",")))
            for name in names
        ]
    elif axis is Axis.BACKBONE:
        found = [Cell(name, backbone=backbone) for name, backbone in BACKBONES.items()]
    elif axis is Axis.TEACHER:
        found = [Cell(name) for name in dict.fromkeys([IMAGENET, *teacher_weights, RANDOM])]
    else:
        found = [Cell(name, train_share=share) for name, share in SHARES.items()]
    check_names(teacher_weights, [cell.name for cell in found], "--teacher-weights")
    return [
        Cell(c.name, c.backbone, c.levels, c.train_share, teacher_weights.get(c.name, default))
        for c in found
    ]


def check_names(given: Iterable[str], known: Sequence[str], flag: str) -> None:
    """Refuse names that are not of a cell.

    Raises:
        DataError: naming the first.
    """
    for name in given:
        if name not in known:
            raise DataError(
                f"got the cell {name!r}, expected one of {' '.join(known)}; change {flag}."
            )


def paper_figures(axis: Axis) -> dict[str, dict[str, float]]:
    """Return the paper's means over MVTec AD by cell and by the names of our metrics."""
    content = tables()["stpm"]
    table, names = {
        Axis.LEVELS: ("ablation_levels", "levels"),
        Axis.BACKBONE: ("ablation_backbone", "backbone"),
        Axis.TEACHER: ("ablation_teacher_pretraining", "dataset"),
        Axis.TRAINING_SHARE: ("ablation_training_share", "share"),
    }[axis]
    columns = zip(
        content[table][names], *(content[table][key] for key in PAPER_METRICS), strict=True
    )
    figures = {
        name.removesuffix(" STPM"): dict(zip(PAPER_METRICS.values(), values, strict=True))
        for name, *values in columns
    }
    if axis is Axis.TRAINING_SHARE:
        figures["100%"] = paper_figures(Axis.LEVELS)["2,3,4"]
    return figures
