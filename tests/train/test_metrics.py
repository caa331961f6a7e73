import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure
from sklearn.metrics import auc, roc_auc_score

from stpm.runtime.errors import DataError
from stpm.train.metrics import Metrics, aupro, auroc, evaluate_maps, pro_curve, pro_rescaled

LIMITS = (0.05, 0.30, 0.50, 1.0)


def row(*values: float) -> np.ndarray:
    """One image of one row."""
    return np.array([[values]])


def random_case(seed: int, levels: int | None = None, size: int = 12) -> tuple:
    """Masks of a few rectangles and maps that follow them; few levels make heavy ties."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((3, size, size), dtype=bool)
    for image in (0, 0, 0, 1):
        top, left = rng.integers(0, size - 3, 2)
        height, width = rng.integers(1, 4, 2)
        masks[image, top : top + height, left : left + width] = True
    maps = rng.normal(size=masks.shape) + masks * rng.uniform(0, 3)
    if levels is not None:
        maps = np.round(maps * levels / 8) / levels
    return masks, maps


def ranks(values: np.ndarray) -> np.ndarray:
    """A strictly monotone image of the values in which no two distinct ones can merge."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.float64)


def regions_of(masks: np.ndarray) -> list[tuple[int, np.ndarray]]:
    found = []
    for image, mask in enumerate(masks):
        labels = measure.label(mask, connectivity=2)
        found += [(image, labels == label) for label in range(1, labels.max() + 1)]
    return found


def brute_curve(masks: np.ndarray, maps: np.ndarray) -> tuple[list[float], list[float]]:
    regions, fprs, pros = regions_of(masks), [0.0], [0.0]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        detected = maps >= threshold
        fprs.append(float(detected[~masks].mean()))
        pros.append(float(np.mean([detected[image][region].mean() for image, region in regions])))
    return fprs, pros


def brute_aupro(masks: np.ndarray, maps: np.ndarray, limit: float) -> float:
    fprs, pros = brute_curve(masks, maps)
    area = 0.0
    for x0, y0, x1, y1 in zip(fprs, pros, fprs[1:], pros[1:], strict=False):
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            return (area + (limit - x0) * (y0 + y1) / 2) / limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def brute_pro_rescaled(masks: np.ndarray, maps: np.ndarray, limit: float, steps: int) -> float:
    """Threshold the full maps at every step, as the authors do."""
    regions = regions_of(masks)
    highest, delta = maps.max(), (maps.max() - maps.min()) / steps
    fprs, pros = [], []
    for step in range(steps):
        detected = maps > highest - step * delta
        pros.append(np.mean([detected[image][region].mean() for image, region in regions]))
        fprs.append((detected & ~masks).sum() / (~masks).sum())
    x, y = np.array(fprs), np.array(pros)
    kept = x <= limit
    x, y = x[kept], y[kept]
    return auc((x - x.min()) / (x.max() - x.min()), (y - y.min()) / (y.max() - y.min()))


# --- auroc -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_anomalous", "scores", "expected"),
    [
        # anomalous 3, 1; good 2, 0: pairs 3>2, 3>0, 1<2, 1>0 -> 3 of 4
        ([True, False, True, False], [3.0, 2.0, 1.0, 0.0], 0.75),
        # anomalous 2, 1; good 1, 1: 2 wins both, 1 ties both -> (2 + 2/2) of 4
        ([True, True, False, False], [2.0, 1.0, 1.0, 1.0], 0.75),
        ([True, False, False], [5.0, 5.0, 5.0], 0.5),
        ([True, False], [1.0, 0.0], 1.0),
        ([True, False], [0.0, 1.0], 0.0),
        ([True, False], [-0.0, 0.0], 0.5),
    ],
)
def test_auroc_by_hand(is_anomalous: list, scores: list, expected: float) -> None:
    assert auroc(is_anomalous, scores) == expected


@given(
    st.lists(
        st.tuples(st.booleans(), st.one_of(st.integers(-2, 2).map(float), st.floats(-1e30, 1e30))),
        min_size=2,
        max_size=60,
    ).filter(lambda pairs: len({truth for truth, _ in pairs}) == 2)
)
def test_auroc_agrees_with_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    truth, scores = (np.array(column) for column in zip(*pairs, strict=True))
    area = auroc(truth, scores)
    assert area == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert auroc(truth, ranks(scores) ** 3) == area
    assert auroc(truth, -scores) == pytest.approx(1.0 - area, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_auroc_of_many_pixels_in_three_dimensions(dtype: type) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((4, 150, 160)) < 0.1
    scores = np.round(rng.normal(size=truth.shape) + truth, 2).astype(dtype)
    expected = roc_auc_score(truth.ravel(), scores.ravel())
    assert auroc(truth, scores) == pytest.approx(expected, abs=1e-12)
    assert 0.7 < expected < 0.8


@pytest.mark.parametrize(
    ("is_anomalous", "scores", "message"),
    [
        ([True, True], [0.0, 1.0], "got 2 anomalous and 0 good"),
        ([False, False, False], [0.0, 1.0, 2.0], "got 0 anomalous and 3 good"),
        (np.zeros(0, dtype=bool), np.zeros(0), "got 0 anomalous and 0 good"),
        ([True, False], [0.0, 1.0, 2.0], r"shape \(2,\) and scores of shape \(3,\)"),
        ([True, False], [[0.0, 1.0]], r"shape \(2,\) and scores of shape \(1, 2\)"),
        ([True, False], [0.0, math.nan], "NaN or infinite"),
        ([True, False], [0.0, math.inf], "NaN or infinite"),
        ([1.0, 0.0], [0.0, 1.0], "ground truth of type float64"),
        ([True, False], [0, 1], "scores of type int64"),
    ],
)
def test_auroc_refuses(is_anomalous: object, scores: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        auroc(is_anomalous, scores)


# --- the exact curve and its area --------------------------------------------------------------

# Regions A = pixels 0 and 1, B = pixel 5; good = pixels 2, 3 and 4. Thresholds downwards:
#   .9 half of A   (0, 1/4)        .8 one good   (1/3, 1/4)      .7 B   (1/3, 3/4)
#   .4 all of A    (1/3, 1)        .3 good       (2/3, 1)        .1 good  (1, 1)
MASKS = row(1, 1, 0, 0, 0, 1).astype(bool)
MAPS = row(0.9, 0.4, 0.8, 0.3, 0.1, 0.7)


def test_curve_by_hand() -> None:
    fpr, pro = pro_curve(MASKS, MAPS)
    assert fpr == pytest.approx(np.array([0, 0, 1, 1, 1, 2, 3]) / 3, abs=1e-15)
    assert pro == pytest.approx(np.array([0, 1, 1, 3, 4, 4, 4]) / 4, abs=1e-15)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0.3, 0.25),  # flat at 1/4 up to the limit
        (0.5, 0.5),  # (1/3 * 1/4 + 1/6 * 1) / (1/2)
        (2 / 3, 0.625),  # (1/3 * 1/4 + 1/3 * 1) / (2/3)
        (1.0, 0.75),  # 1/3 * 1/4 + 2/3 * 1
    ],
)
def test_area_by_hand(limit: float, expected: float) -> None:
    assert aupro(MASKS, MAPS, limit) == pytest.approx(expected, abs=1e-12)


def test_rounding_does_not_lift_the_curve_above_one() -> None:
    assert np.cumsum(np.full(9, 1 / 9))[-1] > 1.0
    _, pro = pro_curve(row(*[1] * 9, 0).astype(bool), np.arange(float(10)).reshape(1, 1, -1))
    assert pro[-1] == 1.0


def test_a_tie_of_good_and_defective_is_one_step_of_the_curve() -> None:
    # Regions A = pixel 0 at .9, B = pixel 4 at .5; good .5, .5, .1. The curve is (0, 0),
    # (0, 1/2), then all of .5 at once (2/3, 1), (1, 1). At 0.3: 1/2 + 1/2 * 0.45 = 0.725, so the
    # area is 0.3 * (0.5 + 0.725) / 2 and its normalised value 0.6125.
    masks, maps = row(1, 0, 0, 0, 1).astype(bool), row(0.9, 0.5, 0.5, 0.1, 0.5)
    fpr, pro = pro_curve(masks, maps)
    assert fpr == pytest.approx([0, 0, 2 / 3, 1], abs=1e-15)
    assert pro == pytest.approx([0, 0.5, 1, 1], abs=1e-15)
    assert aupro(masks, maps) == pytest.approx(0.6125, abs=1e-12)


def test_diagonal_neighbours_are_one_region() -> None:
    # Pixels (0,0) and (1,1) touch at a corner: with (0,3) there are two regions, not three.
    # Detecting (0,0) alone gives 1/4 (three regions would give 1/3).
    masks = np.array([[[1, 0, 0, 1], [0, 1, 0, 0]]], dtype=bool)
    maps = np.array([[[0.9, 0.0, 0.0, 0.4], [0.0, 0.5, 0.0, 0.0]]])
    _, pro = pro_curve(masks, maps)
    assert pro == pytest.approx([0, 0.25, 0.5, 1, 1], abs=1e-15)


def test_the_same_place_in_two_images_is_two_regions() -> None:
    # Image 0 has pixels 0 and 1, image 1 pixel 0. Detecting image 1 gives 1/2 (joined: 1/3).
    masks = np.array([[[1, 1, 0]], [[1, 0, 0]]], dtype=bool)
    maps = np.array([[[0.4, 0.3, 0.0]], [[0.9, 0.0, 0.0]]])
    _, pro = pro_curve(masks, maps)
    assert pro == pytest.approx([0, 0.5, 0.75, 1, 1], abs=1e-15)


def test_area_of_a_perfect_an_inverted_and_a_constant_map() -> None:
    masks, _ = random_case(0)
    maps = masks.astype(np.float64)
    assert aupro(masks, maps) == pytest.approx(1.0, abs=1e-12)
    assert aupro(masks, -maps) == 0.0  # (0, 0) to (1, 0): nothing is found before the limit
    assert aupro(masks, 0 * maps) == pytest.approx(0.15, abs=1e-12)  # the diagonal


@pytest.mark.parametrize("levels", [None, 2, 8])
@pytest.mark.parametrize("seed", range(4))
def test_curve_and_area_agree_with_brute_force(seed: int, levels: int | None) -> None:
    masks, maps = random_case(seed, levels)
    fpr, pro = pro_curve(masks, maps)
    brute_fpr, brute_pro = brute_curve(masks, maps)
    assert fpr == pytest.approx(brute_fpr, abs=1e-10)
    assert pro == pytest.approx(brute_pro, abs=1e-10)
    for limit in LIMITS:
        assert aupro(masks, maps, limit) == pytest.approx(
            brute_aupro(masks, maps, limit), abs=1e-10
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 40]), st.floats(0.01, 1.0))
def test_area_agrees_with_brute_force_on_scattered_masks(
    seed: int, levels: int, limit: float
) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((2, 5, 6)) < 0.3
    masks[0, 0, :2] = True, False
    maps = rng.integers(0, levels + 1, masks.shape) / levels
    assert aupro(masks, maps, limit) == pytest.approx(brute_aupro(masks, maps, limit), abs=1e-10)
    assert aupro(masks, ranks(maps) ** 3, limit) == aupro(masks, maps, limit)


@pytest.mark.parametrize("levels", [None, 8])
def test_area_agrees_with_anomalib(levels: int | None) -> None:
    module = pytest.importorskip("anomalib.metrics.aupro", reason="anomalib is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for seed in range(4):
        masks, maps = random_case(seed, levels, size=48)
        for limit in LIMITS:
            theirs = module._AUPRO(fpr_limit=limit)
            theirs.update(torch.tensor(maps, dtype=torch.float32), torch.tensor(masks).float())
            assert aupro(masks, maps.astype(np.float32), limit) == pytest.approx(
                float(theirs.compute()), abs=2e-6
            )


# --- the rescaled area -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        # Thresholds 1, .75, .5, .25 give (0, 0), (0, 1/4), (1/3, 3/4), (2/3, 1).
        # Up to .5: x = 0, 0, 1 and y = 0, 1/3, 1 -> (1/3 + 1) / 2
        (0.5, 2 / 3),
        (1 / 3, 2 / 3),  # a point at the limit is kept
        # Up to .7: x = 0, 0, 1/2, 1 -> (1/4 + 3/4) / 4 + (3/4 + 1) / 4
        (0.7, 0.6875),
    ],
)
def test_rescaled_area_by_hand(limit: float, expected: float) -> None:
    maps = row(1.0, 0.3, 0.7, 0.4, 0.0, 0.6)
    assert pro_rescaled(MASKS, maps, limit, steps=4) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [None, 8])
@pytest.mark.parametrize("seed", range(3))
def test_rescaled_area_agrees_with_brute_force(seed: int, levels: int | None, dtype: type) -> None:
    masks, maps = random_case(seed, levels)
    maps = maps.astype(dtype)
    for limit, steps in [(0.30, 1000), (0.30, 64), (0.7, 200)]:
        expected = brute_pro_rescaled(masks, maps.astype(np.float64), limit, steps)
        assert pro_rescaled(masks, maps, limit, steps) == pytest.approx(expected, abs=1e-10)


def test_rescaled_area_samples_as_the_authors_do() -> None:
    masks, maps = random_case(2)
    expected = brute_pro_rescaled(masks, maps, 0.30, 4000)
    assert pro_rescaled(masks, maps) == pytest.approx(expected, abs=1e-10)
    found = evaluate_maps(masks.any(axis=(1, 2)), maps.max(axis=(1, 2)), masks, maps)
    assert found.pro_rescaled == pytest.approx(expected, abs=1e-10)


def test_rescaled_area_flatters() -> None:
    masks, maps = random_case(1)
    assert pro_rescaled(masks, maps) > aupro(masks, maps)


@pytest.mark.parametrize(
    ("maps", "steps"),
    [
        (np.ones(MASKS.shape), 1000),  # constant
        (MASKS.astype(np.float64), 1000),  # perfect separation: no false positive is ever kept
        (MAPS, 1),  # one point
        (1.0 - MASKS, 1000),  # all good pixels first: beyond the limit at once
        (row(0, 0, 1, 0, 0, 0).astype(np.float64), 1000),  # one good pixel alone: no overlap
    ],
)
@pytest.mark.filterwarnings("error")
def test_rescaled_area_is_nan_without_a_range(maps: np.ndarray, steps: int) -> None:
    assert math.isnan(pro_rescaled(MASKS, maps, 0.5, steps))


# --- shared refusals and the summary -----------------------------------------------------------


@pytest.mark.parametrize("metric", [pro_curve, aupro, pro_rescaled])
@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        (np.zeros((2, 3, 3), dtype=bool), np.zeros((2, 3, 3)), "got 0 anomalous and 18 good"),
        (np.ones((2, 3, 3), dtype=bool), np.zeros((2, 3, 3)), "got 18 anomalous and 0 good"),
        (MASKS, MAPS[..., :5], r"shape \(1, 1, 6\) and scores of shape \(1, 1, 5\)"),
        (MASKS[0], MAPS[0], r"got masks of shape \(1, 6\), expected \(N, H, W\)"),
        (MASKS, np.where(MASKS, np.nan, MAPS), "NaN or infinite"),
        (MASKS.astype(np.uint8), MAPS, "ground truth of type uint8"),
    ],
)
def test_localisation_scores_refuse(
    metric: Callable, masks: np.ndarray, maps: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        metric(masks, maps)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.01, math.nan])
def test_the_limit_is_a_rate(limit: float) -> None:
    for metric in (aupro, pro_rescaled):
        with pytest.raises(ValueError, match="got fpr_limit="):
            metric(MASKS, MAPS, limit)


def test_rescaled_area_needs_a_step() -> None:
    with pytest.raises(ValueError, match="got steps=0"):
        pro_rescaled(MASKS, MAPS, steps=0)


def test_summary_with_and_without_masks() -> None:
    masks, maps = random_case(2)
    is_anomalous, scores = masks.any(axis=(1, 2)), np.array([0.4, 0.9, 0.6])
    assert is_anomalous.tolist() == [True, True, False]
    # good 0.6 loses to 0.9 and wins against 0.4
    assert evaluate_maps(is_anomalous, scores, masks, maps) == Metrics(
        image_auroc=0.5,
        pixel_auroc=auroc(masks, maps),
        aupro=aupro(masks, maps),
        pro_rescaled=pro_rescaled(masks, maps),
    )
    assert evaluate_maps(is_anomalous, scores, None, maps) == Metrics(0.5, None, None, None)
    with pytest.raises(DataError, match="masks without anomaly maps"):
        evaluate_maps(is_anomalous, scores, masks)
