"""Reads the fenced blocks of README and of the pages, and the commands in them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
        page: as `docs/train.md`.
        language: what the fence says: "sh", "python", "" ...
        line: of the page, from 1, where `text` begins.
        text: with its last line break.
    """

    page: str
    language: str
    line: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(name_of(page), match[1], text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in FENCE.finditer(text)
    ]


def commands(block: Block) -> Iterator[str]:
    """Yield each command of a shell block, whole: one may go over several lines."""
    pending = ""
    for line in block.text.splitlines(keepends=True):
        pending += line
        if pending.strip() and not pending.endswith("\\\n") and _is_complete(pending):
            yield pending.strip()
            pending = ""
    assert not pending.strip(), f"{block.place}: {pending!r} is cut off"


def _is_complete(text: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True).returncode == 0
