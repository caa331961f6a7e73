"""What scripts/test says where the system's packages are missing and cannot be installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize("script", ["system-packages", "test", "test-c"])
def test_a_missing_compiler_stops_with_the_line_to_type(tmp_path: Path, script: str) -> None:
    for tool in ("bash", "dirname", "env", "id"):
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    done = subprocess.run(
        [SCRIPTS / script],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: libstpm cannot be built here; on Debian and Ubuntu: sudo apt-get"
    )
    for package in ("cmake", "g++", "libzip-dev", "ninja-build", "nlohmann-json3-dev"):
        assert package in line.split()
