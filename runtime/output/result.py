"""What an inspection returns: the score, the map, the verdict and the regions behind it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.output.components import label_regions
from stpm.runtime.output.map_score import UNALIGNED_SCORE, map_pixels

Verdict = Literal["ok", "warn", "anomalous", "unaligned"]
"""What the line is to do: nothing, look at it, reject it, or look for the part, which was not found
where it should lie and was not scored."""


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


@dataclass(frozen=True)
class RoiResult:
    """The inspection of one region of interest.

    Attributes:
        name: of the region.
        score: of its own pixels alone.
        threshold: a region with a higher score is anomalous.
        verdict: see `Result.verdict`; the image's is the worst of its regions'.
    """

    name: str
    score: float
    threshold: float
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Result:
    """The inspection of one image.

    Attributes:
        score: the image's anomaly score; the highest of float32 of a part that was not found.
        anomaly_map: float32 (H, W), in the camera's coordinates; 0 of a part that was not found.
        threshold: an image with a higher score is anomalous.
        pixel_threshold: a pixel with a higher map value is anomalous.
        image_size: (height, width) in pixels of the input image.
        warn_threshold: an image with a higher score that is not anomalous is to be looked at;
            None without such a limit.
        min_area: of the smallest region that counts, in pixels of the input image; 0 for any.
        rois: the regions of interest; empty where the whole image counts.
    """

    score: float
    anomaly_map: NDArray[np.float32]
    threshold: float
    pixel_threshold: float
    image_size: tuple[int, int]
    warn_threshold: float | None = None
    min_area: int = 0
    rois: tuple[RoiResult, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What the line is to do; see `Verdict`."""
        return verdict_of(self.score, self.threshold, self.warn_threshold)

    @property
    def is_anomalous(self) -> bool:
        """Whether the score is above the threshold, as that of a part is which was not found."""
        return self.verdict in ("anomalous", "unaligned")

    @cached_property
    def pred_mask(self) -> NDArray[np.bool_]:
        """Bool (H, W): the pixels of the map above the pixel threshold, in areas that count."""
        mask = np.greater(self.anomaly_map, self.pixel_threshold)
        needed = map_pixels(self.min_area, mask.size, self.image_size)
        if needed > 1:
            labels = label_regions(mask)
            mask &= (np.bincount(labels.ravel()) >= needed)[labels]
        return mask

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
        } | ({"rois": [asdict(roi) for roi in self.rois]} if self.rois else {})


def verdict_of(score: float, threshold: float, warn_threshold: float | None) -> Verdict:
    """Hold a score against the two limits."""
    if score >= UNALIGNED_SCORE:
        return "unaligned"
    if score > threshold:
        return "anomalous"
    return "warn" if warn_threshold is not None and score > warn_threshold else "ok"


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
