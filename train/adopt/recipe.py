"""How a student's images were prepared, as the program that trained it wrote it down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stpm.runtime.errors import CheckpointError
from stpm.runtime.output.console import note
from stpm.train.adopt.inert import Inert

FULL_SCALE = 255.0
"""Grey levels of a value of 1 in these recipes."""
HARMLESS = frozenset({"ToImage", "ToDtype", "ToTensor", "ToTensorV2", "Identity", "ToPureTensor"})
"""Steps that change no pixel's meaning."""
UNIT: tuple[tuple[float, ...], tuple[float, ...]] = (0.0,) * 3, (FULL_SCALE,) * 3
"""Mean and deviation that bring grey levels to values from 0 to 1."""
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Recipe:
    """What is known of the preparation; empty where nothing is.

    Attributes:
        input_size: (height, width) in pixels.
        mean, std: by channel, in grey levels.
    """

    input_size: tuple[int, int] | tuple[()] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def recipe_of(content: Mapping[str, Any], source: str) -> Recipe:
    """Find the recipe in a Lightning checkpoint of anomalib 0.x, 1.x or 2.x.

    Args:
        content: the file's, with `Inert` for objects.
        source: the file's name, for messages.

    Raises:
        CheckpointError: it has a step that this program does not do.
    """
    settings = content.get("anomalib_pre_processor_config")
    hyper_parameters = plain(content.get("hyper_parameters"))
    if isinstance(settings, Mapping):
        return _from_steps(list(_steps(settings.get("transform"))), source)
    parts = hyper_parameters if isinstance(hyper_parameters, Mapping) else {}
    for found in (content.get("transform"), parts.get("pre_processor")):
        steps = list(_steps(found))
        if steps:
            return _from_steps(steps, source)
    dataset = parts.get("dataset")
    return _from_options(dataset, source) if isinstance(dataset, Mapping) else Recipe()


def plain(value: Any) -> Any:
    """Turn omegaconf's nodes, as they were pickled, into plain values."""
    if isinstance(value, Inert):
        if "_val" in value.state:
            return plain(value.state["_val"])
        if "_content" in value.state:
            return plain(value.state["_content"])
        return value
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    return value


def _steps(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """List a transform's steps as names and arguments, whether described or pickled."""
    if isinstance(value, Mapping) and "class_path" in value:
        name, arguments = str(value["class_path"]), dict(value.get("init_args") or {})
        nested = arguments.get("transforms")
    elif isinstance(value, Inert):
        name, arguments = value.name, dict(value.state)
        nested = arguments.get("transforms")
        modules = arguments.get("_modules")
        if nested is None and isinstance(modules, Mapping) and modules:
            nested = list(modules.values())
        if nested is None and "transform" in arguments:  # a pre-processor around it
            nested = [arguments["transform"]]
    else:
        return
    if nested is None:
        yield name.rpartition(".")[2], arguments
    for step in nested or ():
        yield from _steps(step)


def _from_steps(steps: Sequence[tuple[str, dict[str, Any]]], source: str) -> Recipe:
    size: tuple[int, int] | tuple[()] = ()
    mean, std = UNIT  # without a step, values from 0 to 1
    for name, arguments in steps:
        if name == "Resize":
            size = _size(arguments, source)
        elif name == "Normalize":
            mean, std = (_channels(arguments.get(k), source) for k in ("mean", "std"))
        elif name not in HARMLESS:
            raise CheckpointError(
                f"{source}: was trained with the step {name}, which stpm does not support, "
                "expected only Resize and Normalize; train again without it."
            )
    return Recipe(size, mean, std)


def _size(arguments: Mapping[str, Any], source: str) -> tuple[int, int]:
    size = arguments.get("size")
    mode = arguments.get("interpolation", "bilinear")
    mode = str((mode.arguments or ("",))[0] if isinstance(mode, Inert) else mode).lower()
    if not (isinstance(size, list | tuple) and len(size) == 2) or mode != "bilinear":
        raise CheckpointError(
            f"{source}: was trained with images resized to {size} ({mode}), expected "
            "bilinear resizing to height and width; train again that way."
        )
    if arguments.get("antialias") is False:
        _note_resize(source)
    return int(size[0]), int(size[1])


def _note_resize(source: str) -> None:
    note(
        f"{source}: was trained on images resized without antialiasing; stpm resizes with "
        "antialiasing, which changes scores if images are larger than the network's input"
    )


def _channels(values: Any, source: str) -> tuple[float, ...]:
    if not (isinstance(values, list | tuple) and len(values) == 3):
        raise CheckpointError(
            f"{source}: normalises with {values}, expected one value for each of three "
            "channels; correct it."
        )
    return tuple(float(value) * FULL_SCALE for value in values)


def _from_options(dataset: Mapping[str, Any], source: str) -> Recipe:
    """Read the options of anomalib 0.x."""
    if dataset.get("center_crop"):
        raise CheckpointError(
            f"{source}: was trained with the step center_crop, which stpm does not support; "
            "train again without it."
        )
    size = dataset.get("image_size")
    sides = (size, size) if isinstance(size, int) else size
    if not (isinstance(sides, list | tuple) and len(sides) == 2):
        return Recipe()
    _note_resize(source)
    normalisation = str(dataset.get("normalization", "imagenet")).lower()
    if normalisation == "none":
        mean, std = UNIT
    else:
        mean, std = (_channels(values, source) for values in IMAGENET)
    return Recipe((int(sides[0]), int(sides[1])), mean, std)
