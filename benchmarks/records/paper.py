"""The papers' figures, from paper.json beside this file."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def tables() -> dict[str, Any]:
    """Return every table of the STPM and STAD papers."""
    content: dict[str, Any] = json.loads(
        files("stpm.benchmarks.records").joinpath("paper.json").read_text()
    )
    return content


def reference_figures(category: str) -> dict[str, dict[str, float]]:
    """Return what was published for STPM on a category of MVTec AD, by source and metric.

    The names of the metrics are those of `stpm.train.metrics.Metrics`. The paper gives no image
    AUROC by category; the authors' code reports the rescaled PRO. Empty for other data.
    """
    content = tables()["stpm"]
    code, pixel, pro = (
        content[name] for name in ("authors_code_mvtec", "mvtec_pixel_auroc", "mvtec_pro30")
    )
    if category not in pixel:
        return {}
    return {
        "paper": {
            "pixel_auroc": pixel[category][pixel["columns"].index("STPM")],
            "aupro": pro[category][pro["columns"].index("STPM")],
        },
        "authors' code": dict(zip(code["columns"], code[category], strict=True)),
    }


def mean_figures() -> dict[str, dict[str, float]]:
    """Return what was published for STPM as means over the 15 categories of MVTec AD."""
    content = tables()["stpm"]
    means = reference_figures("mean")
    means["paper"]["image_auroc"] = content["mvtec_image_auroc_mean"]["STPM"]
    return means


def latency_figures() -> dict[str, float]:
    """Return the paper's ms an image of 256x256 on an RTX 2080 Ti, by method."""
    times: dict[str, float] = tables()["stpm"]["latency_ms_256px_rtx2080ti"]
    return times
