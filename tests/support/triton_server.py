"""NVIDIA's own tritonserver on the loopback, where `scripts/triton-server` has unpacked it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("STPM_TRITON", Path(__file__).parents[2] / "build/triton")).absolute()
"""What `scripts/triton-server FOLDER` made."""
SERVER = FOLDER / "pytriton/tritonserver"
OLD_NUMPY = FOLDER / "packages"
START_S = 60.0
needs_triton = pytest.mark.skipif(
    not OLD_NUMPY.is_dir(), reason="scripts/triton-server has not been run here"
)


@dataclass(frozen=True)
class Running:
    """A server that is up.

    Attributes:
        http, grpc: HOST:PORT.
        log: file of its output.
    """

    http: str
    grpc: str
    log: Path

    def post(self, path: str) -> bytes:
        request = urllib.request.Request(f"http://{self.http}{path}", b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            return bytes(answer.read())


class ServerError(Exception):
    """The server ended before it was ready; holds its log."""


@contextmanager
def triton_server(
    repository: Path, log: Path, *flags: str, packages: Sequence[Path] = (OLD_NUMPY,)
) -> Iterator[Running]:
    """Run a server until the block ends.

    Args:
        repository: folder of models.
        log: file to write.
        flags: of tritonserver.
        packages: searched by models before what this process searches.

    Raises:
        ServerError: it ended at its start.
    """
    http, grpc = _free_ports(2)
    paths = [*map(str, packages), *filter(None, sys.path)]
    libraries = [os.environ.get("LD_LIBRARY_PATH", ""), sysconfig.get_config_var("LIBDIR") or ""]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
    }
    words = [
        SERVER / "bin/tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={SERVER / 'backends'}",
        *("--http-address", "127.0.0.1", "--http-port", str(http)),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(grpc)),
        *("--allow-metrics", "false", *flags),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        running = Running(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", log)
        _await(process, running)
        yield running
    finally:
        process.terminate()
        process.wait()


def _await(process: subprocess.Popen[bytes], running: Running) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://{running.http}/v2/health/live", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ServerError(running.log.read_text(errors="replace"))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports
