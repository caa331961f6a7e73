"""Brings parts that lie shifted and turned to a reference, and their maps back; by OpenCV.

A part's place is found in small grey pictures. Coarsely: the reference, turned in steps, is looked
for within the limits by normalised correlation. Then finely: by the enhanced correlation
coefficient (ECC), from there. The port is in runtime/c/src/aligner.cpp.

Source: Evangelidis & Psarakis, "Parametric image alignment using enhanced correlation coefficient
    maximization", IEEE Transactions on Pattern Analysis and Machine Intelligence 30(10), 2008.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.alignment import Alignment, within

COARSE = 64
"""Pixels of the longer side of the pictures of the coarse search, at most."""
STEP = 3.0
"""Degrees from one turn of the coarse search to the next, at most."""
FLAT = 2.0
"""Grey levels of standard deviation; a picture below it shows nothing to align by."""
BLUR = 5
"""Side of the Gaussian filter before ECC, in pixels."""
ITERATIONS, GAIN = 100, 1e-5
"""ECC ends after so many steps, or where one gains less correlation."""
_BACKWARDS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a part lies.

    Attributes:
        matrix: float64 (2,3), from the reference's pixels (x, y) to the camera's.
        size: (height, width) of the pictures that these pixels are of.
        correlation: of the reference with the aligned part.
    """

    matrix: NDArray[np.float64]
    size: tuple[int, int]
    correlation: float

    def to_reference(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image uint8 (H,W) or (H,W,3) to the reference; its edge goes on outside.

        Mirrored there a part that is cut off would show an edge that no good part has.
        """
        aligned = cv2.warpAffine(
            image,
            self._at(image.shape),
            (image.shape[1], image.shape[0]),
            flags=_BACKWARDS,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(aligned, np.uint8).reshape(
            image.shape
        )  # of one plane OpenCV drops the axis

    def to_camera(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a map float32 (h,w) back; 0 where the reference does not reach."""
        return np.asarray(self._back(anomaly_map, cv2.INTER_LINEAR), np.float32)

    def labels_to_camera(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring labels uint8 (h,w) back; 0 where the reference does not reach."""
        return np.asarray(self._back(labels, cv2.INTER_NEAREST), np.uint8)

    def _back(self, values: NDArray[Any], flags: int) -> Any:
        size = values.shape[1], values.shape[0]
        return cv2.warpAffine(values, self._at(values.shape), size, flags=flags)

    def _at(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """Return the matrix for pictures of another size, whose pixels have their centres at 0."""
        sides = np.array([shape[1] / self.size[1], shape[0] / self.size[0]])
        matrix = np.empty((2, 3))
        matrix[:, :2] = self.matrix[:, :2] * sides[:, None] / sides
        centre = self.matrix[:, 2] + 0.5 - self.matrix[:, :2] @ np.array([0.5, 0.5])
        matrix[:, 2] = centre * sides - 0.5 + matrix[:, :2] @ np.array([0.5, 0.5])
        return matrix


class Aligner:
    """Finds parts within limits."""

    def __init__(self, alignment: Alignment, reference: NDArray[np.uint8]) -> None:
        """Prepare the search.

        Args:
            alignment: the limits.
            reference: uint8 (h,w), of `Alignment.working_size`.
        """
        self.alignment = alignment
        self.reference = reference

    def __call__(
        self, inputs: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], list[Placement | None]]:
        """Align the graph's inputs uint8 (N,H,W,C).

        Returns:
            The aligned inputs, those as they were that were not found, and each one's placement.
        """
        places = [self.place(self.picture(image)) for image in inputs]
        aligned = [
            image if place is None else place.to_reference(image)
            for image, place in zip(inputs, places, strict=True)
        ]
        return np.stack(aligned), places

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Make the picture uint8 (h,w) that a place is found in of an image uint8 (H,W,C)."""
        grey = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return _reduced(np.asarray(grey, np.uint8), self.alignment.working_size)

    def place(self, picture: NDArray[np.uint8]) -> Placement | None:
        """Find the part in a picture uint8 (h,w); None where it is not found within the limits."""
        if is_flat(picture):
            return None
        near = self._near(picture)
        turned = np.asarray(
            cv2.warpAffine(
                picture, near, self._sides, flags=_BACKWARDS, borderMode=cv2.BORDER_REPLICATE
            ),
            np.uint8,
        )
        seen = cv2.warpAffine(
            np.full_like(picture, 255),
            near,
            self._sides,
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        )
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, ITERATIONS, GAIN)
        try:
            correlation, rest = cv2.findTransformECC(
                self.reference,
                turned,
                np.eye(2, 3, dtype=np.float32),
                cv2.MOTION_EUCLIDEAN if self.alignment.degrees else cv2.MOTION_TRANSLATION,
                criteria,
                seen,
                BLUR,
            )
        except cv2.error as error:
            if error.code == cv2.Error.StsNoConv:
                return None
            raise
        matrix = near @ np.vstack([np.asarray(rest, np.float64), [0, 0, 1]])
        found = Placement(matrix, self.alignment.working_size, float(correlation))
        return found if self._is_within(found) else None

    def _is_within(self, found: Placement) -> bool:
        limits = self.alignment
        if not found.correlation >= limits.correlation:
            return False
        centre = _centre(limits.working_size)
        shift = found.matrix @ [*centre, 1.0] - centre
        degrees = math.degrees(math.atan2(found.matrix[1, 0], found.matrix[0, 0]))
        return bool(
            math.hypot(*shift) <= limits.shift * max(limits.working_size)
            and abs(degrees) <= limits.degrees
        )

    @property
    def _sides(self) -> tuple[int, int]:
        height, width = self.alignment.working_size
        return width, height

    @cached_property
    def _coarse_size(self) -> tuple[int, int]:
        return within(self.alignment.working_size, COARSE)

    @cached_property
    def _margin(self) -> int:
        """Pixels that the coarse search goes each way."""
        return math.ceil(self.alignment.shift * max(self._coarse_size))

    @cached_property
    def _turned(self) -> list[tuple[float, NDArray[np.uint8]]]:
        """Return the reference as it looks when it is turned, by degrees."""
        small = _reduced(self.reference, self._coarse_size)
        steps = math.ceil(self.alignment.degrees / STEP)
        turns = [self.alignment.degrees * k / max(1, steps) for k in range(-steps, steps + 1)]
        size = small.shape[1], small.shape[0]
        centre = _centre(self._coarse_size)
        return [
            (
                degrees,
                np.asarray(
                    cv2.warpAffine(
                        small,
                        _rigid(degrees, (0, 0), centre),
                        size,
                        borderMode=cv2.BORDER_REPLICATE,
                    ),
                    np.uint8,
                ),
            )
            for degrees in turns
        ]

    def _near(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Search for the turned references; returns the matrix of the best."""
        margin = self._margin
        small = _reduced(picture, self._coarse_size)
        wide = cv2.copyMakeBorder(small, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        best, found = -math.inf, (0.0, 0, 0)
        for degrees, turned in self._turned:
            matches = cv2.matchTemplate(wide, turned, cv2.TM_CCOEFF_NORMED)
            _, highest, _, (x, y) = cv2.minMaxLoc(matches)
            if highest > best:
                best, found = highest, (degrees, x - margin, y - margin)
        size, coarse = self.alignment.working_size, self._coarse_size
        shift = found[1] * size[1] / coarse[1], found[2] * size[0] / coarse[0]
        return _rigid(found[0], shift, _centre(size))


def is_flat(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture uint8 (h,w) shows nothing to align by."""
    return bool(picture.std() < FLAT)


def _reduced(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    small = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _centre(size: tuple[int, int]) -> NDArray[np.float64]:
    return np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])


def _rigid(
    degrees: float, shift: tuple[float, float], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the matrix float64 (2,3) that turns about a centre, and shifts."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, centre + shift - turn @ centre])
