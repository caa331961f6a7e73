"""Checkpoints: a plain dictionary in one file, enough to export, written atomically."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from stpm.runtime.errors import CheckpointError
from stpm.train.backbones import (
    StateDict,
    first_line,
    load_state,
    load_teacher,
    pyramid,
    state_hash,
)
from stpm.train.methods import Config, Network, config_from_dict, open_method
from stpm.train.stpm import ModelConfig

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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path, teacher_weights: Path | None = None) -> Checkpoint:
    """Read a checkpoint of ours, of the STPM authors' code or of anomalib's `Stfpm`.

    Nothing is unpickled but tensors and plain values.

    Args:
        path: `NAME.pt`, the authors' `best.pth.tar` or a Lightning `.ckpt`.
        teacher_weights: for the authors' files, which lack the teacher; None takes ImageNet's.

    Raises:
        CheckpointError: the file is missing, malformed, of an unknown version, or its teacher
            differs from the one it was trained with.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint; check the path.") from None
    except Exception as error:
        # Truncated files, foreign pickles and non-archives each raise something else in torch.
        # An UnpicklingError's message asks to disable the protection.
        unsafe = isinstance(error, UnpicklingError)
        reason = "it is not made of tensors and plain values" if unsafe else first_line(error)
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({reason}); expected one of "
            "stpm-train, of the authors' code or of anomalib's Stfpm."
        ) from error
    if isinstance(content, dict) and "format_version" in content:
        return _own(path, content)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: holds neither a format_version nor a state_dict; expected a checkpoint of "
            "stpm-train, of the authors' code or of anomalib's Stfpm."
        )
    state = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if "model.0.weight" in state:
        return _from_authors(path, state, teacher_weights)
    if any(key.startswith(_ANOMALIB_STUDENT) for key in state):
        return _from_anomalib(path, state, content.get("hyper_parameters") or {})
    raise CheckpointError(
        f"{path}: got a state_dict of another model (first key: {next(iter(state), 'none')}); "
        "expected an STPM student of the authors' code or of anomalib's Stfpm."
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


_AUTHORS_LAYERS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}
_ANOMALIB_STUDENT = "model.student_model.feature_extractor."
_ANOMALIB_TEACHER = "model.teacher_model.feature_extractor."


def _from_authors(path: Path, state: StateDict, teacher_weights: Path | None) -> Checkpoint:
    """Adopt a student of github.com/gdwang08/STPM; its `model.7` is an unused layer4."""
    student = {}
    for key, value in state.items():
        layer, _, rest = key.removeprefix("model.").partition(".")
        if layer in _AUTHORS_LAYERS:
            student[f"{_AUTHORS_LAYERS[layer]}.{rest}"] = value
    config = ModelConfig()
    teacher, teacher_id = load_teacher(config.backbone, config.levels, teacher_weights)
    return _adopted(path, config, student, dict(teacher.state_dict()), teacher_id)


def _from_anomalib(path: Path, state: StateDict, hyper_parameters: dict[str, Any]) -> Checkpoint:
    config = ModelConfig(
        backbone=str(hyper_parameters.get("backbone", ModelConfig.backbone)),
        levels=tuple(hyper_parameters.get("layers", ModelConfig.levels)),
    )

    def part(prefix: str) -> StateDict:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    teacher = pyramid(config.backbone, config.levels)
    load_state(teacher, part(_ANOMALIB_TEACHER), f"{path} (teacher)")
    weights = dict(teacher.state_dict())
    teacher_id = {"source": path.name, "sha256": state_hash(weights)}
    return _adopted(path, config, part(_ANOMALIB_STUDENT), weights, teacher_id)


def _adopted(
    path: Path,
    config: ModelConfig,
    student: StateDict,
    teacher: StateDict,
    teacher_id: dict[str, str],
) -> Checkpoint:
    checked = pyramid(config.backbone, config.levels)
    load_state(checked, student, f"{path} (student)")
    return Checkpoint(config, dict(checked.state_dict()), teacher, teacher_id)
