"""A station under load: four cameras, and what fails around it meanwhile."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stpm.benchmarks.measure.latency import camera_frames
from stpm.benchmarks.measure.live.course import Course
from stpm.benchmarks.measure.live.figures import (
    Frames,
    count_messages,
    memory_growth,
    stages_ms,
    told_ms,
)
from stpm.benchmarks.measure.live.process import StationProcess
from stpm.benchmarks.measure.live.surroundings import (
    TOPIC,
    Broker,
    Camera,
    Listener,
    SmallDisk,
)
from stpm.benchmarks.measure.processors import busy_seconds
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.live import LiveRecord
from stpm.benchmarks.records.result_file import checked
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image, picture_of
from stpm.runtime.live.read_record import read_record
from stpm.runtime.live.sources import SourceOptions, open_source
from stpm.runtime.live.verdict import pixels_hash
from stpm.runtime.output.console import note

DISTINCT = 7
"""Images that the cameras send in turn; a frame that is lost breaks the turn."""
JPEG_QUALITY = 90
WARM_UP = 0.1
"""Share of the run that the memory and the processor time leave out."""
DISK_MB, PICTURES_MB, PICTURE_EVERY = 64, 40, 20
LEARNING_RATE = 50.0
"""Frames a second while the hashes of the images are learnt."""


@dataclass(frozen=True)
class Load:
    """What the station has to bear.

    Attributes:
        bundle: the folder.
        images: files that the cameras show; none takes the bundle's golden images.
        image_size: (height, width) of the cameras.
        cameras: how many.
        rate: frames a second of each.
        seconds: of the run.
        cycle_time_ms: that a verdict may take.
        engine: None takes the fastest.
        threads: processor threads of one run; 0 leaves the choice to the engine.
    """

    bundle: Path
    images: Sequence[Path]
    image_size: tuple[int, int]
    cameras: int
    rate: float
    seconds: float
    cycle_time_ms: float
    engine: str | None = None
    threads: int = 0


def write_frames(load: Load, folder: Path) -> None:
    """Bring the first images to the cameras' size, as JPEG."""
    folder.mkdir()
    spread = load.images[:: max(1, len(load.images) // DISTINCT)][:DISTINCT]
    frames = camera_frames(Bundle(load.bundle), spread, load.image_size)
    for number, frame in enumerate(frames[:DISTINCT]):
        picture_of(frame).save(folder / f"{number:02}.jpg", quality=JPEG_QUALITY)


def learn_hashes(images: Path, folder: Path) -> dict[str, int]:
    """Return the number of each image by the hash that a station records, read from a camera.

    Raises:
        DataError: two images are the same.
    """
    count = len(list(images.glob("*.jpg")))
    camera = Camera("camera", images, LEARNING_RATE, folder / "learning.log")
    try:
        source = open_source(camera.address, SourceOptions())
        frames = list(islice(source.frames(threading.Event()), count))
        hashes = [
            pixels_hash(load_image(frame.image))
            for frame in frames
            if not isinstance(frame.image, DataError)
        ]
    finally:
        camera.unplug()
    if len(set(hashes)) < count or count < 2:
        raise DataError(f"got {count} images, {len(set(hashes))} of them different; give others.")
    return {one: number for number, one in enumerate(hashes)}


def live_result(load: Load) -> LiveRecord:
    """Run a station under load, and return the content of a result file.

    Raises:
        BackendError: mosquitto is missing, or the station ends by itself.
        DataError: the images do not serve.
    """
    with tempfile.TemporaryDirectory(prefix="stpm-live-") as name, ExitStack() as stack:
        folder = Path(name)
        write_frames(load, folder / "images")
        by_hash = learn_hashes(folder / "images", folder)
        broker = Broker(folder / "broker")
        stack.callback(broker.stop)
        listener = Listener(broker.port)
        stack.callback(listener.end)
        disk = SmallDisk(folder / "disk", DISK_MB)
        stack.callback(disk.end)
        cameras = []
        for number in range(1, load.cameras + 1):
            log = folder / f"camera{number}.log"
            camera = Camera(f"camera{number}", folder / "images", load.rate, log)
            stack.callback(camera.unplug)
            cameras.append(camera)
        station = StationProcess(folder, _words(load, cameras, broker, disk, folder / "record"))
        stack.callback(station.kill)
        course = Course(cameras, broker, disk, station)
        note(f"{load.cameras} cameras for {load.seconds:g} s")
        machine = busy_seconds()
        course.follow(load.seconds)
        machine = busy_seconds() - machine
        for camera in cameras:
            camera.end()
        station.let_catch_up()
        counts = {"sinks": station.sinks(), "late": int(station.metrics("stpm_late_total")[()])}
        station.end()
        note(station.log.strip())
        return _record(load, course, by_hash, listener, machine, counts, folder / "record")


def _words(
    load: Load, cameras: Sequence[Camera], broker: Broker, disk: SmallDisk, record: Path
) -> list[str]:
    pictures = f"pictures:{disk.folder}?every={PICTURE_EVERY}&max-mb={PICTURES_MB}"
    words = [str(load.bundle), *(f"{camera.name}={camera.address}" for camera in cameras)]
    words += ["--record", str(record), "--cycle-time", f"{load.cycle_time_ms:g}ms"]
    words += ["--sink", f"mqtt://127.0.0.1:{broker.port}/{TOPIC}", "--sink", pictures]
    words += ["--threads", str(load.threads)]
    return words + (["--engine", load.engine] if load.engine else [])


def _record(
    load: Load,
    course: Course,
    by_hash: dict[str, int],
    listener: Listener,
    machine: float,
    counts: dict[str, Any],
    record: Path,
) -> LiveRecord:
    lines = list(read_record(record))
    cameras = []
    for number, camera in enumerate(course.cameras):
        due_ns, images = zip(*camera.sent(), strict=True)
        entries = [line.entry for line in lines if line.entry.get("camera") == camera.name]
        unplugged = course.unplugged_ns if number == 0 else None
        cameras.append(Frames(camera.name, due_ns, images, entries, unplugged))
    messages, first = count_messages(cameras, listener.heard)
    warm_up = WARM_UP * load.seconds
    counted = [sample for sample in course.samples if sample["at_s"] >= warm_up]
    last = counted[-1]
    passed = last["at_s"] - counted[0]["at_s"]
    cores = (last["processor_s"] - counted[0]["processor_s"]) / passed
    whole = last["processor_s"] - course.samples[0]["processor_s"]
    content = header("live", [load.bundle]) | {
        "engine": lines[0].entry["engine"],
        "image_size": list(load.image_size),
        "image_source": "files" if load.images else "golden",
        "rate": load.rate,
        "seconds": load.seconds,
        "warm_up_s": warm_up,
        "cycle_time_ms": load.cycle_time_ms,
        "cameras": [camera.count(by_hash) for camera in cameras],
        "failures": course.failures,
        "messages": messages,
        "chain": " ".join(f"{line.place} {line.problem}" for line in lines if line.problem),
        "stages_ms": stages_ms([entry for camera in cameras for entry in camera.entries]),
        "told_ms": told_ms(cameras, by_hash, first, course.stopped_ns),
        "memory_growth": memory_growth(course.samples, warm_up),
        "cores": cores,
        "other_cores": (machine - whole) / load.seconds,
        "samples": course.samples,
    }
    result: LiveRecord = checked(content | counts)
    return result
