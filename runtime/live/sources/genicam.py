"""GigE Vision and USB3 Vision cameras, by Aravis."""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.images.preprocess import ImageSource
from stpm.runtime.live.sources import SourceOptions
from stpm.runtime.live.sources.pixel_formats import KNOWN, to_image
from stpm.runtime.live.verdict import Frame
from stpm.runtime.output.console import note

BUFFERS = 8
"""Frames that the camera may send ahead."""
TIMEOUT = 2.0
"""Seconds without a frame after which a camera without a trigger counts as lost."""
MOST_MISSED = 1000
"""Frames between two that can be missing; a camera that jumps further counts anew."""
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
        if not re.fullmatch(r"(software|hardware|Line\d+)?", options.trigger):
            raise DataError(
                f"got --trigger {options.trigger}, expected software, hardware or a line of the "
                "camera such as Line0; correct it."
            )
        self.state = ""
        self._name = name
        self._options = options
        self._aravis = _load_aravis()
        self._camera, self._stream = self._open()

    def frames(self, stop: Event) -> Iterator[Frame]:
        """Yield frames until `stop` is set; one that does not arrive whole is a frame, too."""
        number, heard = 0, time.monotonic()
        due = heard
        counted: int | None = None
        try:
            while not stop.is_set():
                if self._options.trigger == "software" and time.monotonic() >= due:
                    due = time.monotonic() + self._options.every
                    self._trigger()
                buffer = self._stream.timeout_pop_buffer(int(TICK * 1e6))
                if buffer is None:
                    silent = time.monotonic() - heard > TIMEOUT
                    if self._is_gone() or (silent and self._sends_alone):
                        self._reconnect(stop)
                        heard, counted = time.monotonic(), None
                    continue
                if buffer.get_status() == self._aravis.BufferStatus.CLEARED:
                    self._stream.push_buffer(buffer)  # nothing had come when the stream began
                    continue
                heard = time.monotonic()
                missed = self._missed(counted, buffer.get_frame_id())
                counted = buffer.get_frame_id()
                is_early = self._sends_alone and heard < due
                found = [] if is_early else [*missed, self._image(buffer)]
                taken_ns = _taken_ns(buffer)
                self._stream.push_buffer(buffer)
                if self._sends_alone and not is_early:
                    due = heard + self._options.every
                for image in found:
                    number += 1
                    yield Frame(image, f"{self._label}#{number}", taken_ns)
        finally:
            self._close()

    def name_in_record(self, frame: Frame) -> str:
        """Return its name; --keep stores its pixels under another."""
        return frame.name

    def done(self, frame: Frame) -> None:
        """Do nothing."""

    def _image(self, buffer: Any) -> ImageSource | DataError:
        """Return a buffer's pixels, or why they are none."""
        if buffer.get_status() != self._aravis.BufferStatus.SUCCESS:
            return DataError(
                f"{self._label}: a frame arrived damaged ({buffer.get_status().value_nick}); check "
                "its cable and network."
            )
        size = buffer.get_image_height(), buffer.get_image_width()
        try:
            return to_image(buffer.get_data(), *size, buffer.get_image_pixel_format())
        except DataError as error:
            return error

    def _missed(self, before: int | None, count: int) -> list[DataError]:
        """Return an error for each frame that the camera counted and that did not arrive."""
        missed = 0 if before is None else max(0, count - before - 1)
        if missed > MOST_MISSED:
            note(f"{self._label}: {missed} frames did not arrive, or the camera counts anew")
        if missed > MOST_MISSED or (self._sends_alone and self._options.every):
            return []
        problem = f"{self._label}: a frame did not arrive; check the network and the rate."
        return [DataError(problem)] * missed

    @property
    def _sends_alone(self) -> bool:
        return self._options.trigger == ""

    @property
    def _label(self) -> str:
        return f"genicam:{self._name}"

    def _open(self) -> tuple[Any, Any]:
        aravis = self._aravis
        try:
            aravis.update_device_list()
            camera = aravis.Camera.new(self._name or None)
            self._configure(camera)
            camera.set_acquisition_mode(aravis.AcquisitionMode.CONTINUOUS)
            stream = camera.create_stream(None, None)
            payload = camera.get_payload()
            for _ in range(BUFFERS):
                stream.push_buffer(aravis.Buffer.new_allocate(payload))
            camera.start_acquisition()
        except DataError:
            raise
        except Exception as error:
            # GLib's errors share no base class that is known before gi is loaded.
            raise DataError(
                f"{self._label}: the camera cannot be opened ({error}); check its name, "
                "its power and its network."
            ) from error
        return camera, stream

    def _configure(self, camera: Any) -> None:
        """Set format, exposure and trigger; what the camera has not is a DataError."""
        options = self._options
        formats = set(camera.dup_available_pixel_formats_as_strings()) & set(KNOWN.values())
        if options.pixel_format in formats:
            camera.set_pixel_format_from_string(options.pixel_format)
        if options.pixel_format not in ("", *formats) or camera.get_pixel_format() not in KNOWN:
            pixel_format = options.pixel_format or camera.get_pixel_format_as_string()
            raise DataError(
                f"{self._label}: got the pixel format {pixel_format}, expected one of "
                f"{', '.join(sorted(formats))}; choose one with --pixel-format."
            )
        if options.exposure_us is not None:
            least, most = camera.get_exposure_time_bounds()
            if not least <= options.exposure_us <= most:
                raise DataError(
                    f"{self._label}: got --exposure-us {options.exposure_us:g}, expected "
                    f"{least:g} to {most:g}; correct it."
                )
            camera.set_exposure_time(options.exposure_us)
        if not options.trigger:
            camera.clear_triggers()
            return
        sources = camera.dup_available_trigger_sources()
        lines = sorted(name for name in sources if name.startswith("Line"))
        usual = "Line1" if "Line1" in lines else next(iter(lines), "Line1")
        wanted = {"software": "Software", "hardware": usual}.get(options.trigger, options.trigger)
        if wanted not in sources:
            raise DataError(
                f"{self._label}: got --trigger {options.trigger}, but the camera has the triggers "
                f"{', '.join(sources)}; choose another."
            )
        camera.set_trigger(wanted)

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


def _taken_ns(buffer: Any) -> int:
    """Return when a frame came to this machine, which may be a while ago."""
    return int(buffer.get_system_timestamp()) or time.time_ns()


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
