"""Whether this machine has an NVIDIA GPU, without a CUDA library and without starting CUDA."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
"""The driver's management library. Asking CUDA itself would break it in forked processes."""


def gpu_count() -> int:
    """Count the NVIDIA GPUs that programs may use; 0 where there is none or no driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0
    return len(_driver_gpus())


def compute_capability() -> tuple[int, int] | None:
    """Return (major, minor) of the first GPU that programs may use; None where there is none."""
    return _driver_gpus()[0] if gpu_count() else None


@cache
def _driver_gpus() -> list[tuple[int, int]]:
    """List the compute capabilities of the driver's GPUs."""
    try:
        library = ctypes.CDLL(NVML)
    except OSError:
        return []
    if library.nvmlInit_v2() != 0:
        return []
    count = ctypes.c_uint(0)
    found = []
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
        for index in range(count.value):
            handle, major, minor = ctypes.c_void_p(), ctypes.c_int(0), ctypes.c_int(0)
            library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
            library.nvmlDeviceGetCudaComputeCapability(
                handle, ctypes.byref(major), ctypes.byref(minor)
            )
            found.append((major.value, minor.value))
    library.nvmlShutdown()
    return found
