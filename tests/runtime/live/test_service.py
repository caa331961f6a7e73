"""The systemd unit of the docs: systemd takes it, and its command runs and ends as it asks."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stations import Live, wait_until

from stpm.runtime.live.read_record import read_record

UNIT = Path(__file__).parents[3] / "docs/examples/stpm-live.service"


def verified(folder: Path, text: str) -> str:
    """Return what systemd has to say of a unit whose program is here."""
    program = folder / "stpm-live"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = folder / "stpm-live.service"
    unit.write_text(text.replace("/opt/stpm/bin/stpm-live", str(program)))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert verified(tmp_path, text) == ""
    assert "'Restarts'" in verified(tmp_path, text.replace("Restart=", "Restarts="))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_its_command_runs_and_ends(bundle_path: Path, good: list[Path], tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "line.toml").write_text(
        f"[[camera]]\nname = 'top'\nsource = 'inbox'\nbundle = {json.dumps(str(bundle_path))}\n"
    )
    (command,) = re.findall("^ExecStart=(.+)$", UNIT.read_text(), re.MULTILINE)
    program, *arguments = shlex.split(command)
    assert program.endswith("/stpm-live")
    places = {"/etc/stpm/line.toml": "line.toml", "/var/lib/stpm/record": tmp_path / "state/record"}
    live = Live(tmp_path, *(places.get(word, word) for word in arguments))
    shutil.copy(good[0], tmp_path / "inbox")
    wait_until(lambda: len(live.lines) == 1)
    assert live.end() == 0
    assert len(list(read_record(tmp_path / "state/record"))) == 1
