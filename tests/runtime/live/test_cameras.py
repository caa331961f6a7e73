"""Videos by OpenCV, and a GigE Vision camera by Aravis, which Debian's fake one is."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from stations import wait_until

from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.live.sources import Source, SourceOptions, open_source
from stpm.runtime.live.verdict import Frame

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


def test_a_software_trigger_takes_a_frame_at_a_time(camera: Camera) -> None:
    reader = Reader(camera.open(SourceOptions(every=0.3, trigger="software", exposure_us=2000)))
    started = time.monotonic()
    wait_until(lambda: len(reader.frames) >= 5)
    assert time.monotonic() - started > 4 * 0.3 - 0.1
    reader.end()


def test_options_that_a_camera_refuses(camera: Camera) -> None:
    camera.open(SourceOptions())
    with pytest.raises(DataError, match="the camera cannot be opened"):
        open_source(camera.address, SourceOptions(pixel_format="Mono99"))
    with pytest.raises(DataError, match="expected software or hardware"):
        open_source(camera.address, SourceOptions(trigger="often"))
    with pytest.raises(DataError, match="the camera cannot be opened"):
        open_source("genicam:Nobody-1", SourceOptions())
