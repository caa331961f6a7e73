"""Runs installed commands from a process that has torch already: each one is a fork of it.

Torch takes seconds to import, which most commands of the pages would spend on little else.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).parent / "warm_client.py"
VARIABLE = "STPM_WARM_COMMANDS"
PRELOADED = ("stpm.export.pipeline", "stpm.benchmarks.measure.accuracy")
WARM = ("stpm-train", "stpm-export", "stpm-bench")
START_S = 300.0
LONGEST_CALL = 1 << 20


@contextmanager
def warm_commands() -> Iterator[dict[str, str]]:
    """Serve `WARM` until the block ends; yield the variables that make a shell use them."""
    folder = Path(tempfile.mkdtemp(prefix="stpm-"))  # short, as a socket's address must be
    address = folder / "socket"
    for name in WARM:
        (folder / name).write_text(f"#!{sys.executable} -ISE\n" + CLIENT.read_text())
        (folder / name).chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(address)], stdin=subprocess.PIPE)
    try:
        end = time.monotonic() + START_S
        while not address.exists():
            assert server.poll() is None, "the server of the commands ended"
            assert time.monotonic() < end, "the server of the commands did not start"
            time.sleep(0.05)
        beside = Path(sys.executable).parent
        path = os.pathsep.join([str(folder), str(beside), os.environ["PATH"]])
        yield {"PATH": path, VARIABLE: str(address)}
    finally:
        server.communicate()
        shutil.rmtree(folder)


def _serve(address: str) -> None:
    """Run calls, one after another, until standard input ends; returns in each fork."""
    for name in PRELOADED:
        importlib.import_module(name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.new")
    listening.listen()
    Path(f"{address}.new").rename(address)
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        client, _ = listening.accept()
        content, files, _, _ = socket.recv_fds(client, LONGEST_CALL, 3)
        while not content.endswith(b"\n"):
            content += client.recv(LONGEST_CALL)
        child = os.fork()
        if child == 0:
            listening.close()
            client.close()
            _become(json.loads(content), files)
            return
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        client.send(str(os.waitstatus_to_exitcode(status) % 256).encode())
        client.close()


def _become(call: dict[str, Any], files: list[int]) -> None:
    """Take over the arguments, folder, variables and standard streams of a call."""
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["folder"])
    sys.stdin, sys.stdout, sys.stderr = (
        open(file, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
        for file, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.argv = call["words"]


def _run() -> int:
    """Call the command that `sys.argv` names, and return its exit code."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts[Path(sys.argv[0]).name].partition(":")
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
    code = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an orderly end takes seconds apart all that was imported
