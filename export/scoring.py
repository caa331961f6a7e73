"""What of a map counts, asked for at export; on site `stpm-calibrate` changes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stpm.export.options import ExportOptions
from stpm.runtime.bundle.scoring import Scoring
from stpm.runtime.images.preprocess import image_sizes
from stpm.runtime.site.rois import read_rois
from stpm.runtime.site.rule import Rule, make_rule
from stpm.train.methods import Config, score_of

ImageSizes = Sequence[tuple[int, int]]


def asked_rule(
    config: Config, options: ExportOptions, calibration: Sequence[Path]
) -> tuple[Rule, ImageSizes]:
    """Return what is to count, and the (height, width) of the images that set its thresholds.

    Args:
        config: of the network.
        options: of the export.
        calibration: good images.

    Raises:
        DataError: regions of interest cannot be used, or the method scores by more than its map.
    """
    kind, size = score_of(config), config.input_size
    if not (options.rois or options.ignored or options.min_area):
        whole = np.ones(size, np.uint8)
        return Rule(Scoring(kind), whole), [size] * len(calibration)
    sizes = image_sizes(calibration, options.bit_depth)
    names: tuple[str, ...] = ()
    labels = np.ones(size, np.uint8)
    if options.rois or options.ignored:
        names, labels = read_rois(options.rois, options.ignored, sizes[0], size)
    return make_rule(Scoring(kind, options.min_area, names), labels, sizes), sizes
