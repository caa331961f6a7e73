"""The papers' figures, from tables.json beside this file."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def tables() -> dict[str, Any]:
    """Return every table of the STPM and STAD papers."""
    content: dict[str, Any] = json.loads(
        files("stpm.benchmarks").joinpath("tables.json").read_text()
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
