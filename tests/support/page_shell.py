"""Runs the shell commands of a page in a folder, and ends a station that has scored its images."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from furniture import TORCH_HOME
from stations import wait_until

TIMEOUT_S = 600.0
INBOX = re.compile(r"\binbox(?:/\w+)?")


class Shell:
    """Bash in a furnished folder."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self._dropped = 0
        self._variables = {
            **os.environ,
            **variables,
            "HOME": str(folder),
            "TORCH_HOME": str(folder / TORCH_HOME),
            "COLUMNS": "100",
        }

    def run(self, command: str) -> tuple[int, str]:
        """Return the exit code, and what was said on both streams.

        A command that watches a folder, `inbox` or one in it, is given an image there, and
        is asked to end when that is recorded.
        """
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=self.folder,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            try:
                images = self._drop(command)
                if images:
                    wait_until(
                        lambda: process.poll() is not None or self._recorded(images), TIMEOUT_S
                    )
                    process.send_signal(signal.SIGTERM)
                code = process.wait(TIMEOUT_S)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            output.seek(0)
            return code, output.read()

    def _drop(self, command: str) -> list[str]:
        """Put a new image into each folder that a station watches; return their names."""
        if not command.startswith("stpm-live"):
            return []
        files = [self.folder / word for word in shlex.split(command) if word.endswith(".toml")]
        named = " ".join([command, *(path.read_text(encoding="utf-8") for path in files)])
        images = []
        for folder in sorted(set(INBOX.findall(named))):
            self._dropped += 1
            images.append(f"new{self._dropped}.png")
            shutil.copy(self.folder / "part.png", self.folder / folder / images[-1])
        return images

    def _recorded(self, images: list[str]) -> bool:
        files = (self.folder / "record").glob("*.jsonl")
        record = "".join(path.read_text() for path in files)
        return all(name in record for name in images)
