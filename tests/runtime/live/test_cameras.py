"""Videos by OpenCV, and a GigE Vision camera by Aravis, which Debian's fake one is."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from stations import ListSource, wait_until

from stpm.runtime import Detector
from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.live.read_record import read_record
from stpm.runtime.live.record import Record
from stpm.runtime.live.sources import Source, SourceOptions, open_source
from stpm.runtime.live.sources.genicam import TIMEOUT
from stpm.runtime.live.station import Camera as StationCamera
from stpm.runtime.live.station import Station
from stpm.runtime.live.verdict import Entry, Frame

FAKE = shutil.which("arv-fake-gv-camera-0.8")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twenty frames of two seconds, ever brighter and redder than blue."""
    path = tmp_path / "part.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(20):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2] = 20 + 10 * number  # red, in OpenCV's order
        writer.write(frame)
    writer.release()
    return path


def test_a_video_comes_in_rgb_and_ends(video: Path) -> None:
    frames = list(open_source(str(video), SourceOptions()).frames(threading.Event()))
    assert len(frames) == 20
    for number, frame in enumerate(frames):
        assert isinstance(frame.image, np.ndarray)
        red, green, blue = frame.image.reshape(-1, 3).mean(axis=0)
        assert red == pytest.approx(20 + 10 * number, abs=6)
        assert max(green, blue) < 10
    assert frames[4].name == f"{video}#5"


def test_every_half_second_of_the_video(video: Path) -> None:
    source = open_source(str(video), SourceOptions(every=0.5))
    names = [frame.name.rpartition("#")[2] for frame in source.frames(threading.Event())]
    assert names == ["1", "6", "11", "16"]


def test_what_is_no_source_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(DataError, match="cannot be opened as a video"):
        open_source(str(tmp_path / "text.avi"), SourceOptions())
    with pytest.raises(DataError, match="expected a folder, a video file"):
        open_source(str(tmp_path / "absent"), SourceOptions())


def test_half_a_frame_of_a_lost_camera_is_no_frame() -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    head = b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    part = head % len(buffer.getvalue()) + buffer.getvalue() + b"\r\n"

    def serve(listening: socket.socket) -> None:
        client, _ = listening.accept()
        with client, listening:
            client.recv(4096)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: ")
            client.sendall(b"multipart/x-mixed-replace; boundary=part\r\n\r\n")
            client.sendall(3 * part + part[: len(part) // 2])

    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listening,), daemon=True).start()
    source = open_source(f"http://127.0.0.1:{listening.getsockname()[1]}/", SourceOptions())
    reader = Reader(source)
    wait_until(lambda: source.state == "lost")
    reader.end()
    assert len(reader.frames) == 3


class Camera:
    """Debian's fake camera: it speaks GigE Vision on the loopback."""

    def __init__(self) -> None:
        self.serial = uuid.uuid4().hex[:8]
        self.address = f"genicam:Aravis-Fake-{self.serial}"
        self.start()

    def start(self) -> None:
        assert FAKE
        self._process = subprocess.Popen([FAKE, "-i", "127.0.0.1", "-s", self.serial])
        time.sleep(0.5)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def open(self, options: SourceOptions) -> Source:
        try:
            return open_source(self.address, options)
        except BackendError as error:
            pytest.skip(str(error))


@pytest.fixture
def camera() -> Iterator[Camera]:
    if FAKE is None:
        pytest.skip("aravis-tools is not installed")
    fake = Camera()
    yield fake
    fake.kill()


class Reader:
    """Reads a source in a thread."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.frames: list[Frame] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for frame in self.source.frames(self._stop):
            self.frames.append(frame)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def frames_of(source: Source) -> Generator[Frame, None, None]:
    """Read here and now, for half a minute at most."""
    stop = threading.Event()
    clock = threading.Timer(30, stop.set)
    clock.start()
    try:
        yield from source.frames(stop)
    finally:
        clock.cancel()


def test_a_camera_delivers_is_lost_and_comes_back(
    camera: Camera, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader(camera.open(SourceOptions(every=0.05)))
    wait_until(lambda: len(reader.frames) >= 3)
    image = reader.frames[0].image
    assert isinstance(image, np.ndarray)
    assert (image.shape, image.dtype) == ((512, 512), np.uint8)
    assert image.std() > 10
    camera.kill()
    wait_until(lambda: reader.source.state == "lost")
    before = len(reader.frames)
    camera.start()
    wait_until(lambda: len(reader.frames) > before + 2)
    assert reader.source.state == ""
    reader.end()
    said = capsys.readouterr().err
    assert "the camera is lost; reconnecting" in said
    assert "the camera is back" in said


def recorded(folder: Path) -> list[Entry]:
    return [line.entry for line in read_record(folder)]


def test_a_lost_camera_loses_no_verdict(camera: Camera, detector: Detector, tmp_path: Path) -> None:
    """Each frame that was taken before and after stands in the record, once and in order."""
    source = camera.open(SourceOptions(every=0.05))
    station = Station([StationCamera("top", source, detector)], Record(tmp_path), [])
    running = threading.Thread(target=station.run)
    running.start()
    for _ in range(2):
        before = len(recorded(tmp_path))
        wait_until(lambda before=before: len(recorded(tmp_path)) > before + 3)
        camera.kill()
        wait_until(lambda: source.state == "lost")
        camera.start()
        wait_until(lambda: source.state == "")
    wait_until(lambda: len(recorded(tmp_path)) > before + 8)
    station.stop()
    running.join(20)
    assert not running.is_alive()
    entries = recorded(tmp_path)
    assert [e["image"] for e in entries] == [
        f"{camera.address}#{number}" for number in range(1, len(entries) + 1)
    ]
    assert all("score" in e for e in entries)


def test_frames_that_did_not_arrive_are_verdicts(
    camera: Camera, detector: Detector, tmp_path: Path
) -> None:
    """A line that is held up: the camera goes on, its buffers fill, and it says so by its count."""
    source = camera.open(SourceOptions())
    frames = frames_of(source)
    assert isinstance(next(frames).image, np.ndarray)
    time.sleep(2)  # about 50 frames, of which the buffers hold 8
    found: list[Frame] = []
    while not (found and isinstance(found[-1].image, np.ndarray) and missed(found)):
        found.append(next(frames))
    assert 20 < len(missed(found)) < 100
    frames.close()
    seen = StationCamera("top", ListSource([frame.image for frame in found]), detector)
    Station([seen], Record(tmp_path), []).run()
    entries = recorded(tmp_path)
    assert len(entries) == len(found)
    assert Counter(e["verdict"] for e in entries)["error"] == len(missed(found))
    (said,) = {e["error"] for e in entries if e["verdict"] == "error"}
    assert said.endswith("a frame did not arrive; check the network and the rate.")


def missed(frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if isinstance(frame.image, DataError)]


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("Mono8", (512, 512), np.uint8),
        ("Mono16", (512, 512), np.uint16),
        ("RGB8", (512, 512, 3), np.uint8),
        *((f"Bayer{order}8", (512, 512, 3), np.uint8) for order in ("BG", "GB", "GR", "RG")),
    ],
)
def test_every_pixel_format_of_the_camera(
    name: str, shape: tuple[int, ...], kind: type, camera: Camera
) -> None:
    source = camera.open(SourceOptions(pixel_format=name))
    frame = next(frames_of(source))
    assert isinstance(frame.image, np.ndarray)
    assert (frame.image.shape, frame.image.dtype) == (shape, kind)
    assert frame.image.std() > 10
    assert abs(time.time_ns() - frame.taken_ns) < 60e9


def test_exposure_makes_it_brighter(camera: Camera) -> None:
    light = []
    for exposure_us in (500, 8000):
        source = camera.open(SourceOptions(exposure_us=exposure_us))
        frames = frames_of(source)
        image = next(frames).image
        assert isinstance(image, np.ndarray)
        light.append(float(image.mean()))
        frames.close()
    assert light[1] > 1.5 * light[0]


def test_a_hardware_trigger_waits_for_its_line(camera: Camera) -> None:
    """Nothing pulls the fake camera's line: it is silent, which is no loss, until it is gone."""
    reader = Reader(camera.open(SourceOptions(trigger="hardware")))
    time.sleep(2 * TIMEOUT)
    assert (reader.frames, reader.source.state) == ([], "")
    camera.kill()
    wait_until(lambda: reader.source.state == "lost")
    reader.end()


def test_a_software_trigger_takes_a_frame_at_a_time(camera: Camera) -> None:
    reader = Reader(camera.open(SourceOptions(every=0.3, trigger="software", exposure_us=2000)))
    started = time.monotonic()
    wait_until(lambda: len(reader.frames) >= 5)
    assert time.monotonic() - started > 4 * 0.3 - 0.1
    reader.end()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pixel_format": "Mono12"}, "got the pixel format Mono12, expected one of BayerBG8"),
        ({"trigger": "often"}, "expected software, hardware or a line"),
        ({"trigger": "Line7"}, "got --trigger Line7, but the camera has the triggers Line0"),
        ({"exposure_us": -1.0}, "got --exposure-us -1, expected 10 to 1e+07"),
    ],
)
def test_options_that_a_camera_refuses(options: dict[str, Any], says: str, camera: Camera) -> None:
    camera.open(SourceOptions())
    with pytest.raises(DataError, match=re.escape(says)):
        open_source(camera.address, SourceOptions(**options))


def test_a_camera_that_is_not_there() -> None:
    try:
        with pytest.raises(DataError, match="the camera cannot be opened"):
            open_source("genicam:Nobody-1", SourceOptions())
    except BackendError as error:
        pytest.skip(str(error))
