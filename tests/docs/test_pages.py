"""What README and the pages say can be typed: commands and flags exist, links lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from page_blocks import FENCE, ROOT, name_of

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
APPS = {
    "stpm-train": "stpm.train.cli",
    "stpm-export": "stpm.export.cli",
    "stpm-run": "stpm.runtime.cli",
    "stpm-calibrate": "stpm.runtime.site.cli",
    "stpm-live": "stpm.runtime.live.cli",
    "stpm-bench": "stpm.benchmarks.cli",
    "stpm-serve": "stpm.runtime.serve.cli",
    "stpm-fleet": "stpm.fleet.cli",
}


def command_of(module: str) -> Any:
    return typer.main.get_command(importlib.import_module(module).main)


def commands(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield (words, module) of each of our commands in the shell blocks of a page."""
    for language, block in FENCE.findall(text):
        if language != "sh":
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                words.pop(0)
            if not words:
                continue
            if words[0] in APPS:
                yield words[1:], APPS[words[0]]
            elif words[:2] == ["python", "-m"] and words[2].startswith("stpm."):
                yield words[3:], words[2]
            elif words[0].endswith("device.sh"):
                yield words[1:], "stpm.benchmarks.measure.gpu.cli"


def unknown_flags(words: list[str], module: str) -> list[str]:
    command = command_of(module)
    if hasattr(command, "commands"):
        if words[0] not in command.commands:
            return [f"no command {words[0]}"]
        command, words = command.commands[words[0]], words[1:]
    known = {flag for parameter in command.params for flag in parameter.opts}
    known |= {flag for parameter in command.params for flag in parameter.secondary_opts}
    given = [word.split("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)]
    return [flag for flag in given if flag not in known | {"--help", "--version"}]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_flags_exist(page: Path) -> None:
    for words, module in commands(page.read_text(encoding="utf-8")):
        assert unknown_flags(words, module) == [], f"{module} {words}"


def test_a_misspelt_flag_is_noticed() -> None:
    lines = "WHEELS=w stpm-export --ckpt a.pt --fp61   # --comment\nstpm-bench acuracy a\n"
    page = f"```sh\n{lines}```\n"
    found = [unknown_flags(*command) for command in commands(page)]
    assert found == [["--fp61"], ["no command acuracy"]]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"https?:", target):
            assert (page.parent / target).exists(), target
