"""Students of other programs: their weights, and how their images were prepared.

docs/checkpoints.md says which files are read and what is taken from each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stpm.runtime.errors import CheckpointError
from stpm.runtime.output.console import note
from stpm.train.adopt.inert import load_inert
from stpm.train.adopt.recipe import Recipe, plain, recipe_of
from stpm.train.backbones import StateDict, load_state, load_teacher, pyramid, state_hash
from stpm.train.methods.stpm.network import ModelConfig

__all__ = ["Adopted", "adopt", "load_inert"]

WRAPPERS = frozenset({"module", "_orig_mod"})
"""What torch's DataParallel and torch.compile put into the names of weights."""
PAIRS = (
    ("student_model.feature_extractor.", "teacher_model.feature_extractor."),  # anomalib
    ("student_model.backbone.", "teacher_model.backbone."),
    ("model_s.", "model_t."),  # ports to PyTorch Lightning
    ("student.", "teacher."),
)
"""Beginnings of the names of student and teacher where a file holds both."""
AUTHORS_LAYERS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}
"""github.com/gdwang08/STPM numbers its layers; 7 is an unused layer4."""


@dataclass(frozen=True)
class Adopted:
    """A student of another program with its teacher."""

    config: ModelConfig
    student: StateDict
    teacher: StateDict
    teacher_id: dict[str, str]


def adopt(
    path: Path,
    content: Mapping[str, Any],
    teacher_weights: Path | None,
    input_size: tuple[int, int] | None,
) -> Adopted:
    """Take a student and its recipe from a foreign checkpoint.

    Args:
        path: of the file, for messages.
        content: the file's; see `load_inert`.
        teacher_weights: for files without a teacher; None takes ImageNet's.
        input_size: (height, width), for files without a recipe.

    Raises:
        CheckpointError: it holds no student of STPM, has a recipe of its own beside `input_size`,
            or was trained with steps that are not done here.
    """
    state = _weights(path, content)
    options = plain(content.get("hyper_parameters")) or {}
    recipe = recipe_of(content, str(path))
    config = _config(path, options if isinstance(options, Mapping) else {}, recipe, input_size)
    student, teacher = _split(path, state)
    if teacher:
        built = pyramid(config.backbone, config.levels)
        load_state(built, _known(teacher, built.state_dict()), f"{path} (teacher)")
        teacher = dict(built.state_dict())
        teacher_id = {"source": path.name, "sha256": state_hash(teacher)}
    else:
        loaded, teacher_id = load_teacher(config.backbone, config.levels, teacher_weights)
        teacher = dict(loaded.state_dict())
    checked = pyramid(config.backbone, config.levels)
    load_state(checked, _known(student, checked.state_dict()), f"{path} (student)")
    return Adopted(config, dict(checked.state_dict()), teacher, teacher_id)


def _weights(path: Path, content: Mapping[str, Any]) -> StateDict:
    """Return the tensors by their names without wrappers, from under `state_dict` or plain."""
    found = content.get("state_dict", content.get("model_state_dict", content))
    state = {}
    for key, value in found.items() if isinstance(found, Mapping) else ():
        if isinstance(key, str) and isinstance(value, Tensor):
            parts = [part for part in key.split(".") if part not in WRAPPERS]
            state[".".join(parts[1:] if parts[0] == "model" else parts)] = value.detach()
    if not state:
        raise CheckpointError(
            f"{path}: contains neither a format_version nor a state_dict; expected a "
            "checkpoint from stpm-train, the authors' code, anomalib's Stfpm or a port."
        )
    return state


def _split(path: Path, state: StateDict) -> tuple[StateDict, StateDict]:
    """Return the student's weights and, where the file has them, the teacher's."""
    for names in PAIRS:
        student, teacher = (
            {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
            for name in names
        )
        if student:
            return student, teacher
    if "0.weight" in state:
        layers = {key: key.partition(".")[::2] for key in state}
        return {
            f"{AUTHORS_LAYERS[layer]}.{rest}": state[key]
            for key, (layer, rest) in layers.items()
            if layer in AUTHORS_LAYERS
        }, {}
    if "conv1.weight" in state:
        return state, {}
    raise CheckpointError(
        f"{path}: got a state_dict of another model (first key: {next(iter(state))}); "
        "expected an STPM student from the authors' code, anomalib's Stfpm or a port."
    )


def _config(
    path: Path,
    options: Mapping[str, Any],
    recipe: Recipe,
    input_size: tuple[int, int] | None,
) -> ModelConfig:
    model = options.get("model")
    named = {**options, **model} if isinstance(model, Mapping) else options  # anomalib 0.x
    backbone = str(named.get("backbone", ModelConfig.backbone)).partition(".")[0]  # timm's names
    levels = tuple(map(str, named.get("layers", ModelConfig.levels)))
    if recipe.input_size and input_size is not None:
        height, width = recipe.input_size
        raise CheckpointError(
            f"{path}: was trained on images of {height}x{width} pixels, got --input-size "
            f"{input_size[0]}x{input_size[1]}; leave --input-size out."
        )
    if not recipe.input_size and input_size is None:
        height, width = ModelConfig.input_size
        note(
            f"{path}: does not record image size and normalisation; assuming "
            f"{height}x{width} and ImageNet normalisation, set another size with "
            "--input-size"
        )
    size = recipe.input_size or input_size or ModelConfig.input_size
    return ModelConfig(backbone, levels, size, mean=recipe.mean, std=recipe.std)


def _known(state: StateDict, wanted: StateDict) -> StateDict:
    """Leave out what the pyramid does not have: layers behind the last level, a classifier."""
    return {key: value for key, value in state.items() if key in wanted}
