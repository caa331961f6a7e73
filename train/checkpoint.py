"""Checkpoints: a plain dictionary in one file, enough to export, written atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from stpm.runtime.errors import CheckpointError
from stpm.runtime.images.preprocess import FULL_DEPTH
from stpm.runtime.partial import partial_path
from stpm.train.adopt import adopt, load_inert
from stpm.train.backbones import StateDict, first_line, state_hash
from stpm.train.methods import Config, Network, config_from_dict, open_method

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """What `NAME.pt` holds.

    Attributes:
        config: the network.
        student: what training made, at the best epoch: the student's weights.
        teacher: the teacher's weights.
        teacher_id: `source` and `sha256` of the teacher's weights.
        training: a record of the data, the split, the options and the outcome; `held_out` names
            the image files that were not trained on, for calibration. Empty for adopted students.
        resume: what continuing needs beyond that (last student, optimiser, position); may be empty.
    """

    config: Config
    student: StateDict
    teacher: StateDict
    teacher_id: dict[str, str]
    training: dict[str, Any] = field(default_factory=dict)
    resume: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Network:
        """Build the network with these weights, in evaluation mode."""
        network = open_method(self.config.method).network(self.config, self.teacher, self.student)
        return network.requires_grad_(False).eval()

    @property
    def bit_depth(self) -> int:
        """Bits that the camera used of the 16 of deep images."""
        return int(self.training.get("options", {}).get("bit_depth", FULL_DEPTH))

    @property
    def tile(self) -> int:
        """Side in pixels of the tiles that it was trained on; 0 for whole images, resized."""
        return int(self.training.get("options", {}).get("tile", 0))

    def held_out_images(self) -> list[Path]:
        """Return the paths of the images that were held out in training; empty if unknown."""
        return self._images("held_out")

    def train_images(self) -> list[Path]:
        """Return the paths of the images that were trained on; empty if unknown."""
        return self._images("train")

    def _images(self, part: str) -> list[Path]:
        folder = Path(self.training.get("folder", "."))
        return [folder / name for name in self.training.get(part, [])]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; the file is either the old one or the whole new one at any time."""
    content = {"format_version": FORMAT_VERSION} | vars(checkpoint)
    content["config"] = checkpoint.config.to_dict()
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(
    path: Path,
    teacher_weights: Path | None = None,
    input_size: tuple[int, int] | None = None,
) -> Checkpoint:
    """Read a checkpoint of ours or of another program; see `stpm.train.adopt`.

    Nothing is unpickled but tensors and plain values.

    Args:
        path: `NAME.pt`, the authors' `best.pth.tar`, a Lightning `.ckpt` or a port's file.
        teacher_weights: for files of others that lack the teacher; None takes ImageNet's.
        input_size: (height, width) in pixels, for files of others that do not say it.

    Raises:
        CheckpointError: the file is missing, malformed, of an unknown version, holds weights that
            are not finite, or its teacher differs from the one it was trained with.
    """
    if path.is_dir():
        raise CheckpointError(
            f"{path}: is a folder, expected a file of stpm-train such as bottle.pt; a bundle "
            "NAME.stpm is what stpm-export makes of one."
        )
    try:
        content, is_plain = _read(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint; check the path.") from None
    except Exception as error:
        # Truncated files, foreign pickles and non-archives each raise something else in torch.
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({first_line(error)}); expected one from "
            "stpm-train, the authors' code, anomalib's Stfpm or a port."
        ) from error
    if isinstance(content, Mapping) and "format_version" in content:
        if not is_plain:
            raise CheckpointError(
                f"{path}: not a readable checkpoint (it contains more than tensors and plain "
                "values); expected one written by stpm-train."
            )
        checkpoint = _own(path, dict(content))
        if input_size is not None and input_size != checkpoint.config.input_size:
            height, width = checkpoint.config.input_size
            raise CheckpointError(
                f"{path}: was trained on images of {height}x{width} pixels, got --input-size "
                f"{input_size[0]}x{input_size[1]}; leave --input-size out."
            )
    else:
        found = content if isinstance(content, Mapping) else {}
        adopted = adopt(path, found, teacher_weights, input_size)
        checkpoint = Checkpoint(**vars(adopted))
    _check_finite(path, checkpoint)
    return checkpoint


def _read(path: Path) -> tuple[Any, bool]:
    """Read a file, and say whether it is made of tensors and plain values alone."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True), True
    except UnpicklingError:
        return load_inert(path), False


def _check_finite(path: Path, checkpoint: Checkpoint) -> None:
    for part, state in (("student", checkpoint.student), ("teacher", checkpoint.teacher)):
        for name, value in state.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise CheckpointError(
                    f"{path}: the {part}'s {name} contains values that are not finite, "
                    "expected numbers; the training has diverged, train again with a lower "
                    "--learning-rate."
                )


def _own(path: Path, content: dict[str, Any]) -> Checkpoint:
    version = content.pop("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: got checkpoint format {version}, expected {FORMAT_VERSION}; use the stpm "
            "version that wrote it, or train again."
        )
    try:
        content["config"] = config_from_dict(content["config"])
        checkpoint = Checkpoint(**content)
        unaltered = state_hash(checkpoint.teacher) == checkpoint.teacher_id["sha256"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{path}: malformed checkpoint ({error}); train again.") from error
    if not unaltered:
        raise CheckpointError(f"{path}: the teacher's weights differ from their hash; train again.")
    return checkpoint
