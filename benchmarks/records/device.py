"""A GPU's measurement as it is kept: `benchmarks/device.sh`."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from stpm.benchmarks.records.header import Header


class DeviceCase(TypedDict):
    """A batch on a contender; `gpu_seconds` is empty where the GPU cannot be asked."""

    contender: str
    size: int
    batch: int
    mode: str
    seconds: list[float]
    gpu_seconds: list[float]
    peak_bytes: NotRequired[int]
    error: NotRequired[str]


class Correctness(TypedDict, total=False):
    """Differences from FP32 torch on golden images, or `error`."""

    map_difference: float
    score_difference: float
    holds: bool
    error: str


class Start(TypedDict, total=False):
    """A contender's seconds from its process's start, or `error`."""

    opened_s: float
    first_score_s: float
    error: str


class Sustained(TypedDict, total=False):
    """Many images in one call, or `error`."""

    images_per_second: list[float]
    power_w: list[float | None]
    used_bytes: int | None
    error: str


class Bar(TypedDict):
    """What is to be reached, and what was; None where it was not measured."""

    bar: float
    reached: float | None


class Peak(TypedDict):
    """What the device was measured to do, per second."""

    flop: float
    bytes: float


class Roof(TypedDict):
    """The least seconds of each batch at a size."""

    size: int
    least_seconds: dict[str, float]


class Training(TypedDict):
    """One training; times and figures are absent where it was not done."""

    category: str
    seed: int
    epochs: int
    side_by_side: int
    seconds: NotRequired[float]
    epoch_seconds: NotRequired[float]
    image_auroc: NotRequired[float | None]
    pixel_auroc: NotRequired[float | None]
    aupro: NotRequired[float | None]
    error: NotRequired[str]
    accuracy_error: NotRequired[str]


class DeviceRecord(Header):
    """A result of kind "device"; `refused` and `left_out` name what was not measured."""

    kind: Literal["device"]
    device: str
    commit: str
    minutes: float
    cases: list[DeviceCase]
    correctness: dict[str, Correctness]
    starts: dict[str, Start]
    sustained: dict[str, dict[str, Sustained]]
    refused: dict[str, str]
    left_out: list[str]
    bars: dict[str, Bar]
    built_with: NotRequired[dict[str, dict[str, str]]]
    peak: NotRequired[Peak]
    roofline: NotRequired[list[Roof]]
    training: NotRequired[list[Training]]
