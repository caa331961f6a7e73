"""What stands around a station and can fail: cameras, a broker with a listener, a small disk."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from stpm.runtime.errors import BackendError

TOPIC = "load"
SHORT = 20.0
"""Seconds that something may take to start or to end."""


def free_port() -> int:
    """Return a port of the loopback that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for(holds: Callable[[], bool], what: str, seconds: float = SHORT) -> None:
    """Wait until something holds; BackendError where it does not come about."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise BackendError(f"{what}: not within {seconds:g} s; see what else runs here.")
        time.sleep(0.02)


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


class Camera:
    """A process of `stpm.benchmarks.measure.live.camera`."""

    def __init__(self, name: str, images: Path, rate: float, log: Path) -> None:
        self.name = name
        self.log = log
        self._port = free_port()
        self._words = [str(self._port), str(images), str(rate), str(log)]
        self.start()

    @property
    def address(self) -> str:
        """Its address as a source."""
        return f"http://127.0.0.1:{self._port}/"

    def start(self) -> None:
        """Switch it on."""
        module = "stpm.benchmarks.measure.live.camera"
        self._process = subprocess.Popen([sys.executable, "-m", module, *self._words])
        wait_for(self.log.exists, f"{self.name} listens")

    def unplug(self) -> None:
        """Let it go without a word."""
        self._process.kill()
        self._process.wait(SHORT)

    def end(self) -> None:
        """Send no frame after the present one, which a station that is behind may take late."""
        self._process.terminate()
        try:
            self._process.wait(SHORT)
        except subprocess.TimeoutExpired:
            self.unplug()

    def sent(self) -> list[tuple[int, int]]:
        """Return (due in ns, image) of each frame that it sent."""
        lines = self.log.read_text().splitlines()
        return [(int(due), int(image)) for due, image in (line.split() for line in lines)]


class Broker:
    """A mosquitto that keeps its sessions over a stop."""

    def __init__(self, folder: Path) -> None:
        """Start it.

        Raises:
            BackendError: it is not installed.
        """
        found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if found is None:
            raise BackendError("the broker mosquitto is not installed; apt-get install mosquitto.")
        folder.mkdir()
        self.port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\nuser {getpass.getuser()}\n"
        )
        self._words = [found, "-c", str(config)]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        silent = subprocess.DEVNULL
        self._process = subprocess.Popen(self._words, stdout=silent, stderr=silent)
        wait_for(lambda: _answers(self.port), "the broker listens")

    def stop(self) -> None:
        """Stop it in order, as a host does that is started anew."""
        self._process.terminate()
        self._process.wait(SHORT)


class Listener:
    """Somebody else who is told of the verdicts, and remembers when.

    Attributes:
        heard: (time in ns, camera, image's name) of each message.
    """

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[int, str, str]] = []
        # A session that the broker keeps: what comes before the listener is back waits for it.
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, "listener", clean_session=False, protocol=mqtt.MQTTv311
        )
        subscribed = threading.Event()
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC}/#", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_for(subscribed.is_set, "the broker takes a subscriber")

    def _on_message(self, _client: object, _data: object, message: Any) -> None:
        entry = json.loads(message.payload)
        self.heard.append((time.time_ns(), entry["camera"], entry["image"]))

    def end(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


class SmallDisk:
    """A disk of its own for pictures, in memory; only root can mount one."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.is_mounted = os.name == "posix" and os.geteuid() == 0
        if self.is_mounted:
            options = ["-t", "tmpfs", "-o", f"size={size_mb}m", "stpm-bench", str(folder)]
            done = subprocess.run(["mount", *options], capture_output=True, check=False)
            self.is_mounted = done.returncode == 0

    def fill(self) -> None:
        """Take all the room that is left, as another program does."""
        with suppress(OSError), (self.folder / "others").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))

    def clear(self) -> None:
        """Give it back."""
        (self.folder / "others").unlink()

    def end(self) -> None:
        """Let go of it."""
        if self.is_mounted:
            subprocess.run(["umount", str(self.folder)], check=True)
