"""A network camera in a process of its own: JPEG frames over HTTP, at a steady rate.

python -m stpm.benchmarks.measure.live.camera PORT FOLDER RATE LOG

It sends the folder's images in turn to whoever connects, from the first one each time, and writes
a line of the log for each: when it was due, in nanoseconds since 1970, and which one it was.
SIGTERM ends it after a whole frame.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

REQUEST_BYTES = 4096
TICK = 0.1
"""Seconds between two looks whether it is to end."""
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n"
    b"Cache-Control: no-store\r\n\r\n"
)


def main(port: int, folder: Path, rate: float, log: Path) -> None:
    """Serve one client after another, until SIGTERM."""
    ends = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ends.set())
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    with socket.create_server(("127.0.0.1", port)) as listening, log.open("a") as lines:
        listening.settimeout(TICK)
        while not ends.is_set():
            with suppress(TimeoutError):
                client, _ = listening.accept()
                with client, suppress(OSError):
                    _stream(client, images, rate, lines, ends)


def _stream(
    client: socket.socket,
    images: Sequence[bytes],
    rate: float,
    lines: IO[str],
    ends: threading.Event,
) -> None:
    client.settimeout(None)
    client.recv(REQUEST_BYTES)
    client.sendall(HEAD)
    began, number = time.time_ns(), 0
    while not ends.is_set():
        due = began + round(number * 1e9 / rate)
        if ends.wait(max(0.0, (due - time.time_ns()) / 1e9)):
            return
        which = number % len(images)
        client.sendall(_part(images[which]))
        lines.write(f"{due} {which}\n")
        lines.flush()
        number += 1


def _part(image: bytes) -> bytes:
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
    return head.encode() + image + b"\r\n"


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
