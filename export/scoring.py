"""What of a map counts, asked for at export; on site `stpm-calibrate` changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpm.export.options import ExportOptions
from stpm.runtime.backends import Outputs
from stpm.runtime.batches import fit_input
from stpm.runtime.bundle.archive import InputContract, Reference
from stpm.runtime.bundle.image_statistics import STATISTICS, image_statistics
from stpm.runtime.bundle.maps import Maps, MapStore
from stpm.runtime.bundle.scoring import Scoring
from stpm.runtime.images.preprocess import RGB
from stpm.runtime.output.console import note
from stpm.runtime.output.map_score import Views
from stpm.runtime.site.align import Limit, align_to, check_whole_images
from stpm.runtime.site.rois import read_rois
from stpm.runtime.site.rule import Rule, Scored, make_rule
from stpm.train.datasets import read_image
from stpm.train.evaluate import Scorer, scored_batches
from stpm.train.methods import Config, score_of

if TYPE_CHECKING:
    from stpm.runtime.aligner import Aligner


@dataclass(frozen=True)
class GoodImages:
    """The good images that set the thresholds, and what of them counts.

    Attributes:
        paths: of the images.
        rule: what counts.
        sizes: (height, width) in pixels of the images.
        statistics: of the images, by name.
        contract: what an image is.
        views: of the images where they are aligned; None where they are not.
    """

    paths: Sequence[Path]
    rule: Rule
    sizes: Sequence[tuple[int, int]]
    statistics: Mapping[str, Sequence[float]]
    contract: InputContract
    views: Views | None = None

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
        return self.rule.found(Scored(*outputs, self.sizes, self.statistics, self.views))

    def are(self, paths: Sequence[Path]) -> bool:
        """Whether scores of these images are those of the good ones."""
        return self.views is None and self.paths == paths

    def aligned(self, scorer: Scorer) -> Scorer:
        """Make a scorer bring images to the reference first, where there is one."""
        aligner = self.rule.aligner
        if aligner is None:
            return scorer

        def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
            inputs = np.stack([fit_input(image, self.contract) for image in images])
            return scorer(list(aligner(inputs)[0]))

        return score


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
        BackendError: OpenCV is not installed, which aligning needs.
        DataError: an image cannot be read, regions of interest or a reference cannot be used, or
            the method scores by more than its map.
    """
    scoring = Scoring(score_of(config), options.min_area)
    resize = "host" if options.camera_size is None else "graph"
    size = options.camera_size or config.input_size
    channels = 1 if options.grey else RGB
    contract = InputContract(size, options.batch, resize, options.bit_depth, channels)
    reference: Reference | None = None
    if options.align is not None:
        check_whole_images(options.align, bool(options.tile))
        limit = Limit.parse(options.align_limit)
        alignment, reference = align_to(options.align, limit, paths, contract)
        scoring = replace(scoring, align=alignment)
    sizes, measured = [], []
    for path in paths:
        image = read_image(path, options.bit_depth)
        sizes.append((image.shape[0], image.shape[1]))
        measured.append(image_statistics(image))
    names: tuple[str, ...] = ()
    labels = np.ones(map_size, np.uint8)
    if options.rois or options.ignored:
        names, labels = read_rois(options.rois, options.ignored, sizes[0], map_size)
    rule = make_rule(replace(scoring, rois=names), labels, sizes, reference)
    statistics = {name: [values[name] for values in measured] for name in STATISTICS}
    good = GoodImages(paths, rule, sizes, statistics, contract)
    return good if rule.aligner is None else _found(good, rule.aligner)


def _found(good: GoodImages, aligner: Aligner) -> GoodImages:
    """Leave out the images that cannot be aligned."""
    contract = good.contract
    inputs = (fit_input(read_image(path, contract.bit_depth), contract) for path in good.paths)
    places = [aligner.place(aligner.picture(image)) for image in inputs]
    kept = [i for i, place in enumerate(places) if place is not None]
    if len(kept) < len(places):
        note(f"{len(places) - len(kept)} of {len(places)} good images cannot be aligned")
    return replace(
        good,
        paths=[good.paths[i] for i in kept],
        sizes=[good.sizes[i] for i in kept],
        statistics={name: [v[i] for i in kept] for name, v in good.statistics.items()},
        views=[places[i] for i in kept],
    )
