"""Detection and localisation scores: AUROC, exact AUPRO and the rescaled PRO of the literature."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from stpm.runtime.errors import DataError

BoolArray: TypeAlias = npt.NDArray[np.bool_]
ScoreArray: TypeAlias = npt.NDArray[np.floating[Any]]
Curve: TypeAlias = npt.NDArray[np.float64]

AUTHORS_STEPS = 4000
"""Thresholds that the STPM authors' evaluation samples; fewer give a lower `pro_rescaled`."""
# Neighbours of a pixel within its own image: the eight around it, none in the next image.
_EIGHT_CONNECTED = np.zeros((3, 3, 3), dtype=bool)
_EIGHT_CONNECTED[1] = True


@dataclass(frozen=True)
class Metrics:
    """The scores of one test set.

    `image_auroc` is None when all images are good or all defective, the others without masks.
    """

    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None
    pro_rescaled: float | None


def auroc(is_anomalous: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the area under the ROC curve, exact with ties.

    It is the Mann-Whitney statistic with average ranks: the share of (anomalous, good) pairs in
    which the anomalous one scores higher, a tie counting one half. Pairs are counted in integers.

    Args:
        is_anomalous: bool, any shape; True for an anomalous image or pixel.
        scores: float, the same shape, finite; higher is more anomalous.

    Returns:
        The area, in [0, 1].

    Raises:
        DataError: shapes or types differ from the above, a score is not finite, or one of the two
            classes is absent.

    Source:
        Hanley and McNeil, "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve", Radiology 143, 1982.
    """
    truth, values = _validated(is_anomalous, scores)
    order = np.argsort(values, axis=None)
    ends = _tie_ends(values.ravel()[order])
    anomalous = np.cumsum(truth.ravel()[order], dtype=np.int64)[ends]
    good = ends + 1 - anomalous
    good_twice = good.copy()  # good pixels below a tie group, twice, and those in it, once
    good_twice[1:] += good[:-1]
    half_pairs = int(np.dot(np.diff(anomalous, prepend=0), good_twice))
    return half_pairs / (2 * int(anomalous[-1]) * int(good[-1]))


def pro_curve(masks: BoolArray, anomaly_maps: ScoreArray) -> tuple[Curve, Curve]:
    """Return the per-region overlap curve at every distinct score.

    A pixel is detected where its score is at least the threshold. Regions are the 8-connected
    components of each mask, all of equal weight whatever their area.

    Args:
        masks: bool, (N, H, W); True on defective pixels.
        anomaly_maps: float, (N, H, W), finite; higher is more anomalous.

    Returns:
        False positive rate over the good pixels of all images, and mean detected share of a
        region: two float64 arrays that rise from 0 to 1, of one point more than there are
        distinct scores.

    Raises:
        DataError: shapes or types differ from the above, a score is not finite, or the masks hold
            no defective or no good pixel.

    Source:
        Bergmann et al., "Uninformed Students: Student-Teacher Anomaly Detection with
        Discriminative Latent Embeddings", CVPR 2020.
    """
    _, fpr, pro = _thresholds_and_curve(masks, anomaly_maps)
    return fpr, pro


def aupro(masks: BoolArray, anomaly_maps: ScoreArray, fpr_limit: float = 0.30) -> float:
    """Return the normalised area under the exact per-region overlap curve.

    Args:
        masks: bool, (N, H, W); True on defective pixels.
        anomaly_maps: float, (N, H, W), finite; higher is more anomalous.
        fpr_limit: false positive rate where the area ends, in (0, 1]; the curve is linear between
            its points.

    Returns:
        The area divided by ``fpr_limit``, in [0, 1]; ``fpr_limit / 2`` is expected of chance.

    Raises:
        DataError: as for `pro_curve`.
        ValueError: ``fpr_limit`` is out of range.

    Source:
        Bergmann et al., "Uninformed Students: Student-Teacher Anomaly Detection with
        Discriminative Latent Embeddings", CVPR 2020.
    """
    _check_limit(fpr_limit)
    return _area_to_limit(*pro_curve(masks, anomaly_maps), fpr_limit)


def pro_rescaled(
    masks: BoolArray, anomaly_maps: ScoreArray, fpr_limit: float = 0.30, steps: int = AUTHORS_STEPS
) -> float:
    """Return the figure that the code of the STPM authors reports under the name PRO.

    It samples ``steps`` evenly spaced thresholds, keeps the points up to the limit and stretches
    both their rates to [0, 1] before taking the area. Stretching adds, sampling takes away, and
    more with fewer steps: the adopted students of bottle and screw have 0.9626 and 0.9406 where
    `aupro` is 0.9653 and 0.9436 (with 1,000 steps 0.9469 and 0.9277). It is there for comparison
    with published figures.

    Args:
        masks: bool, (N, H, W); True on defective pixels.
        anomaly_maps: float, (N, H, W), finite; higher is more anomalous.
        fpr_limit: highest false positive rate of a point that is kept, in (0, 1].
        steps: number of thresholds from the highest score downwards, at least 1; a pixel is
            detected where its score is above the threshold.

    Returns:
        The area, in [0, 1]; NaN when the points that are kept share one false positive rate or
        one overlap, which leaves nothing to rescale (a single point, a constant map, a perfect
        separation).

    Raises:
        DataError: as for `pro_curve`.
        ValueError: ``fpr_limit`` or ``steps`` is out of range.

    Source:
        Wang et al., "Student-Teacher Feature Pyramid Matching for Anomaly Detection", BMVC 2021,
        and the code published with it.
    """
    _check_limit(fpr_limit)
    if steps < 1:
        raise ValueError(f"got steps={steps}, expected at least 1")
    return _rescaled_area(*_thresholds_and_curve(masks, anomaly_maps), fpr_limit, steps)


def labelled_regions(masks: BoolArray) -> tuple[npt.NDArray[np.int32], Curve]:
    """Return each pixel's region (0 for good) and each region's weight per pixel.

    Regions are 8-connected within an image. A region's pixels weigh 1 / (area * regions) each, so
    that all defective pixels together weigh 1 and a weighted sum of detected pixels is the mean
    overlap.

    Args:
        masks: bool, (N, H, W); True on defective pixels.

    Returns:
        Regions, int32 (N, H, W), numbered from 1 across all images, and weights by number.
    """
    labels, regions = ndimage.label(masks, structure=_EIGHT_CONNECTED)
    areas = np.bincount(labels.ravel()).astype(np.float64)
    weights = 1.0 / (areas * regions)
    weights[0] = 0.0
    return labels, weights


def evaluate_maps(
    is_anomalous: npt.ArrayLike,
    scores: npt.ArrayLike,
    masks: BoolArray | None = None,
    anomaly_maps: ScoreArray | None = None,
) -> Metrics:
    """Return every score of a test set, with the false positive rate limited to 0.30.

    Args:
        is_anomalous: bool, (N,); True for an anomalous image.
        scores: float, (N,), finite; higher is more anomalous.
        masks: bool, (N, H, W); True on defective pixels; None for image scores alone.
        anomaly_maps: float, (N, H, W), finite; required with masks, ignored without.

    Returns:
        The scores; `Metrics` says which may be None.

    Raises:
        DataError: as for `auroc` and `pro_curve`, except that images may be of one class, or masks
            come without anomaly maps.
    """
    one_class = np.all(is_anomalous) or not np.any(is_anomalous)
    image_auroc = None if one_class else auroc(is_anomalous, scores)
    if masks is None:
        return Metrics(image_auroc, None, None, None)
    if anomaly_maps is None:
        raise DataError("got masks without anomaly maps, expected both or no masks")
    thresholds, fpr, pro = _thresholds_and_curve(masks, anomaly_maps)
    return Metrics(
        image_auroc=image_auroc,
        pixel_auroc=auroc(masks, anomaly_maps),
        aupro=_area_to_limit(fpr, pro, 0.30),
        pro_rescaled=_rescaled_area(thresholds, fpr, pro, 0.30, AUTHORS_STEPS),
    )


def _validated(truth: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[BoolArray, ScoreArray]:
    """Return both as arrays of one shape, bool with both classes present and finite float."""
    truth, scores = np.asarray(truth), np.asarray(scores)
    if truth.shape != scores.shape:
        raise DataError(
            f"got ground truth of shape {truth.shape} and scores of shape {scores.shape}, "
            "expected the same shape"
        )
    if truth.dtype != np.bool_ or not np.issubdtype(scores.dtype, np.floating):
        raise DataError(
            f"got ground truth of type {truth.dtype} and scores of type {scores.dtype}, "
            "expected bool and float"
        )
    if not np.isfinite(scores).all():
        raise DataError("got a score that is NaN or infinite, expected finite scores")
    anomalous = np.count_nonzero(truth)
    if anomalous in (0, truth.size):
        raise DataError(
            f"got {anomalous} anomalous and {truth.size - anomalous} good entries, "
            "expected at least one of each"
        )
    return truth, scores


def _check_limit(fpr_limit: float) -> None:
    if not 0.0 < fpr_limit <= 1.0:
        raise ValueError(f"got fpr_limit={fpr_limit}, expected a value in (0, 1]")


def _tie_ends(ordered: ScoreArray) -> npt.NDArray[np.intp]:
    """Return the index of the last entry of each run of equal values."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def _thresholds_and_curve(
    masks: BoolArray, anomaly_maps: ScoreArray
) -> tuple[ScoreArray, Curve, Curve]:
    """Return the distinct scores, falling, and the curve; its point 0 detects nothing."""
    masks, anomaly_maps = _validated(masks, anomaly_maps)
    if masks.ndim != 3:
        raise DataError(f"got masks of shape {masks.shape}, expected (N, H, W)")
    labels, weights = labelled_regions(masks)
    order = np.argsort(anomaly_maps, axis=None)[::-1]
    ordered = anomaly_maps.ravel()[order]
    ends = _tie_ends(ordered)
    regions = labels.ravel()[order]
    fpr, pro = np.zeros(ends.size + 1), np.zeros(ends.size + 1)
    good = np.cumsum(regions == 0, dtype=np.int64)
    np.divide(good[ends], good[-1], out=fpr[1:])
    np.minimum(np.cumsum(weights[regions])[ends], 1.0, out=pro[1:])
    return ordered[ends], fpr, pro


def _area(x: Curve, y: Curve) -> float:
    return 0.5 * float(np.dot(np.diff(x), y[1:] + y[:-1]))


def _area_to_limit(fpr: Curve, pro: Curve, fpr_limit: float) -> float:
    """Return the trapezoid area up to the limit, divided by it."""
    kept = int(np.searchsorted(fpr, fpr_limit, side="right"))
    area = _area(fpr[:kept], pro[:kept])
    if kept < fpr.size:
        run = fpr_limit - fpr[kept - 1]
        slope = (pro[kept] - pro[kept - 1]) / (fpr[kept] - fpr[kept - 1])
        area += float(run * (pro[kept - 1] + 0.5 * slope * run))
    return area / fpr_limit


def _rescaled_area(
    scores: ScoreArray, fpr: Curve, pro: Curve, fpr_limit: float, steps: int
) -> float:
    """Return the area of the sampled curve after both rates are stretched to [0, 1]."""
    highest, lowest = float(scores[0]), float(scores[-1])
    thresholds = highest - np.arange(steps) * ((highest - lowest) / steps)
    # The scores fall, so the position of a threshold among them counts those above it.
    points = np.searchsorted(-scores, -thresholds, side="left")
    points = points[fpr[points] <= fpr_limit]
    x, y = fpr[points], pro[points]
    # Nothing is above the first threshold: both rates start at 0 and their range is their end.
    if x[-1] == 0.0 or y[-1] == 0.0:
        return float("nan")
    return _area(x / x[-1], y / y[-1])
