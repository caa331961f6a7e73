"""What an inspection returns: the score, the map, the verdict and the regions behind it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["ok", "warn", "anomalous"]


@dataclass(frozen=True)
class Region:
    """One connected area of anomalous pixels.

    Attributes:
        box: (top, left, bottom, right) in pixels of the input image, bottom and right exclusive.
        area: in pixels of the input image.
        peak: the highest map value in it.
    """

    box: tuple[int, int, int, int]
    area: float
    peak: float


@dataclass(frozen=True, eq=False)
class Result:
    """The inspection of one image.

    Attributes:
        score: the image's anomaly score.
        anomaly_map: float32 (H, W).
        threshold: an image with a higher score is anomalous.
        pixel_threshold: a pixel with a higher map value is anomalous.
        image_size: (height, width) in pixels of the input image.
        warn_threshold: an image with a higher score that is not anomalous is to be looked at;
            None without such a limit.
    """

    score: float
    anomaly_map: NDArray[np.float32]
    threshold: float
    pixel_threshold: float
    image_size: tuple[int, int]
    warn_threshold: float | None = None

    @property
    def verdict(self) -> Verdict:
        """What the line is to do: "ok", "warn" (look at it) or "anomalous"."""
        if self.is_anomalous:
            return "anomalous"
        is_above = self.warn_threshold is not None and self.score > self.warn_threshold
        return "warn" if is_above else "ok"

    @property
    def is_anomalous(self) -> bool:
        """Whether the score is above the threshold."""
        return bool(self.score > self.threshold)

    @cached_property
    def pred_mask(self) -> NDArray[np.bool_]:
        """Bool (H, W): the pixels of the map above the pixel threshold."""
        return np.greater(self.anomaly_map, self.pixel_threshold)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The 8-connected regions of `pred_mask`, the highest peak first."""
        return _regions(self.pred_mask, self.anomaly_map, self.image_size)

    def summary(self) -> dict[str, Any]:
        """Return the score, threshold, verdict and regions as plain values for JSON."""
        return {
            "score": float(self.score),
            "threshold": float(self.threshold),
            "verdict": self.verdict,
            "is_anomalous": self.is_anomalous,
            "regions": [asdict(r) | {"box": list(r.box)} for r in self.regions],
        }


def label_regions(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the 8-connected regions of a mask.

    Args:
        mask: bool (H, W).

    Returns:
        int32 (H, W): 0 outside the mask, then 1, 2, ... in the reading order of the regions' first
        pixels.

    Source: He, Chao & Suzuki, "A run-based two-scan labeling algorithm", IEEE Transactions on
        Image Processing 17(5), 2008; the unions are done for all runs at once.
    """
    height, width = mask.shape
    stride = width + 2
    padded = np.zeros((height, stride), dtype=np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded.ravel())
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    upper, lower = _touching(starts, ends, stride)
    _, numbers = np.unique(_roots(upper, lower, len(starts)), return_inverse=True)
    labels = np.zeros((height, width), dtype=np.int32)
    labels[mask] = np.repeat(numbers + 1, ends - starts)
    return labels


def _touching(
    starts: NDArray[np.intp], ends: NDArray[np.intp], stride: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair each run with the runs of the next row that it touches, also by a corner."""
    first = np.searchsorted(ends, starts + stride, side="left")
    last = np.searchsorted(starts, ends + stride, side="right")
    counts = last - first
    upper = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(first, counts) + within


def _roots(upper: NDArray[np.intp], lower: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return for each run the lowest run of its region."""
    parent = np.arange(count)
    while True:
        a, b = parent[upper], parent[lower]
        if np.array_equal(a, b):
            return parent
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        # Every run must point at its root again before the next round joins roots.
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]


def _regions(
    mask: NDArray[np.bool_], anomaly_map: NDArray[np.float32], image_size: tuple[int, int]
) -> tuple[Region, ...]:
    numbers = label_regions(mask)[mask]
    if numbers.size == 0:
        return ()
    order = np.argsort(numbers, kind="stable")
    first = np.flatnonzero(np.diff(numbers[order], prepend=0))
    pixels = np.diff(first, append=len(order))
    rows, columns = (axis[order] for axis in np.nonzero(mask))
    boxes = np.stack(
        [
            np.minimum.reduceat(rows, first),
            np.minimum.reduceat(columns, first),
            np.maximum.reduceat(rows, first) + 1,
            np.maximum.reduceat(columns, first) + 1,
        ],
        axis=1,
    )
    peaks = np.maximum.reduceat(anomaly_map[mask][order], first)
    pixel_area = image_size[0] * image_size[1] / mask.size
    regions = [
        Region(_scale(box, mask.shape, image_size), count * pixel_area, peak)
        for box, count, peak in zip(boxes.tolist(), pixels.tolist(), peaks.tolist(), strict=True)
    ]
    return tuple(sorted(regions, key=lambda region: -region.peak))


def _scale(
    box: list[int], size: tuple[int, ...], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Grow a box of map pixels to whole image pixels; integers keep it inside the image."""
    top, left, bottom, right = box
    (height, width), (image_height, image_width) = size, image_size
    return (
        top * image_height // height,
        left * image_width // width,
        -(-bottom * image_height // height),
        -(-right * image_width // width),
    )
