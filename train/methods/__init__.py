"""The methods there are, and how one is opened and configured.

A method is one module or room here with a `METHOD`, and one line in `METHODS`; `contract` says what
it must bring.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from stpm.runtime.bundle.scoring import OWN
from stpm.runtime.errors import CheckpointError
from stpm.train.methods.contract import (
    Config,
    Method,
    Network,
    Normalise,
    Progress,
    TeacherSource,
    Trainer,
    Upsample,
    interpolate_to,
)
from stpm.train.options import FitOptions

__all__ = [
    "METHODS",
    "Config",
    "Method",
    "Network",
    "Normalise",
    "Progress",
    "TeacherSource",
    "Trainer",
    "Upsample",
    "config_from_dict",
    "configure",
    "interpolate_to",
    "open_method",
    "recipe_of",
    "score_of",
    "with_score",
]

METHODS = {
    "stpm": "stpm.train.methods.stpm",
    "rd": "stpm.train.methods.rd",
    "stad": "stpm.train.methods.stad",
    "spade": "stpm.train.methods.spade",
}
"""The module of each method; opened only when it is asked for."""


def open_method(name: str) -> Method:
    """Return a method of `METHODS`; CheckpointError when there is none of that name."""
    if name not in METHODS:
        raise CheckpointError(
            f"got method {name!r}, expected one of {', '.join(METHODS)}; choose one."
        )
    method: Method = importlib.import_module(METHODS[name]).METHOD
    return method


def with_score(config: Config, score: str) -> Config:
    """Return a config whose images are scored otherwise; see `ImageScore`.

    Raises:
        CheckpointError: the score is unknown, or the method's is not read off its map.
    """
    values = config.to_dict()
    if "score" not in {field.name for field in fields(config)}:  # type: ignore[arg-type]
        raise CheckpointError(
            f"got --score {score}, but {config.method} does not score images by their maps; "
            "leave --score out."
        )
    changed = config_from_dict(values | {"score": score})
    changed.check()
    return changed


def score_of(config: Config) -> str:
    """Return how an image's score is read off its map, for a bundle's `Scoring`."""
    return str(config.to_dict().get("score", OWN))


def recipe_of(method: str, name: str | None) -> FitOptions:
    """Return how a method is trained.

    Args:
        method: key of `METHODS`.
        name: of one of its recipes; None takes the default.

    Raises:
        CheckpointError: the method has no recipe of that name.
    """
    recipes = open_method(method).recipes
    chosen = name or next(iter(recipes))
    if chosen not in recipes:
        raise CheckpointError(
            f"got the recipe {chosen!r}, expected {' or '.join(recipes)} for {method}; choose one."
        )
    return recipes[chosen]


AnyConfig = TypeVar("AnyConfig", bound=Config)


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Inverse of `Config.to_dict`, also after JSON has turned tuples into lists."""
    return _config(open_method(str(values["method"])).config, values)


def _config(kind: type[AnyConfig], values: Mapping[str, Any]) -> AnyConfig:
    plain = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in values.items()}
    defaults = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in plain.items():
        if isinstance(defaults.get(name), tuple) != isinstance(value, tuple):
            raise ValueError(f"{name} is {value!r}, expected something like {defaults.get(name)}")
    return kind(**plain)


def configure(
    method: str, input_size: tuple[int, int], settings: Mapping[str, str] | None = None
) -> Config:
    """Make a config of a method's defaults and of settings as they are typed.

    Args:
        method: key of `METHODS`.
        input_size: (height, width) in pixels.
        settings: by the config's field names, with - or _; tuples are separated by commas.

    Raises:
        CheckpointError: the method or a setting is unknown, or a value cannot be read.
    """
    kind = open_method(method).config
    shared = ("method", "input_size")
    defaults: dict[str, Any] = {f.name: f.default for f in fields(kind) if f.name not in shared}  # type: ignore[arg-type]
    chosen: dict[str, Any] = {}
    for typed, text in (settings or {}).items():
        name = typed.replace("-", "_")
        if name not in defaults:
            known = ", ".join(defaults).replace("_", "-")
            raise CheckpointError(
                f"got the setting {typed!r}, which {method} does not have, expected one of "
                f"{known}; correct it."
            )
        try:
            chosen[name] = _read(text, defaults[name])
        except ValueError:
            raise CheckpointError(
                f"got {typed}={text}, expected something like {defaults[name]}; correct it."
            ) from None
    config = _config(kind, {"method": method, "input_size": input_size} | chosen)
    config.check()
    return config


def _read(text: str, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(_read(part, default[0] if default else 0.0) for part in text.split(","))
    return type(default)(text)
