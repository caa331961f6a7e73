"""A line's description: its cameras, from the command or from a file in TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from stpm.runtime.errors import DataError
from stpm.runtime.store import is_remote

_TEXTS = (
    "name",
    "source",
    "bundle",
    "shadow",
    "engine",
    "move",
    "pixel-format",
    "trigger",
    "every",
)
_NEEDED = ("name", "source", "bundle")
_OF_LINE: Mapping[str, type | tuple[type, ...]] = {
    "record": str,
    "keep": str,
    "keep-max-mb": (int, float),
    "page": str,
    "cycle-time": str,
    "when-behind": str,
    "sinks": list,
}
_FOLDERS = ("record", "keep")
KEEP_MAX_MB = 10_000.0
"""By default."""


class WhenBehind(StrEnum):
    """What becomes of a frame when the scorer is behind and the queue is full."""

    BLOCK = "block"
    DROP_OLDEST = "drop-oldest"
    DROP_NEWEST = "drop-newest"


@dataclass(frozen=True)
class CameraPlan:
    """One camera, as it was asked for.

    Attributes:
        name: in the record; letters, digits, dashes and underscores.
        source: its address, see `stpm.runtime.live.sources.open_source`.
        bundle: that decides.
        shadow: a second bundle that is asked, too.
        engine: of both; None takes the fastest.
        every: a time between two frames, such as "200ms"; "" for all.
        move: folder for the scored files of a watched folder.
        exposure_us: microseconds of a GenICam camera.
        pixel_format: of a GenICam camera.
        trigger: of a GenICam camera.
    """

    name: str
    source: str
    bundle: Path
    shadow: Path | None = None
    engine: str | None = None
    every: str = ""
    move: Path | None = None
    exposure_us: float | None = None
    pixel_format: str = ""
    trigger: str = ""


@dataclass(frozen=True)
class LinePlan:
    """A line, as it was asked for.

    Attributes:
        cameras: at least one.
        record: folder of the record.
        keep: folder for the frames of cameras and videos; None keeps none.
        keep_max_mb: megabytes of 10^6 bytes of kept frames.
        page: HOST:PORT of the live page; None for no page.
        cycle_time: longest allowed time to a verdict, such as "250ms"; None counts none as late.
        when_behind: one of `WhenBehind`.
        sinks: addresses, see `stpm.runtime.live.sinks.open_sink`.
    """

    cameras: tuple[CameraPlan, ...] = ()
    record: Path = Path("record")
    keep: Path | None = None
    keep_max_mb: float = KEEP_MAX_MB
    page: str | None = None
    cycle_time: str | None = None
    when_behind: str = WhenBehind.BLOCK
    sinks: tuple[str, ...] = ()


def read_line(path: Path, given: LinePlan) -> LinePlan:
    """Read a line's file; paths in it are relative to its folder.

    Args:
        path: of the file.
        given: what holds where the file says nothing; its sinks come before those of the file.

    Raises:
        DataError: it cannot be read, lacks something, or has a key that is unknown.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: is not TOML ({error}); correct it.") from None
    cameras = values.pop("camera", [])
    for key, value in values.items():
        if key not in _OF_LINE or not isinstance(value, _OF_LINE[key]):
            raise DataError(
                f"{path}: got {key} = {value!r}, expected {', '.join(_OF_LINE)} and [[camera]]; "
                "correct it."
            )
    if not isinstance(cameras, list) or not cameras:
        raise DataError(f"{path}: has no [[camera]]; add one with name, source and bundle.")
    plans = tuple(_camera(path, camera) for camera in cameras)
    names = [plan.name for plan in plans]
    if len(set(names)) < len(names):
        raise DataError(
            f"{path}: got the cameras {', '.join(names)}, expected different names; rename them."
        )
    if "when-behind" in values and values["when-behind"] not in tuple(WhenBehind):
        raise DataError(
            f"{path}: got when-behind = {values['when-behind']!r}, expected "
            f"{', '.join(WhenBehind)}; correct it."
        )
    folders = {key: path.parent / values.pop(key) for key in _FOLDERS if key in values}
    sinks = (*given.sinks, *values.pop("sinks", ()))
    others = {key.replace("-", "_"): value for key, value in values.items()}
    return replace(given, cameras=plans, sinks=sinks, **folders, **others)


def _camera(path: Path, values: Mapping[str, Any]) -> CameraPlan:
    known = (*_TEXTS, "exposure-us")
    for key, value in values.items():
        fits = isinstance(value, str) if key in _TEXTS else isinstance(value, int | float)
        if key not in known or not fits:
            raise DataError(
                f"{path}: a camera has {key} = {value!r}, expected {', '.join(known)}; correct it."
            )
    missing = [key for key in _NEEDED if key not in values]
    if missing:
        raise DataError(f"{path}: a camera lacks {', '.join(missing)}; add it.")
    folder = path.absolute().parent

    def file(key: str) -> Path | None:
        if key not in values:
            return None
        return Path(values[key]) if is_remote(values[key]) else folder / values[key]

    source = values["source"]
    if ":" not in source:
        source = str(folder / source)
    bundle = file("bundle")
    assert bundle is not None
    return CameraPlan(
        values["name"],
        source,
        bundle,
        file("shadow"),
        values.get("engine"),
        values.get("every", ""),
        file("move"),
        values.get("exposure-us"),
        values.get("pixel-format", ""),
        values.get("trigger", ""),
    )
