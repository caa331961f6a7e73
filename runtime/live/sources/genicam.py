"""GigE Vision and USB3 Vision cameras, by Aravis."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.live.sources import SourceOptions
from stpm.runtime.live.sources.pixel_formats import to_image
from stpm.runtime.live.verdict import Frame
from stpm.runtime.output.console import note

BUFFERS = 8
"""Frames that the camera may send ahead."""
TIMEOUT = 2.0
"""Seconds without a frame after which a camera without a trigger counts as lost."""
TICK = 0.1
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
"""Seconds until a lost camera is tried again; doubled each time."""
_DEBIAN = Path("/usr/lib/python3/dist-packages")
"""Where Debian's python3-gi lies, which a virtual environment does not look at."""


class GenicamSource:
    """A camera by its name, or the first one there is; opened again when it is lost."""

    def __init__(self, name: str, options: SourceOptions) -> None:
        """Open a camera.

        Args:
            name: such as "Basler-21234567", or its address; "" takes the first.
            options: exposure, format and trigger of the camera.

        Raises:
            BackendError: Aravis is not installed.
            DataError: there is no such camera, or it refuses an option.
        """
        if options.trigger not in ("", "software", "hardware"):
            raise DataError(
                f"got --trigger {options.trigger}, expected software or hardware; correct it."
            )
        self.state = ""
        self._name = name
        self._options = options
        self._aravis = _load_aravis()
        self._camera, self._stream = self._open()

    def frames(self, stop: Event) -> Iterator[Frame]:
        """Yield frames until `stop` is set."""
        number, heard = 0, time.monotonic()
        due = heard
        try:
            while not stop.is_set():
                if self._options.trigger == "software" and time.monotonic() >= due:
                    due = time.monotonic() + self._options.every
                    self._trigger()
                buffer = self._stream.timeout_pop_buffer(int(TICK * 1e6))
                if buffer is None:
                    silent = time.monotonic() - heard > TIMEOUT
                    if self._is_gone() or (silent and self._options.trigger != "hardware"):
                        self._reconnect(stop)
                        heard = time.monotonic()
                    continue
                heard, taken_ns = time.monotonic(), time.time_ns()
                frame = self._frame(buffer, number + 1, taken_ns)
                self._stream.push_buffer(buffer)
                is_early = heard < due and self._options.trigger == ""
                if frame is None or is_early:
                    continue
                if self._options.trigger == "":
                    due = heard + self._options.every
                number += 1
                yield frame
        finally:
            self._close()

    def kept_as(self, frame: Frame) -> str:
        """Return its name: nothing is kept of it."""
        return frame.name

    def done(self, frame: Frame) -> None:
        """Do nothing."""

    def _frame(self, buffer: Any, number: int, taken_ns: int) -> Frame | None:
        if buffer.get_status() != self._aravis.BufferStatus.SUCCESS:
            note(f"{self._label}: received a damaged frame ({buffer.get_status().value_nick})")
            return None
        size = buffer.get_image_height(), buffer.get_image_width()
        image = to_image(buffer.get_data(), *size, buffer.get_image_pixel_format())
        return Frame(image, f"{self._label}#{number}", taken_ns)

    @property
    def _label(self) -> str:
        return f"genicam:{self._name}"

    def _open(self) -> tuple[Any, Any]:
        options, aravis = self._options, self._aravis
        try:
            aravis.update_device_list()
            camera = aravis.Camera.new(self._name or None)
            if options.pixel_format:
                camera.set_pixel_format_from_string(options.pixel_format)
            if options.exposure_us is not None:
                camera.set_exposure_time(options.exposure_us)
            if options.trigger == "software":
                camera.set_trigger("Software")
            elif options.trigger == "hardware":
                camera.set_trigger("Line1")
            else:
                camera.clear_triggers()
            camera.set_acquisition_mode(aravis.AcquisitionMode.CONTINUOUS)
            stream = camera.create_stream(None, None)
            payload = camera.get_payload()
            for _ in range(BUFFERS):
                stream.push_buffer(aravis.Buffer.new_allocate(payload))
            camera.start_acquisition()
        except Exception as error:
            # GLib's errors share no base class that is known before gi is loaded.
            raise DataError(
                f"{self._label}: the camera cannot be opened ({error}); check its name, "
                "its power and its network."
            ) from error
        return camera, stream

    def _trigger(self) -> None:
        try:
            self._camera.software_trigger()
        except Exception as error:
            # See `_open`; a camera that is lost is noticed by its silence.
            self.state = str(error)

    def _is_gone(self) -> bool:
        try:
            self._camera.get_payload()
        except Exception:
            # See `_open`.
            return True
        return False

    def _close(self) -> None:
        try:
            self._camera.stop_acquisition()
        except Exception as error:
            # See `_open`; a lost camera cannot be told.
            self.state = str(error)
        self._stream = self._camera = None

    def _reconnect(self, stop: Event) -> None:
        self.state = "lost"
        note(f"{self._label}: the camera is lost; reconnecting")
        self._close()
        wait = FIRST_WAIT
        while not stop.wait(wait):
            try:
                self._camera, self._stream = self._open()
            except DataError:
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            self.state = ""
            note(f"{self._label}: the camera is back")
            return


def _load_aravis() -> Any:
    for attempt in (0, 1):
        try:
            gi = importlib.import_module("gi")
            gi.require_version("Aravis", "0.8")
            return importlib.import_module("gi.repository.Aravis")
        except (ImportError, ValueError):
            if attempt == 0 and _DEBIAN.is_dir():
                sys.path.append(str(_DEBIAN))
                importlib.invalidate_caches()
    raise BackendError(
        "GenICam cameras need Aravis, which is not installed; on Debian and Ubuntu: apt-get "
        "install gir1.2-aravis-0.8 python3-gi."
    )
