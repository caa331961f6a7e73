"""Scores good and known bad parts, and writes the page that shows what a threshold does to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from stpm.benchmarks.records.result_file import write_whole
from stpm.benchmarks.report.gallery import shrunk
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError, about
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.output.overlay import heatmap, overlay

SIZE_LIMIT = 5_000_000
"""Bytes of a page."""
LEAST, MOST = 3_000, 30_000
"""Bytes of a picture: fewer show nothing, more are not needed."""
SIDE = 320
"""Pixels of each of a picture's three panels."""


@dataclass(frozen=True)
class Reviewed:
    """What a page was made of.

    Attributes:
        good, bad: images of each.
        without_picture: that there was no room for.
        unaligned: that no threshold decides over, and that are left out.
    """

    good: int
    bad: int
    without_picture: int
    unaligned: int


def write_review(
    detector: Detector,
    good: Sequence[Path],
    bad: Sequence[Path],
    out: Path,
    on_images: Callable[[int], None] = lambda _: None,
) -> Reviewed:
    """Score images, and write the page.

    Args:
        detector: whose threshold is to be chosen.
        good, bad: parts that are known to be so; at least one good one.
        out: HTML file to write, of at most `SIZE_LIMIT` bytes.
        on_images: called with the number of images done since the last call.

    Raises:
        DataError: an image cannot be read, or there is no good one.
    """
    if not good:
        raise DataError("got no good images, expected at least one; name their folder with --good.")
    count = len(good) + len(bad)
    room = SIZE_LIMIT - len(_file("review.html")) - 300 * count
    budget = min(MOST, room // count)
    rows: list[dict[str, object]] = []
    without = unaligned = 0
    for number, path in enumerate((*good, *bad)):
        image = load_image(path, detector.bundle.manifest.input.bit_depth)
        with about(path):
            result = detector(image)
        on_images(1)
        if result.verdict == "unaligned":
            unaligned += 1
            continue
        panels = [
            Image.fromarray(pixels).resize((SIDE, SIDE))
            for pixels in (
                image,
                heatmap(result.anomaly_map, result.pixel_threshold),
                overlay(image, result),
            )
        ]
        picture = shrunk(_beside(panels), budget) if budget >= LEAST else None
        without += picture is None
        rows.append(
            {
                "name": f"{path.parent.name}/{path.name}",
                "bad": number >= len(good),
                "score": float(result.score),
                "picture": picture[0] if picture else None,
            }
        )
    data = {
        "bundle": str(detector.bundle.path),
        "engine": detector.engine_name,
        "threshold": detector.calibration.image_threshold,
        "images": rows,
    }
    # No text may end the script that holds it.
    script = json.dumps(data).replace("<", "\\u003c")
    content = _file("review.html")
    for name in ("review.css", "review.js"):
        content = content.replace(f"/* {name} */", _file(name))
    write_whole(out, content.replace("/* data */", script))
    return Reviewed(len(good), len(bad), without, unaligned)


def _beside(panels: Sequence[Image.Image]) -> Image.Image:
    return Image.fromarray(np.concatenate([np.asarray(panel) for panel in panels], axis=1))


def _file(name: str) -> str:
    return (files("stpm.benchmarks.review") / "files" / name).read_text(encoding="utf-8")
