"""What the commands have in common: their version, their completion, `python -m`."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

MODULES = {
    "stpm-train": "stpm.train",
    "stpm-export": "stpm.export",
    "stpm-run": "stpm.runtime",
    "stpm-calibrate": "stpm.runtime.site",
    "stpm-bench": "stpm.benchmarks",
    "stpm-serve": "stpm.runtime.serve",
    "stpm-fleet": "stpm.fleet",
}
ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sysconfig.get_path("scripts"))


def output(*words: str | Path, **environment: str) -> str:
    return subprocess.run(
        words, env=os.environ | environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(("program", "module"), MODULES.items())
def test_program_and_module_print_the_version_of_its_one_place(program: str, module: str) -> None:
    expected = (ROOT / "runtime/c/VERSION").read_text(encoding="utf-8")
    assert version("stpm") == expected.strip()
    assert output(PROGRAMS / program, "--version") == expected
    assert output(sys.executable, "-m", module, "--version") == expected


@pytest.mark.parametrize(("program", "module"), MODULES.items())
def test_module_has_the_help_of_the_program(program: str, module: str) -> None:
    assert output(sys.executable, "-m", module, "--help") == output(PROGRAMS / program, "--help")


@pytest.mark.parametrize("program", MODULES)
def test_completion_can_be_installed(program: str, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    output("bash", "-c", f"{program} --install-completion; exit", **home)
    lines = output(
        "bash",
        "-c",
        f"source ~/.bashrc; COMP_WORDS=({program} --vers); COMP_CWORD=1; "
        f"$(complete -p {program} | sed 's/.*-F //; s/ .*//') {program}; echo ${{COMPREPLY[@]}}",
        **home,
    )
    assert lines.split() == ["--version"]
