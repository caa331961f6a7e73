"""Where frames come from: one file a kind of source, opened by its address."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.live.verdict import Frame


class Source(Protocol):
    """A camera, or what stands for one.

    Attributes:
        state: for people: "" while all is well, else what is wrong.
    """

    state: str

    def frames(self, stop: Event) -> Iterator[Frame]:
        """Yield frames until there are no more, or `stop` is set; reconnects by itself."""
        ...

    def name_in_record(self, frame: Frame) -> str:
        """Choose what a frame is called in the record; asked once for each."""
        ...

    def done(self, frame: Frame) -> None:
        """Do what is to be done once a frame's verdict is on the disk."""
        ...


def _nothing(_: Mapping[str, float]) -> set[str]:
    return set()


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read.

    Attributes:
        every: seconds between two frames of a camera or video; 0 takes all.
        move_to: folder for the scored files of a watched folder; None leaves them.
        recorded: says which images have their verdict already, which a watched folder leaves out;
            see `stpm.runtime.live.record.Record.recorded`.
        exposure_us: microseconds of a GenICam camera; None leaves the camera's.
        pixel_format: of a GenICam camera, such as BayerRG8; "" leaves the camera's.
        trigger: of a GenICam camera: "", "software" (by `every`), "hardware" or one of its lines.
    """

    every: float = 0
    move_to: Path | None = None
    recorded: Callable[[Mapping[str, float]], set[str]] = _nothing
    exposure_us: float | None = None
    pixel_format: str = ""
    trigger: str = ""


def open_source(address: str, options: SourceOptions) -> Source:
    """Open a source.

    Args:
        address: a folder to watch; a video file, rtsp://..., or usb:N (by OpenCV); genicam: or
            genicam:NAME (by Aravis).
        options: how it is read.

    Raises:
        DataError: there is nothing of that address, or it does not know an option.
        BackendError: what reads it is not installed.
    """
    kind, _, rest = address.partition(":")
    if kind == "genicam":
        _check_options(address, options, "every", "exposure_us", "pixel_format", "trigger")
        check_installed("cv2", "pip install 'stpm[live]'")
        module = importlib.import_module("stpm.runtime.live.sources.genicam")
        source: Source = module.GenicamSource(rest.removeprefix("//"), options)
        return source
    if Path(address).is_dir():
        _check_options(address, options, "move_to")
        check_installed("watchdog", "pip install 'stpm[live]'")
        module = importlib.import_module("stpm.runtime.live.sources.folder")
        source = module.FolderSource(Path(address), options)
        return source
    is_usb = kind == "usb" and rest.isdecimal()
    if is_usb or kind in ("rtsp", "http", "https") or Path(address).is_file():
        _check_options(address, options, "every")
        check_installed("cv2", "pip install 'stpm[live]'")
        module = importlib.import_module("stpm.runtime.live.sources.video")
        source = module.VideoSource(int(rest) if is_usb else address, options)
        return source
    raise DataError(
        f"got the source {address!r}, expected a folder, a video file, rtsp://..., usb:N or "
        "genicam:NAME; check it."
    )


_FLAGS = {
    "every": "--every",
    "move_to": "--move",
    "exposure_us": "--exposure-us",
    "pixel_format": "--pixel-format",
    "trigger": "--trigger",
}


def _check_options(address: str, options: SourceOptions, *known: str) -> None:
    """Refuse options that a source of this kind would pass over in silence."""
    usual = SourceOptions()
    for name, flag in _FLAGS.items():
        if name not in known and getattr(options, name) != getattr(usual, name):
            taken = " and ".join(_FLAGS[one] for one in known)
            raise DataError(
                f"{address}: got {flag}, expected {taken} alone for such a source; leave it out, "
                "or name each camera's own options in a file LINE.toml."
            )


def check_installed(module: str, install: str, what: str = "this source") -> None:
    """Refuse what needs a module that is not here, with the way to install it."""
    if importlib.util.find_spec(module) is None:
        raise BackendError(f"{what} needs {module}, which is not installed; run {install}.")
