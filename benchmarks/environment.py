"""Where a measurement was made."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("stpm", "torch", "torchvision", "onnx", "onnxruntime", "openvino", "numpy", "pillow")


def environment() -> dict[str, str]:
    """Return the processor, the operating system and the versions of what is installed."""
    found = {"processor": _processor(), "system": platform.platform()}
    found["python"] = platform.python_version()
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
