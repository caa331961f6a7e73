"""What a machine can run, and which precisions it computes in without imitating them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stpm.runtime.backends import ENGINES, EngineSpec, is_installed
from stpm.runtime.backends.gpu import compute_capability, gpu_count
from stpm.runtime.backends.probe import run_child
from stpm.runtime.errors import BackendError

OPEN_BUNDLE = """
import sys
from stpm.runtime import Detector, StpmError
try:
    Detector(sys.argv[1], sys.argv[2])
except StpmError as error:
    sys.exit(str(error))
"""
PROCESSOR_FLAGS = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
    "int8": {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"},
}
"""Names in /proc/cpuinfo, any of which means that a precision has instructions of its own."""
GPU_FROM = {"fp16": (7, 0), "int8": (7, 2), "bf16": (8, 0)}
"""The first compute capability whose tensor cores take a precision."""
NOT_ON = {"onnxruntime": {"fp16", "bf16"}, "torch-cuda": {"int8"}}
"""Precisions for which an engine has no kernels, whatever the hardware has."""


@dataclass(frozen=True)
class EngineState:
    """An engine on this machine.

    Attributes:
        name: key of `ENGINES`.
        version: the library's; "" where it is not installed.
        runs: whether it can be opened here.
        why_not: what stands in the way, with the command that helps; "" where it runs.
        precisions: that it computes in natively here; None where that is not known.
    """

    name: str
    version: str
    runs: bool
    why_not: str
    precisions: tuple[str, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def engine_states() -> list[EngineState]:
    """Describe every engine, the fastest first."""
    return [_state(name, spec) for name, spec in ENGINES.items()]


def tried_with(bundle: Path, states: Sequence[EngineState]) -> list[EngineState]:
    """Open a bundle with each engine that should run, in a process each: some crash.

    Args:
        bundle: the folder; its golden images are replayed.
        states: from `engine_states`.

    Returns:
        The states, with what each engine then said.
    """

    def tried(state: EngineState) -> EngineState:
        if not state.runs:
            return state
        try:
            run_child(state.name, ["-c", OPEN_BUNDLE, str(bundle), state.name])
        except BackendError as error:
            return replace(state, runs=False, why_not=str(error))
        return state

    with ThreadPoolExecutor(len(states)) as pool:
        return list(pool.map(tried, states))


def processor_precisions() -> tuple[str, ...] | None:
    """Name the precisions that the processor has instructions for; None where it does not tell."""
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, values = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags |= set(values.split())
    except OSError:
        return None
    return ("fp32", *(name for name, any_of in PROCESSOR_FLAGS.items() if flags & any_of))


def gpu_precisions() -> tuple[str, ...] | None:
    """Name the precisions that the first GPU has tensor cores for; None without a GPU."""
    capability = compute_capability()
    if capability is None:
        return None
    return ("fp32", *(name for name, first in GPU_FROM.items() if capability >= first))


def _state(name: str, spec: EngineSpec) -> EngineState:
    obstacles = []
    if not is_installed(spec):
        obstacles.append(f"not installed, {spec.install}")
    if spec.needs_gpu and not gpu_count():
        obstacles.append("no NVIDIA GPU is visible (nvidia-smi, CUDA_VISIBLE_DEVICES)")
    known = gpu_precisions() if spec.needs_gpu else processor_precisions()
    missing = NOT_ON.get(name, set())
    precisions = None if known is None else tuple(p for p in known if p not in missing)
    return EngineState(name, _version(spec), not obstacles, "; ".join(obstacles), precisions)


def _version(spec: EngineSpec) -> str:
    names = [spec.distribution] if spec.distribution else [spec.library]
    for distribution in (*names, *(name.replace("_", "-") for name in names)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""
