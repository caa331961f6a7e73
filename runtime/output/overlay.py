"""Pictures of a result for people: heat map, overlay, and both beside the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stpm.runtime.errors import DataError
from stpm.runtime.output.result import Result
from stpm.runtime.partial import partial_path

_CONTROL_POINTS = "000004 210c4a 57106e 8a226a bc3754 e45a31 f98e09 f9cb35 fcffa4"
_OUTLINE = (0, 229, 255)
_OPACITY = 0.55
_PANEL = 384
_MARGIN = 12
_BACKGROUND, _INK = (242, 242, 242), (32, 32, 32)
_HEADERS = {
    "ok": ("OK", (0, 120, 60)),
    "warn": ("WARN", (150, 95, 0)),
    "anomalous": ("ANOMALOUS", (190, 20, 30)),
    "unaligned": ("UNALIGNED", (190, 20, 30)),
}


def _colours() -> NDArray[np.uint8]:
    points = np.array([list(bytes.fromhex(point)) for point in _CONTROL_POINTS.split()])
    at = np.linspace(0, len(points) - 1, 256)
    channels = [np.interp(at, np.arange(len(points)), channel) for channel in points.T]
    return np.stack(channels, axis=1).round().astype(np.uint8)


_COLOURS = _colours()


def heatmap(anomaly_map: NDArray[np.float32], pixel_threshold: float) -> NDArray[np.uint8]:
    """Colour a map on a scale that is fixed by the pixel threshold, not by the map's own range.

    A value v is shown as v / (v + threshold): 0 is black, the threshold is always the middle
    colour, and ten times the threshold is at 91 %. Good parts therefore look dark, where stretching
    every map to its own range would make them glow; and maps that are products over the levels,
    whose values differ by orders of magnitude, stay readable, because the scale is logistic in
    log(v).

    Args:
        anomaly_map: float32 (H, W); values below 0 are shown as 0.
        pixel_threshold: a threshold below 0 counts as 0, above which all is brightest.

    Returns:
        uint8 (H, W, 3), RGB.

    Source: colours sampled from "inferno" by van der Walt & Smith, matplotlib 1.5 (CC0).
    """
    return _COLOURS[np.rint(_heat(anomaly_map, pixel_threshold) * 255).astype(np.uint8)]


def overlay(image: NDArray[np.uint8], result: Result) -> NDArray[np.uint8]:
    """Blend the heat map into the image where it exceeds the pixel threshold, with outlines.

    Each area above the pixel threshold has a contour. A region whose peak exceeds the image
    threshold also has a box, so that a tiny defect is found at a glance. All else keeps the image's
    own colours. An image that could not be aligned, which has no map, is struck out in red.

    Args:
        image: uint8 (H, W, 3), RGB, the input image of the result.
        result: its inspection.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: the image has another size than the result's.
    """
    height, width = result.image_size
    if image.shape != (height, width, 3):
        raise DataError(
            f"the image has shape {image.shape}, expected {(height, width, 3)}; pass the image "
            "that the result is for."
        )
    # Interpolating heat instead of the map keeps one huge value from spreading to its neighbours.
    heat = _heat(result.anomaly_map, result.pixel_threshold).astype(np.float32)
    smooth = np.asarray(
        Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32
    )
    hot = smooth > 0.5
    colours = _COLOURS[np.rint(smooth * 255).astype(np.uint8)]
    picture = image.copy()
    blended = (1 - _OPACITY) * image[hot] + _OPACITY * colours[hot]
    picture[hot] = np.rint(blended).astype(np.uint8)
    line = max(1, round(min(height, width) / 200))
    picture[hot & ~_erode(hot, line)] = _OUTLINE
    if result.verdict == "unaligned":
        return _struck_out(picture, 2 * line)
    return _draw_boxes(picture, result, line)


def side_by_side(
    image: NDArray[np.uint8],
    result: Result,
    truth_mask: NDArray[np.bool_] | None = None,
    title: str = "",
) -> Image.Image:
    """Lay out input, heat map, overlay and ground truth under a line with score and verdict.

    Args:
        image: uint8 (H, W, 3), RGB, the input image of the result.
        result: its inspection.
        truth_mask: bool (H, W) of any size, True on the defect; None leaves the panel out.
        title: begins the line.

    Returns:
        An RGB picture.

    Raises:
        DataError: the image has another size than the result's.
    """
    panels = {
        "input": _panel(image, result.image_size),
        "heat map": _panel(heatmap(result.anomaly_map, result.pixel_threshold), result.image_size),
        "overlay": _panel(overlay(image, result), result.image_size),
    }
    if truth_mask is not None:
        panels["ground truth"] = _panel(_grey(truth_mask), result.image_size)
    verdict, colour = _HEADERS[result.verdict]
    header = f"{verdict}    score {result.score:.4g}    threshold {result.threshold:.4g}"
    if result.verdict == "unaligned":
        header = f"{verdict}    no score"
    return _lay_out(f"{title}    {header}" if title else header, colour, panels)


def save_pictures(stem: Path, image: NDArray[np.uint8], result: Result) -> list[Path]:
    """Write `STEM_heatmap.png`, `STEM_mask.png` and `STEM_overlay.png`, each whole or not at all.

    The heat map and the mask (0 and 255) have the map's size, the overlay has the image's.

    Args:
        stem: the common start of the paths; its folder exists.
        image: uint8 (H, W, 3), RGB, the input image of the result.
        result: its inspection.

    Returns:
        The three paths.

    Raises:
        DataError: the image has another size than the result's.
    """
    pictures = {
        "heatmap": heatmap(result.anomaly_map, result.pixel_threshold),
        "mask": _grey(result.pred_mask),
        "overlay": overlay(image, result),
    }
    paths = []
    for kind, pixels in pictures.items():
        path = stem.with_name(f"{stem.name}_{kind}.png")
        _save(Image.fromarray(pixels), path)
        paths.append(path)
    return paths


def _heat(anomaly_map: NDArray[np.float32], pixel_threshold: float) -> NDArray[np.float64]:
    values = np.maximum(anomaly_map.astype(np.float64), 0)
    scale = values + max(pixel_threshold, 0.0)
    return np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)


def _grey(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(mask, np.uint8(255), np.uint8(0))


def _erode(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _draw_boxes(picture: NDArray[np.uint8], result: Result, line: int) -> NDArray[np.uint8]:
    height, width = result.image_size
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    gap = 3 * line
    for region in result.regions:
        if region.peak > result.threshold:
            top, left, bottom, right = region.box
            corners = (
                max(left - gap, 0),
                max(top - gap, 0),
                min(right + gap, width) - 1,
                min(bottom + gap, height) - 1,
            )
            draw.rectangle(corners, outline=_OUTLINE, width=line)
    return np.array(canvas)


def _struck_out(picture: NDArray[np.uint8], line: int) -> NDArray[np.uint8]:
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    right, bottom = canvas.width - 1, canvas.height - 1
    colour = _HEADERS["unaligned"][1]
    draw.rectangle((0, 0, right, bottom), outline=colour, width=line)
    for top in (0, bottom):
        draw.line((0, top, right, bottom - top), fill=colour, width=line)
    return np.array(canvas)


def _panel(pixels: NDArray[np.uint8], image_size: tuple[int, int]) -> Image.Image:
    height, width = image_size
    scale = _PANEL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    panel = Image.fromarray(pixels).convert("RGB")
    shrinks = size[0] < panel.width
    return panel.resize(size, Image.Resampling.LANCZOS if shrinks else Image.Resampling.BILINEAR)


def _lay_out(
    header: str, colour: tuple[int, int, int], panels: dict[str, Image.Image]
) -> Image.Image:
    title, caption = ImageFont.load_default(22), ImageFont.load_default(15)
    columns = [max(p.width, round(caption.getlength(text))) for text, p in panels.items()]
    header_height, caption_height = 36, 24
    width = max(sum(columns) + _MARGIN * (len(columns) - 1), round(title.getlength(header)))
    height = header_height + caption_height + max(p.height for p in panels.values())
    canvas = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), header, fill=colour, font=title)
    left = _MARGIN
    for (text, panel), column in zip(panels.items(), columns, strict=True):
        draw.text((left, _MARGIN + header_height), text, fill=_INK, font=caption)
        canvas.paste(panel, (left, _MARGIN + header_height + caption_height))
        left += column + _MARGIN
    return canvas


def _save(picture: Image.Image, path: Path) -> None:
    temporary = partial_path(path)
    try:
        picture.save(temporary, format="PNG")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
