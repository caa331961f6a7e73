"""Triton kernels against torch: on a GPU where there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stpm.export.resample import bilinear_matrix
from stpm.runtime.backends.torch_cuda.reference import Layout, Tables, neighbours

kernels: Any = pytest.importorskip(
    "stpm.runtime.backends.torch_cuda.kernels", reason="Triton is not installed"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 0.0}
"""What one rounding may change, by type; the interpreter cuts bfloat16 off."""


@dataclass(frozen=True)
class Case:
    """A batch size from 1 to 9, and fresh random numbers."""

    count: int
    random: torch.Generator

    def one_of(self, *variants: Any) -> Any:
        """Choose a variant, so that all batch sizes together see every one."""
        return variants[self.count % len(variants)]

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.count // 3 % 3]


COMPILE = """
import sys, torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaDriver
from triton.runtime import driver
from triton.runtime.jit import MockTensor

class Absent(CudaDriver):
    def __init__(self): pass
    def get_current_target(self): return GPUTarget("cuda", int(sys.argv[1]), 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

driver.set_active(Absent())
from stpm.runtime.backends.torch_cuda import kernels as k
f32, u8, i32 = (MockTensor.wrap_dtype(t) for t in (torch.float32, torch.uint8, torch.int32))
for dtype in (torch.float16, torch.float32):
    k._normalise.warmup(u8, f32, f32, dtype, 9, 8, 8, 4, 4, 0, 0, 2, k.PIXELS, grid=(1,))
    k._max_pool.warmup(dtype, dtype, 9, 8, 8, 4, 4, 64, 3, 2, 1, 16, 64, grid=(1, 1))
    k._unit_distance.warmup(dtype, dtype, f32, 9, 1e-12, 1024, 16, 256, grid=(1,))
tables, sizes = ((i32, f32, i32, f32),) * 3, ((64, 64), (32, 32), (16, 16))
k._product.warmup((f32,) * 3, tables, sizes, f32, f32, 256, 256, 3, k.PIXELS, grid=(1, 1))
"""


@pytest.fixture(params=range(1, 10))
def case(request: pytest.FixtureRequest) -> Case:
    """A batch size and its share of the variants; a failure prints the seed."""
    seed = int(np.random.default_rng().integers(1 << 31))
    print("seed", seed)
    return Case(request.param, torch.Generator().manual_seed(seed))


def tables(level: tuple[int, int], size: tuple[int, int]) -> Tables:
    found = [
        neighbours(torch.from_numpy(bilinear_matrix(*s))) for s in zip(level, size, strict=True)
    ]
    rows, columns = found
    assert rows is not None
    assert columns is not None
    return (*(t.to(DEVICE) for t in rows), *(t.to(DEVICE) for t in columns))  # type: ignore[return-value]


def test_normalise(case: Case) -> None:
    layout = case.one_of(
        Layout(1, 0, 0, 13, 17),
        Layout(2, 4, 4, 11, 12),
        Layout(2, 0, 2, 7, 10),
        Layout(4, 4, 8, 5, 7),
    )
    images = torch.randint(256, (case.count, 13, 17, 3), generator=case.random, dtype=torch.uint8)
    mean, std = torch.tensor([123.7, 116.3, 103.5]), torch.tensor([58.4, 57.1, 57.4])
    arguments = (tensor.to(DEVICE) for tensor in (images, mean, std))
    made = kernels.normalise(*arguments, case.dtype, layout).cpu()
    side = layout.block
    assert made.shape == (case.count, 4 * side**2, layout.rows, layout.columns)
    colours = made.float().unflatten(1, (side * side, 4)).transpose(1, 2).flatten(1, 2)
    frame = F.pixel_shuffle(colours, side)
    expected = torch.zeros(case.count, 4, frame.shape[2] + 99, frame.shape[3] + 99)
    normalised = ((images.double() - mean) / std).permute(0, 3, 1, 2).float()
    expected[:, :3, layout.top :, layout.left :][:, :, :13, :17] = normalised
    expected = expected[:, :, : frame.shape[2], : frame.shape[3]]
    limit = ROUNDING[case.dtype] or 1e-6
    torch.testing.assert_close(frame, expected, rtol=limit, atol=1e-6)


def test_max_pool(case: Case) -> None:
    channels = case.one_of(5, 64, 300)
    window = case.one_of((3, 2, 1, False), (3, 2, 0, True), (2, 2, 0, False), (3, 1, 1, False))
    kernel, stride, padding, ceil_mode = window
    x = torch.randn(case.count, channels, 9, 11, generator=case.random).to(case.dtype)
    x[0, 0, 2, 2] = float("nan")
    made = kernels.max_pool(x.to(DEVICE), kernel, stride, padding, ceil_mode=ceil_mode)
    expected = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode)
    torch.testing.assert_close(made.cpu(), expected, rtol=0, atol=0, equal_nan=True)


def test_unit_distance(case: Case) -> None:
    channels = case.one_of(3, 64, 300, 256)
    target, student = (
        torch.randn(case.count, channels, 5, 7, generator=case.random).relu().to(case.dtype)
        for _ in range(2)
    )
    target[:, :, 1, 1] = student[:, :, 1, 1] = student[:, :, 2, 2] = 0
    target[:, :, 3, 3] = 1e-4
    made = kernels.unit_distance(target.to(DEVICE), student.to(DEVICE), 1e-12).cpu()
    exact = [features.double() for features in (target, student)]
    t, s = (features / features.norm(dim=1, keepdim=True).clamp_min(1e-12) for features in exact)
    expected = (t - s).square().sum(dim=1, keepdim=True).float()
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)
    assert made[:, :, 1, 1].eq(0).all(), "two zero vectors have no distance"


def test_upsampled_product(case: Case) -> None:
    size, levels = (29, 41), [(8, 10), (4, 5), (2, 2), (1, 1)][: 1 + case.count % 4]
    distances = [torch.rand(case.count, 1, *level, generator=case.random) for level in levels]
    maps, scores = kernels.upsampled_product(
        [d.to(DEVICE) for d in distances], [tables(level, size) for level in levels], size
    )
    expected = torch.ones(case.count, 1, *size, dtype=torch.float64)
    for level in distances:
        expected *= F.interpolate(level.double(), size=size, mode="bilinear")
    torch.testing.assert_close(maps.cpu(), expected[:, 0].float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scores.cpu(), expected.amax(dim=(1, 2, 3)).float())


def test_a_map_that_is_not_a_number_is_no_finite_score() -> None:
    level = torch.rand(2, 1, 4, 4)
    level[1, 0, 3, 0] = float("nan")
    _, scores = kernels.upsampled_product([level.to(DEVICE)], [tables((4, 4), (8, 8))], (8, 8))
    assert scores.isfinite().tolist() == [True, False]


def test_the_kernels_are_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.try_out(torch.device(DEVICE))

    def wrong(*_: object, **__: object) -> Tensor:
        return torch.zeros(1, 8, 2, 2, device=DEVICE)

    monkeypatch.setattr(kernels, "max_pool", wrong)
    with pytest.raises(RuntimeError, match="other numbers"):
        kernels.try_out(torch.device(DEVICE))


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_the_kernels_compile_without_a_gpu(capability: int, tmp_path: Any) -> None:
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", COMPILE, str(capability)]
    subprocess.run(command, check=True, env=environment, timeout=300)
    assert len(list(tmp_path.rglob("*.cubin"))) >= 7


def test_neighbours_are_found_only_where_two_suffice() -> None:
    assert neighbours(torch.tensor([[0.5, 0.25, 0.25]])) is None
    assert neighbours(torch.tensor([[0.5, 0.0, 0.5]])) is None
    found = neighbours(torch.tensor([[0.0, 1.0], [0.25, 0.75], [0.0, 0.0]]))
    assert found is not None
    assert found[0].tolist() == [1, 0, 0]
    assert found[1].tolist() == [[1.0, 0.25, 0.0], [0.0, 0.75, 0.0]]
