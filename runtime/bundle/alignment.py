"""How far parts may lie from the reference that they are brought to before they are scored."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

LONGEST = 256
"""Pixels of the longer side of the pictures that places are found in, at most."""
MOST_SHIFT = 0.5
MOST_DEGREES = 180.0
LEAST_CORRELATION = 0.7
"""Of a part that was found, at least: one that lies upside down may reach more than half."""
MAX_SIDE = 16384


def within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Reduce a (height, width) in pixels to a longer side of at most so many."""
    scale = min(1.0, longest / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


@dataclass(frozen=True)
class Alignment:
    """What counts as a part that was found.

    Attributes:
        size: (height, width) in pixels of the reference, and of the camera's images.
        shift: of the image's centre, as a share of the longer side, at most.
        degrees: of the turn either way, at most; 0 for parts that are only shifted, or are round.
        correlation: of reference and aligned part, at least.
    """

    size: tuple[int, int]
    shift: float = 0.1
    degrees: float = 15.0
    correlation: float = LEAST_CORRELATION

    @property
    def working_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the pictures that places are found in."""
        return within(self.size, LONGEST)

    def check(self) -> None:
        """Raise ValueError for limits that mean nothing."""
        if not 0 < self.shift <= MOST_SHIFT or not 0 <= self.degrees <= MOST_DEGREES:
            raise ValueError(
                f"got limits of {self.shift:g} of the longer side and {self.degrees:g} degrees, "
                f"expected a share above 0 and up to {MOST_SHIFT:g}, and 0 to {MOST_DEGREES:g} "
                "degrees"
            )

    @classmethod
    def from_dict(cls, values: Any) -> Alignment:
        """Read a manifest's `scoring.align`; ValueError for what it may not be."""
        if not isinstance(values, dict):
            raise ValueError(f"align is {brief(values)}, expected an object")
        size = values.get("size")
        if (
            not isinstance(size, list)
            or len(size) != 2
            or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in size)
        ):
            raise ValueError(f"align: size is {brief(size)}, expected two integers up to 16384")
        numbers = []
        for key in ("shift", "degrees", "correlation"):
            value: Any = values.get(key)
            # Comparing also refuses NaN, and integers too large for a float.
            if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
                raise ValueError(f"align: {key} is {brief(value)}, expected a finite number")
            numbers.append(float(value))
        alignment = cls((size[0], size[1]), *numbers)
        try:
            alignment.check()
        except ValueError as error:
            raise ValueError(f"align: {error}") from None
        if not 0 <= alignment.correlation <= 1:
            raise ValueError(
                f"align: correlation is {alignment.correlation:g}, expected a number from 0 to 1"
            )
        return alignment
