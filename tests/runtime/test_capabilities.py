"""What a new machine can run, on machines of several kinds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.export.cli import _note_imitation
from stpm.runtime import Bundle, capabilities
from stpm.runtime.backends import ENGINES, EngineSpec
from stpm.runtime.bundle.archive import npz_bytes, write_bundle
from stpm.runtime.capabilities import engine_states, gpu_precisions, processor_precisions
from stpm.runtime.cli import main

CPUINFO = {
    "flags\t\t: fpu avx2 fma": ("fp32",),
    "flags\t\t: avx2 avx512f avx512_vnni avx512_bf16": ("fp32", "bf16", "int8"),
    "flags\t\t: avx512_fp16 amx_bf16 amx_int8": ("fp32", "bf16", "fp16", "int8"),
    "Features\t: fp asimd asimdhp bf16 i8mm": ("fp32", "bf16", "fp16", "int8"),
}


def processor(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def told(path: Path, *arguments: str, **named: str) -> str:
        return text if str(path) == "/proc/cpuinfo" else read(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", told)


@pytest.mark.parametrize("text", CPUINFO)
def test_processors(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(text, monkeypatch)
    assert processor_precisions() == CPUINFO[text]


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        (None, None),
        ((6, 1), ("fp32",)),
        ((7, 5), ("fp32", "fp16", "int8")),
        ((9, 0), ("fp32", "fp16", "int8", "bf16")),
    ],
)
def test_gpus(
    capability: tuple[int, int] | None,
    expected: tuple[str, ...] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capabilities, "compute_capability", lambda: capability)
    assert gpu_precisions() == expected


def test_a_row_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "absent", EngineSpec("no_such_library", "x", "pip install it"))
    monkeypatch.setattr(capabilities, "gpu_count", lambda: 0)
    states = {state.name: state for state in engine_states()}
    assert states["absent"].why_not == "not installed, pip install it"
    assert not states["absent"].version
    assert states["onnxruntime"].runs
    assert "fp16" not in (states["onnxruntime"].precisions or ())
    assert "no NVIDIA GPU is visible" in states["torch-cuda"].why_not


def test_the_table_and_its_json() -> None:
    table = CliRunner().invoke(main, ["--engines"])
    assert table.exit_code == 0
    assert [line.split()[0] for line in table.stdout.splitlines()] == ["engine", *ENGINES]
    listed = json.loads(CliRunner().invoke(main, ["--engines", "--json"]).stdout)
    assert [row["name"] for row in listed] == list(ENGINES)
    assert {"version", "runs", "why_not", "precisions"} <= listed[0].keys()


def test_engines_are_tried_with_a_bundle(bundle_path: Path, tmp_path: Path) -> None:
    """One that the bundle was verified with, and the same after its golden images changed."""
    copied = Path(shutil.copytree(bundle_path, tmp_path / "weave.stpm"))
    table = CliRunner().invoke(main, [str(copied), "--engines", "--json"])
    rows = {row["name"]: row for row in json.loads(table.stdout)}
    verified = json.loads((copied / "manifest.json").read_text())["engines"]
    assert rows["onnxruntime"]["runs"] == ("onnxruntime" in verified)
    assert rows["openvino"]["runs"] == ("openvino" in verified)

    golden = Bundle(copied).golden()
    changed = replace(golden, anomaly_maps=golden.anomaly_maps * 2)
    manifest = Bundle(copied).manifest
    files = {"model.onnx": Bundle(copied).read("model.onnx"), "golden.npz": npz_bytes(changed)}
    write_bundle(copied, manifest, files)
    table = CliRunner().invoke(main, [str(copied), "--engines"])
    (line,) = (line for line in table.stdout.splitlines() if line.startswith("onnxruntime "))
    assert "no: " in line
    assert "differs from the golden maps" in line

    (copied / "manifest.json").write_text("{")
    damaged = CliRunner().invoke(main, [str(copied), "--engines"])
    assert damaged.exit_code == 1
    assert damaged.stdout == ""


@pytest.mark.parametrize("arguments", [[], ["a.stpm"], ["a.stpm", "b.png", "--engines"]])
def test_nothing_to_do_is_wrong_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "or --engines." in result.stderr


def test_export_says_what_the_processor_imitates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processor("flags : avx2 avx512_bf16", monkeypatch)
    _note_imitation("bf16", None)
    _note_imitation("fp16", ["torch-cuda"])
    assert capsys.readouterr().err == ""
    _note_imitation("fp16", None)
    assert "no FP16 arithmetic and emulates it" in capsys.readouterr().err
