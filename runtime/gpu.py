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
    return _driver_gpu_count()


@cache
def _driver_gpu_count() -> int:
    try:
        library = ctypes.CDLL(NVML)
    except OSError:
        return 0
    if library.nvmlInit_v2() != 0:
        return 0
    count = ctypes.c_uint(0)
    status = library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    library.nvmlShutdown()
    return count.value if status == 0 else 0
