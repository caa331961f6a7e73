"""What of a map counts on site: regions with weights, of aligned parts, from what size on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.archive import ALIGN, SCORING, Bundle, Reference, ScoringMap, npz_bytes
from stpm.runtime.bundle.scoring import Scoring
from stpm.runtime.errors import DataError
from stpm.runtime.output.map_score import UNALIGNED_SCORE, Views

if TYPE_CHECKING:
    from stpm.runtime.aligner import Aligner


@dataclass(frozen=True)
class Scored:
    """What an engine makes of images, before anything is said of where and what counts.

    Attributes:
        anomaly_maps: float32 (N,h,w).
        pred_scores: float32 (N,), the graph's.
        image_sizes: (height, width) in pixels of the images.
        statistics: of the images, by name; see `stpm.runtime.bundle.image_statistics`.
        views: of aligned images; None where they were scored as they are.
    """

    anomaly_maps: NDArray[np.float32]
    pred_scores: NDArray[np.float32]
    image_sizes: Sequence[tuple[int, int]]
    statistics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    views: Views | None = None

    def where(self, kept: NDArray[np.bool_]) -> Scored:
        """Return those of bool (N,)."""
        chosen = np.flatnonzero(kept).tolist()
        return Scored(
            self.anomaly_maps[chosen],
            self.pred_scores[chosen],
            [self.image_sizes[i] for i in chosen],
            {name: [values[i] for i in chosen] for name, values in self.statistics.items()},
            None if self.views is None else [self.views[i] for i in chosen],
        )


@dataclass(frozen=True)
class Rule:
    """What counts in a map, and from what size on.

    Attributes:
        scoring: for the manifest.
        labels: uint8 (h,w), see `stpm.runtime.output.map_score.MapScore`.
        reference: that parts are brought to first; there where `scoring` has limits for it.
    """

    scoring: Scoring
    labels: NDArray[np.uint8]
    reference: Reference | None = None

    @cached_property
    def aligner(self) -> Aligner | None:
        """What brings parts to the reference."""
        if self.reference is None or self.scoring.align is None:
            return None
        from stpm.runtime.aligner import Aligner

        return Aligner(self.scoring.align, self.reference.reference)

    def __call__(
        self, scored: Scored, weights: tuple[float, ...] = ()
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the weighted maps float32 (N,h,w), and the regions' scores float32 (N,R)."""
        if self.scoring.is_graphs:
            return scored.anomaly_maps, scored.pred_scores[:, None]
        score = self.scoring.map_score(self.labels, weights)
        return score(scored.anomaly_maps, scored.image_sizes, scored.views)

    def scores(self, scored: Scored, weights: tuple[float, ...] = ()) -> NDArray[np.float32]:
        """Return the images' scores, float32 (N,)."""
        highest: NDArray[np.float32] = self(scored, weights)[1].max(axis=1)
        return highest

    def found(self, scored: Scored) -> Scored:
        """Leave out the parts that could not be aligned; DataError where none is left."""
        if scored.views is None:
            return scored
        is_found = self.scores(scored) < UNALIGNED_SCORE
        if not is_found.any():
            raise DataError(
                f"got {len(is_found)} good images, none of which can be brought to the reference, "
                "expected most of them; take images of this camera, or another --align."
            )
        return scored.where(is_found)


def make_rule(
    scoring: Scoring,
    labels: NDArray[np.uint8],
    image_sizes: Sequence[tuple[int, int]],
    reference: Reference | None = None,
) -> Rule:
    """Check what is to count against the images that set its thresholds.

    Args:
        scoring, labels, reference: see `Rule`.
        image_sizes: (height, width) of the good images.

    Raises:
        DataError: maps cannot be scored so, or regions of interest were drawn for one size of
            images and there are several.
    """
    try:
        scoring.check()
    except ValueError as error:
        raise DataError(f"{error}; choose another, or export the model again.") from None
    sizes = sorted(set(image_sizes))
    if scoring.rois and len(sizes) > 1:
        (height, width), (other_height, other_width), *_ = sizes
        raise DataError(
            f"got good images of {height}x{width} and of {other_height}x{other_width} pixels, "
            "expected one size with regions of interest; take those of one camera."
        )
    return Rule(scoring, labels, reference)


def roi_weights(good: Scored, rule: Rule) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the regions' weights for the good images themselves, and for a new image.

    A median over both would treat them alike, as the promise needs. With the new image it lies
    between two of the good images' scores, so that the lower of them for the good images and the
    higher for the new one reject no more than it would.
    """
    names = rule.scoring.rois
    if len(names) < 2:
        weights = (1.0,) * len(names)
        return weights, weights
    rising = np.sort(rule(good)[1].astype(np.float64), axis=0)
    middle = len(rising) // 2
    if middle == 0 or (rising[middle - 1] <= 0).any():
        raise DataError(
            f"got {len(rising)} good images, half of them with a score of 0 in a region of "
            "interest, expected two or more with scores above 0; add images, or leave it out."
        )
    low, high = rising[middle - 1], rising[middle]
    return tuple((high[0] / low).tolist()), tuple((high[0] / high).tolist())


def scoring_files(
    rule: Rule, golden_maps: NDArray[np.float32], image_size: tuple[int, int]
) -> dict[str, bytes]:
    """Return the files that a rule needs in a bundle, by name; none for the graph's own scores.

    Args:
        rule: what counts.
        golden_maps: float32 (N,h,w), of the golden images.
        image_size: (height, width) in pixels of these.
    """
    if rule.scoring.is_graphs:
        return {}
    scores = rule.scoring.golden_scores(rule.labels, golden_maps, image_size)
    files = {SCORING: npz_bytes(ScoringMap(rule.labels, scores))}
    return files if rule.reference is None else files | {ALIGN: npz_bytes(rule.reference)}


def rule_of(bundle: Bundle) -> Rule:
    """Return what counts in a bundle's maps."""
    manifest = bundle.manifest
    whole = np.ones(manifest.map_size, np.uint8)
    scoring = manifest.scoring
    labels = whole if scoring.is_graphs else bundle.scoring_map().labels
    return Rule(scoring, labels, None if scoring.align is None else bundle.reference())
