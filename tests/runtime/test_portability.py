"""What Windows lacks and mypy --platform win32 does not see, and text of unknown encoding."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_KEYWORDS = {"pass_fds", "preexec_fn", "process_group", "umask"}
FILES = [
    path
    for floor in ("runtime", "train", "export")
    for path in sorted((ROOT / floor).rglob("*.py"))
]


def problems(source: str) -> Iterator[str]:
    """Name each import, keyword and text of unknown encoding, by its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            for name in [module or "", *(alias.name for alias in node.names)]:
                if name.partition(".")[0] in POSIX_MODULES:
                    yield f"{node.lineno}: imports {name}"
        elif isinstance(node, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            for name in sorted(POSIX_KEYWORDS & keywords.keys()):
                yield f"{node.lineno}: passes {name}"
            if "encoding" not in keywords and is_text(node, keywords):
                yield f"{node.lineno}: names no encoding"


def is_text(call: ast.Call, keywords: dict[str, ast.expr]) -> bool:
    """Whether a call reads or writes text: of a file, or of a process."""
    called = call.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    if name in ("read_text", "write_text"):
        return len(call.args) < (2 if name == "write_text" else 1)
    if name == "open":
        builtin = isinstance(called, ast.Name)
        positional = call.args[1:] if builtin else call.args
        mode = keywords.get("mode", positional[0] if positional else ast.Constant("r"))
        text = mode.value if isinstance(mode, ast.Constant) else None
        return isinstance(text, str) and set(text) <= set("rwxat+") and "b" not in text
    values = [keywords.get(word) for word in ("text", "universal_newlines")]
    return any(isinstance(value, ast.Constant) and value.value is True for value in values)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_needs_no_posix(path: Path) -> None:
    assert list(problems(path.read_text(encoding="utf-8"))) == []


def test_what_is_found() -> None:
    source = """
import os, resource
from pwd import getpwuid
subprocess.run(words, text=True, process_group=0)
open(path); open(path, "w"); path.open(); path.open("a"); path.open(mode="r")
path.read_text(); path.write_text(text)
"""
    right = """
import signal
subprocess.run(words, text=True, encoding="utf-8")
open(path, "rb"); path.open("wb"); path.open("w", encoding="utf-8"); Image.open(path)
path.read_text(encoding="utf-8"); path.write_text(text, "utf-8"); zipfile.open("name.npy")
"""
    assert len(list(problems(source))) == 2 + 2 + 5 + 2
    assert list(problems(right)) == []
