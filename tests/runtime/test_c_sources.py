"""What of libstpm Python users see: the path of its sources, and its header in the docs."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from stpm.runtime.cli import main

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "runtime/c/include/stpm.h"
MOST_HEADER_LINES = 240


def test_c_sources_prints_the_folder() -> None:
    done = CliRunner().invoke(main, ["--c-sources"])
    assert done.exit_code == 0
    folder = Path(done.stdout.strip())
    for name in ("CMakeLists.txt", "include/stpm.h", "include/stpm.hpp", "src/stpm.cpp"):
        assert (folder / name).is_file()


def test_header_in_the_docs_is_the_header() -> None:
    blocks = re.findall(r"```c\n(.*?)```", (ROOT / "docs/c.md").read_text(), re.DOTALL)
    assert HEADER.read_text() in blocks


def test_header_stays_short() -> None:
    assert len(HEADER.read_text().splitlines()) < MOST_HEADER_LINES
