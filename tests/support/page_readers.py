"""Reads the blocks of pages that nobody types: code by a compiler, files by their readers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from page_blocks import ROOT, Block

from stpm.fleet.plan import read_plan
from stpm.runtime.bundle.manifest import parse_manifest
from stpm.runtime.live.line import LinePlan, read_line
from stpm.runtime.live.record import read_record

INCLUDE = ROOT / "runtime/c/include"
COMPILERS = {"c": ("cc", "-std=c99"), "cpp": ("c++", "-std=c++17")}
PROGRAM = """
#include <stpm.hpp>
struct Mat { // what stpm::view reads of a cv::Mat
    std::uint8_t *data;
    int rows, cols;
    std::size_t step;
    int depth() const;
    int channels() const;
};
extern Mat frame;
extern stpm::Detector detector;
void reject();
void reject(const std::vector<stpm_region> &);
void put_aside();
int main() {
BLOCK
}
"""
"""What a block of C++ stands in: a program with a camera and a line."""


def compile_block(block: Block) -> None:
    compiler, standard = COMPILERS[block.language]
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    text = block.text
    if block.language == "cpp":
        lines = [line for line in text.splitlines() if not line.startswith("#include <stpm.hpp>")]
        text = PROGRAM.replace("BLOCK", "\n".join(lines))
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}"]
    done = subprocess.run(
        [compiler, standard, *flags, "-x", "c++" if block.language == "cpp" else "c", "-"],
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{block.place}:\n{done.stderr}"


def read_block(block: Block) -> None:
    """Read JSON or TOML as the project does, in a folder where the page's commands have run."""
    shown = Path("shown.toml")
    shown.write_text(block.text, encoding="utf-8")
    match block.page, block.language:
        case "docs/format.md", "json":
            values = json.loads(block.text)
            assert json.loads(parse_manifest(values).to_json()) == values
        case "docs/live.md", "json":
            entries = [line.entry for line in read_record(Path("record"))]
            keys = [entry.keys() for entry in entries if entry["verdict"] == "anomalous"]
            assert json.loads(block.text).keys() in keys
        case "docs/live.md", "toml":
            plan = read_line(shown, LinePlan())
            assert [camera.name for camera in plan.cameras] == ["top", "side"]
        case "docs/scale.md", "toml":
            # Two cameras, three products and seeds; or three categories and seeds.
            wanted = 18 if "cameras" in block.text else 9
            assert len(read_plan(shown, Path("fleet")).models) == wanted
        case _:
            pytest.fail(f"{block.place}: nobody reads this {block.language}")
