"""What of a map counts, asked for at export; on site `stpm-calibrate` changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpm.export.options import ExportOptions
from stpm.runtime.bundle.image_statistics import STATISTICS, image_statistics
from stpm.runtime.bundle.maps import Maps, MapStore
from stpm.runtime.bundle.scoring import Scoring
from stpm.runtime.site.rois import read_rois
from stpm.runtime.site.rule import Rule, Scored, make_rule
from stpm.train.datasets import read_image
from stpm.train.evaluate import Scorer, scored_batches
from stpm.train.methods import Config, score_of


@dataclass(frozen=True)
class GoodImages:
    """The good images that set the thresholds, and what of them counts.

    Attributes:
        paths: of the images.
        rule: what counts.
        sizes: (height, width) in pixels of the images.
        statistics: of the images, by name.
    """

    paths: Sequence[Path]
    rule: Rule
    sizes: Sequence[tuple[int, int]]
    statistics: Mapping[str, Sequence[float]]

    def scored(
        self, scorer: Scorer, on_images: Callable[[int], None], bit_depth: int, size: int
    ) -> Scored:
        """Score them, `size` at a time, and put the outputs beside what they are."""
        maps, scores = MapStore(), []
        for found, of_batch in scored_batches(scorer, self.paths, on_images, bit_depth, size):
            maps.append(found)
            scores.append(of_batch)
        return self.beside((maps, np.concatenate(scores)))

    def beside(self, outputs: tuple[Maps, NDArray[np.float32]]) -> Scored:
        """Put an engine's outputs for them beside what they are."""
        return Scored(*outputs, self.sizes, self.statistics)


def good_images(
    config: Config, options: ExportOptions, paths: Sequence[Path], map_size: tuple[int, int]
) -> GoodImages:
    """Look at the good images, and at what is to count of them.

    Args:
        config: of the network.
        options: of the export.
        paths: of the images.
        map_size: (height, width) of the anomaly map.

    Raises:
        DataError: an image cannot be read, regions of interest cannot be used, or the method scores
            by more than its map.
    """
    sizes, measured = [], []
    for path in paths:
        image = read_image(path, options.bit_depth)
        sizes.append((image.shape[0], image.shape[1]))
        measured.append(image_statistics(image))
    names: tuple[str, ...] = ()
    labels = np.ones(map_size, np.uint8)
    if options.rois or options.ignored:
        names, labels = read_rois(options.rois, options.ignored, sizes[0], map_size)
    rule = make_rule(Scoring(score_of(config), options.min_area, names), labels, sizes)
    statistics = {name: [values[name] for values in measured] for name in STATISTICS}
    return GoodImages(paths, rule, sizes, statistics)
