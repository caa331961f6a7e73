"""Is there a GPU? Asked of the driver, without CUDA."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from stpm.runtime.backends import gpu


class Driver:
    """NVML of a machine with some GPUs."""

    def __init__(self, count: int, status: int = 0) -> None:
        self.count, self.status = count, status

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.status

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, pointer: Any) -> int:  # noqa: N802
        pointer._obj.value = self.count
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, pointer: Any) -> int:  # noqa: N802
        pointer._obj.value = index + 1
        return 0

    def nvmlDeviceGetCudaComputeCapability(  # noqa: N802
        self, handle: Any, major: Any, minor: Any
    ) -> int:
        major._obj.value, minor._obj.value = 7 + handle.value, 5
        return 0


@pytest.fixture(autouse=True)
def visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "_driver_gpus", gpu._driver_gpus.__wrapped__)


@pytest.mark.parametrize(("driver", "count"), [(Driver(2), 2), (Driver(0), 0), (Driver(1, 9), 0)])
def test_the_driver_is_asked(driver: Driver, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert gpu.gpu_count() == count


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NVML", "libabsent.so.1")
    assert gpu.gpu_count() == 0


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_do_not_count(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(1))
    assert gpu.gpu_count() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpu.gpu_count() == 0


def test_the_first_gpu_tells_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(2))
    assert gpu.compute_capability() == (8, 5)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(0))
    assert gpu.compute_capability() is None
