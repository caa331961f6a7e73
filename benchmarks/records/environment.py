"""Where a measurement was made: hardware, system, versions, commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NotRequired, TypedDict

PACKAGES = (
    "stpm",
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "numpy",
    "pillow",
)
VECTOR_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_")
"""Beginnings of the processor flags that decide how fast a convolution runs."""
GPU_FIELDS = ("name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "memory.total")
"""As nvidia-smi names them; clocks in MHz, memory in MiB."""


class Processor(TypedDict):
    """A processor; `flags` are those of `VECTOR_FLAGS`."""

    model: str
    usable_cores: int | None
    flags: list[str]
    governor: str | None


class Commit(TypedDict):
    """A checkout's commit, and whether files differed from it."""

    id: str
    with_changes: bool


class Environment(TypedDict):
    """Hardware, system, versions and commit; what cannot be detected is None or left out.

    Attributes:
        load_average: processes that want a processor, over the last 1, 5 and 15 minutes.
    """

    processor: Processor
    memory_gib: float | None
    load_average: NotRequired[list[float]]
    gpus: list[dict[str, str]]
    system: str
    python: str
    packages: dict[str, str]
    commit: Commit | None


def environment() -> Environment:
    """Return what a reader needs to judge a figure."""
    found: Environment = {
        "processor": _processor(),
        "memory_gib": _memory_gib(),
        "gpus": _gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": _packages(),
        "commit": _commit(Path(__file__).resolve()),
    }
    if hasattr(os, "getloadavg"):
        found["load_average"] = [round(load, 2) for load in os.getloadavg()]
    return found


def usable_cores() -> int | None:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> Processor:
    info = _read(Path("/proc/cpuinfo")) or ""
    pairs = [line.split(":", 1) for line in info.splitlines() if ":" in line]
    values = {key.strip(): value.strip() for key, value in pairs}
    flags = [f for f in values.get("flags", "").split() if f.startswith(VECTOR_FLAGS)]
    return {
        "model": values.get("model name") or platform.processor(),
        "usable_cores": usable_cores(),
        "flags": sorted(flags),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
    }


def _memory_gib() -> float | None:
    for line in (_read(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / 2**20, 1)
    return None


def _gpus() -> list[dict[str, str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    rows = (_output(query) or "").splitlines()
    return [dict(zip(GPU_FIELDS, map(str.strip, row.split(",")), strict=False)) for row in rows]


def _commit(source: Path) -> Commit | None:
    """Return the commit of the checkout that tracks a file; None for an installed package."""
    git = ["git", "-C", str(source.parent)]
    commit = _output([*git, "rev-parse", "HEAD"])
    if commit is None or _output([*git, "ls-files", "--error-unmatch", str(source)]) is None:
        return None
    changes = _output([*git, "status", "--porcelain", "--untracked-files=no"])
    return {"id": commit, "with_changes": bool(changes)}


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
