"""The reference of a bundle that aligns parts, tried on good images of the line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.batches import fit_input
from stpm.runtime.bundle.alignment import LEAST_CORRELATION, Alignment
from stpm.runtime.bundle.archive import InputContract, Reference
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.output.console import note
from stpm.runtime.replay import check_opencv

if TYPE_CHECKING:
    from stpm.runtime.aligner import Aligner

LIMIT = "10%,15"
"""By default."""
SPARE = 10.0
"""Times as far from 1 as that of the worst good image a part's correlation may lie."""
ENOUGH = 0.85
"""A part with this correlation is found, however alike the good images are: a defect is a
difference, too, and its map is wanted."""
_Found = tuple[float, NDArray[np.uint8], NDArray[np.uint8]]
"""A part's correlation with the reference, its aligned picture, and as the camera saw it."""
_LIMIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(%?),([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True)
class Limit:
    """How far a part may lie from the reference.

    Attributes:
        text: as it was asked for.
        shift: in pixels of the image, or as a share of its longer side.
        is_share: which of the two.
        degrees: of the turn either way.
    """

    text: str
    shift: float
    is_share: bool
    degrees: float

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read "SHIFT%,DEGREES" or "PIXELS,DEGREES"; DataError for anything else."""
        match = _LIMIT.fullmatch(text.replace(" ", ""))
        if match is None:
            raise DataError(
                f"got --align-limit {text!r}, expected SHIFT,DEGREES such as {LIMIT}, or 40,15 "
                "with the shift in pixels; correct it."
            )
        is_share = bool(match[2])
        return cls(text, float(match[1]) / (100 if is_share else 1), is_share, float(match[3]))

    def of(self, size: tuple[int, int]) -> Alignment:
        """Return the limits for images of (height, width) pixels; DataError beyond what is."""
        shift = self.shift if self.is_share else self.shift / max(size)
        alignment = Alignment(size, shift, self.degrees)
        try:
            alignment.check()
        except ValueError as error:
            raise DataError(f"{error}; choose another --align-limit.") from None
        return alignment


def check_whole_images(what: Path, is_cut: bool) -> None:
    """Raise DataError where images are cut into tiles, which cannot be aligned."""
    if is_cut:
        raise DataError(
            f"{what}: cuts its images into tiles, expected one whose graph takes them whole; "
            "leave --align out."
        )


def align_to(
    path: Path, limit: Limit, images: Sequence[Path], contract: InputContract
) -> tuple[Alignment, Reference]:
    """Take an image as the reference, and try it on good images.

    From then on a part's correlation with the reference may lie `SPARE` times as far from 1 as the
    lowest of these, which is said, but need not be above `ENOUGH`.

    Args:
        path: of the image.
        limit: how far the parts may lie from it.
        images: good ones, of the same camera.
        contract: of the graph.

    Returns:
        The limits, and the reference with three of the images: those that correlate most, least,
        and in the middle.

    Raises:
        BackendError: OpenCV is not installed.
        DataError: an image cannot be read; the reference has another size than the images, shows
            nothing to align by, or none of them can be brought to it.
    """
    check_opencv(f"--align {path}")
    from stpm.runtime.aligner import Aligner, is_flat

    image = load_image(path, contract.bit_depth, contract.channels)
    alignment = limit.of((image.shape[0], image.shape[1]))
    _check_size(path, alignment.size, contract.size if contract.resize == "graph" else None)
    # The reference is only known once it has been brought to the size that the limits say.
    picture = Aligner(alignment, np.empty(0, np.uint8)).picture(fit_input(image, contract))
    if is_flat(picture):
        raise DataError(
            f"{path}: is flat, with nothing on it to align by, expected a part with edges; choose "
            "another reference."
        )
    found = _aligned(path, Aligner(alignment, picture), images, contract)
    if not found:
        raise DataError(
            f"{path}: none of the {len(images)} good images could be brought to it within "
            f"{limit.text} degrees, expected most of them; widen --align-limit, or take one of "
            "them as the reference."
        )
    least = min(ENOUGH, max(LEAST_CORRELATION, 1 - SPARE * (1 - found[0][0])))
    note(
        f"{path}: {len(found)} of {len(images)} good images aligned, with correlations of "
        f"{found[0][0]:.3f} to {found[-1][0]:.3f}; a part below {least:.3f} will not be"
    )
    return replace(alignment, correlation=least), _reference(picture, found)


def _aligned(
    path: Path, aligner: Aligner, images: Sequence[Path], contract: InputContract
) -> list[_Found]:
    """Align images to the one at a path; returns those that were found, by correlation."""
    found = []
    for other in images:
        pixels = load_image(other, contract.bit_depth, contract.channels)
        _check_size(path, aligner.alignment.size, (pixels.shape[0], pixels.shape[1]))
        seen = aligner.picture(fit_input(pixels, contract))
        place = aligner.place(seen)
        if place is not None:
            found.append((place.correlation, place.to_reference(seen), seen))
    return sorted(found, key=lambda one: one[0])


def _reference(picture: NDArray[np.uint8], found: Sequence[_Found]) -> Reference:
    chosen = [found[i] for i in sorted({0, len(found) // 2, len(found) - 1})]
    return Reference(
        picture,
        np.stack([seen for _, _, seen in chosen]),
        np.stack([aligned for _, aligned, _ in chosen]),
        np.array([correlation for correlation, _, _ in chosen], np.float32),
    )


def _check_size(path: Path, size: tuple[int, int], expected: tuple[int, int] | None) -> None:
    if expected is not None and size != expected:
        raise DataError(
            f"{path}: got a reference of {size[0]}x{size[1]} pixels, expected the "
            f"{expected[0]}x{expected[1]} of the camera's images; take it with that camera."
        )
