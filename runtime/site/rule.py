"""What of a map counts on site: regions with weights, of aligned parts, from what size on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.archive import ALIGN, SCORING, Bundle, Reference, ScoringMap, npz_bytes
from stpm.runtime.bundle.maps import Chosen, Maps
from stpm.runtime.bundle.scoring import Scoring
from stpm.runtime.errors import DataError
from stpm.runtime.output.map_score import UNALIGNED_SCORE, MapScore, Views

if TYPE_CHECKING:
    from stpm.runtime.aligner import Aligner


@dataclass(frozen=True)
class Scored:
    """What an engine makes of images, before anything is said of where and what counts.

    Attributes:
        anomaly_maps: float32 (N,h,w), read one after the other.
        pred_scores: float32 (N,), the graph's.
        image_sizes: (height, width) in pixels of the images.
        statistics: of the images, by name; see `stpm.runtime.bundle.image_statistics`.
        views: of aligned images; None where they were scored as they are.
    """

    anomaly_maps: Maps
    pred_scores: NDArray[np.float32]
    image_sizes: Sequence[tuple[int, int]]
    statistics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    views: Views | None = None

    def where(self, kept: NDArray[np.bool_]) -> Scored:
        """Return those of bool (N,)."""
        chosen = np.flatnonzero(kept).tolist()
        return Scored(
            Chosen(self.anomaly_maps, kept),
            self.pred_scores[chosen],
            [self.image_sizes[i] for i in chosen],
            {name: [values[i] for i in chosen] for name, values in self.statistics.items()},
            None if self.views is None else [self.views[i] for i in chosen],
        )

    def each(self) -> Iterator[tuple[NDArray[np.float32], list[tuple[int, int]], Views | None]]:
        """Return each image's map (1,h,w), its size, and its view, for `MapScore`."""
        for number, (one, size) in enumerate(zip(self.anomaly_maps, self.image_sizes, strict=True)):
            yield one[None], [size], None if self.views is None else [self.views[number]]


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

    def maps(self, scored: Scored, weights: tuple[float, ...] = ()) -> Maps:
        """Return the weighted maps float32 (N,h,w)."""
        if self.scoring.is_graphs:
            return scored.anomaly_maps
        return _Weighted(scored, self.scoring.map_score(self.labels, weights))

    def roi_scores(self, scored: Scored, weights: tuple[float, ...] = ()) -> NDArray[np.float32]:
        """Return the regions' scores, float32 (N,R)."""
        if self.scoring.is_graphs:
            return scored.pred_scores[:, None]
        map_score = self.scoring.map_score(self.labels, weights)
        return np.concatenate([map_score(*one)[1] for one in scored.each()])

    def scores(self, scored: Scored, weights: tuple[float, ...] = ()) -> NDArray[np.float32]:
        """Return the images' scores, float32 (N,)."""
        highest: NDArray[np.float32] = self.roi_scores(scored, weights).max(axis=1)
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


@dataclass(frozen=True)
class _Weighted:
    """Maps that are weighted when they are read."""

    scored: Scored
    map_score: MapScore

    @property
    def shape(self) -> tuple[int, ...]:
        return self.scored.anomaly_maps.shape

    def __len__(self) -> int:
        return len(self.scored.anomaly_maps)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        if self.scored.views is None:
            yield from map(self.map_score.weigh, self.scored.anomaly_maps)
        else:
            for one in self.scored.each():
                yield self.map_score(*one)[0][0]


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
        DataError: maps cannot be scored so; regions of interest were drawn for one size of images
            and there are several; or the smallest defect is larger than where it counts.
    """
    try:
        scoring.check()
    except ValueError as error:
        raise DataError(f"{error}; choose another, or export the model again.") from None
    sizes = sorted(set(image_sizes))
    if scoring.rois and len(sizes) > 1:
        (height, width), (other_height, other_width), *_ = sizes
        raise DataError(
            f"got good images of {height}x{width} and of {other_height}x{other_width} "
            "pixels, expected one size with regions of interest; use images from one "
            "camera."
        )
    height, width = sizes[0]
    for number, name in enumerate(scoring.rois or ("the image",), 1):
        covered = int((labels == number).sum()) * height * width // labels.size
        if scoring.min_area > covered:
            raise DataError(
                f"got a smallest defect of {scoring.min_area} pixels, expected at most the "
                f"{covered} of {name} that count; lower --min-area."
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
    rising = np.sort(rule.roi_scores(good).astype(np.float64), axis=0)
    middle = len(rising) // 2
    if middle == 0 or (rising[middle - 1] <= 0).any():
        raise DataError(
            f"got {len(rising)} good images, half of them with a score of 0 in a region of "
            "interest, expected at least two with scores above 0; add images, or leave the "
            "region out."
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
