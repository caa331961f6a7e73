"""What hardware could do at best: measured here, published for the paper's card."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

REPETITIONS = 5
MATRIX_SIDE = 1024
COPY_BYTES = 1 << 27

RTX_2080_TI = {
    "fp32_gflop_per_second": 13_450.0,
    "fp16_tensor_gflop_per_second": 107_600.0,
    "memory_gb_per_second": 616.0,
    "source": "NVIDIA Turing GPU Architecture whitepaper, RTX 2080 Ti, reference clocks",
}
"""The card of the paper's timings: theoretical rates, never reached by a network."""


def rates() -> dict[str, Any]:
    """Measure this machine's FP32 matrix product and memory copy; the paper's card beside them."""
    rng = np.random.default_rng(0)
    left, right = (rng.random((MATRIX_SIDE, MATRIX_SIDE), np.float32) for _ in range(2))
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    product_s = _fastest(lambda: np.matmul(left, right))
    copy_s = _fastest(lambda: np.copyto(target, source))
    here = {
        "fp32_gflop_per_second": round(2 * MATRIX_SIDE**3 / product_s / 1e9, 1),
        "memory_gb_per_second": round(2 * COPY_BYTES / copy_s / 1e9, 1),
        "source": "measured: NumPy matrix product and copy, best of several",
    }
    return {"this machine": here, "RTX 2080 Ti": RTX_2080_TI}


def _fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
