"""`stpm-calibrate --roi --ignore --min-area`: what counts is scored, and all else is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import put
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from stpm.runtime import Bundle, Detector
from stpm.runtime.bundle.scoring import Scoring
from stpm.runtime.errors import BackendError, BundleError, DataError, ParityError
from stpm.runtime.site.cli import main
from stpm.runtime.site.rule import Rule, Scored, roi_weights
from stpm.runtime.site.thresholds import from_good_images

SIZE = (64, 64)
IMAGE = np.zeros(SIZE, np.uint8)


@pytest.fixture
def line(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle to change."""
    return Path(shutil.copytree(bundle_path, tmp_path / "line.stpm"))


@pytest.fixture
def good(data_root: Path) -> Path:
    return data_root / "weave/train/good"


@pytest.fixture
def bad(data_root: Path) -> list[Path]:
    """Images whose defect lies in rows 20 to 36, ever further right."""
    return sorted((data_root / "weave/test/hole").glob("*.png"))


def calibrate(line: Path, *arguments: object) -> str:
    result = CliRunner().invoke(main, [str(line), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(line: Path, *arguments: object) -> str:
    result = CliRunner().invoke(main, [str(line), *map(str, arguments)])
    assert result.exit_code == 1, result.output
    return result.stderr


def mask(path: Path, rows: slice, size: tuple[int, int] = SIZE) -> Path:
    values = np.zeros(size, np.uint8)
    values[rows] = 255
    Image.fromarray(values).save(path)
    return path


def test_outside_nothing_counts(line: Path, good: Path, bad: list[Path], tmp_path: Path) -> None:
    raw = Detector(line, "onnxruntime").batch(bad)
    calibrate(line, good, "--roi", mask(tmp_path / "foot.png", slice(52, 64)))
    detector = Detector(line, "onnxruntime")
    results = detector.batch(bad)
    for before, after in zip(raw, results, strict=True):
        foot = before.anomaly_map[52:]
        assert after.score == foot.max()
        np.testing.assert_array_equal(after.anomaly_map[52:], foot)
        assert (after.anomaly_map[:52] == 0).all()
        assert all(region.box[0] >= 52 for region in after.regions)
        (roi,) = after.rois
        assert (roi.name, roi.score, roi.threshold) == ("foot", after.score, after.threshold)
        assert roi.verdict == after.verdict
        assert after.summary()["rois"][0]["name"] == "foot"
    np.testing.assert_array_equal(detector.scores(bad), [r.score for r in results])
    goods = sorted(r.score for r in detector.batch(sorted(good.glob("*.png"))))
    record = Bundle(line).manifest.engines["onnxruntime"]
    assert record.calibration.scores == pytest.approx(goods, rel=1e-6)
    with pytest.raises(BackendError, match="regions of interest"):
        detector.score_on_device(None)


def test_what_is_ignored_and_back_to_the_whole_image(
    line: Path, good: Path, bad: list[Path], tmp_path: Path
) -> None:
    raw = [result.score for result in Detector(line, "onnxruntime").batch(bad)]
    calibrate(line, good, "--ignore", mask(tmp_path / "hole.png", slice(0, 52)))
    ignoring = Detector(line, "onnxruntime").batch(bad)
    assert [roi.name for roi in ignoring[0].rois] == ["image"]
    assert all(a.score < b for a, b in zip(ignoring, raw, strict=True))
    assert "scoring.npz" in Bundle(line).manifest.files
    calibrate(line, good, "--whole-image")
    assert [result.score for result in Detector(line, "onnxruntime").batch(bad)] == raw
    assert "scoring.npz" not in Bundle(line).manifest.files


def test_regions_have_thresholds_of_their_own(
    line: Path, good: Path, bad: list[Path], tmp_path: Path
) -> None:
    raw = Detector(line, "onnxruntime").batch(sorted(good.glob("*.png")))
    upper = mask(tmp_path / "upper.png", slice(0, 16))
    calibrate(
        line, good, "--roi", upper, "--roi", f"rest={mask(tmp_path / 'x.png', slice(16, 64))}"
    )
    detector = Detector(line, "onnxruntime")
    for before, after in zip(raw, detector.batch(sorted(good.glob("*.png"))), strict=True):
        assert [roi.name for roi in after.rois] == ["upper", "rest"]
        parts = before.anomaly_map[:16], before.anomaly_map[16:]
        assert [roi.score for roi in after.rois] == pytest.approx(
            [p.max() for p in parts], rel=1e-6
        )
        assert after.is_anomalous == any(roi.score > roi.threshold for roi in after.rois)
    first, second = after.rois
    assert first.threshold != second.threshold
    medians = [
        np.sort([r.anomaly_map[rows].max() for r in raw])[7] for rows in (slice(16), slice(16, 64))
    ]
    assert second.threshold / first.threshold == pytest.approx(medians[1] / medians[0], rel=1e-5)
    assert any(result.rois[1].verdict == "anomalous" for result in detector.batch(bad))


def test_several_regions_keep_the_promise() -> None:
    """Over many calibrations the share of rejected new images is at most the rate."""
    draw = np.random.default_rng(5)
    rule = Rule(Scoring("max", 0, ("a", "b", "c")), np.array([[1, 2, 3]], np.uint8))
    rate, rejected, rounds = 0.1, 0, 1500
    for _ in range(rounds):
        scale = draw.lognormal(0, 1, 3)
        maps = (draw.gamma(2, size=(20, 1, 3)) * scale).astype(np.float32)
        scored = Scored(maps[:19], maps[:19].max(axis=(1, 2)), [(1, 3)] * 19)
        calibration = from_good_images(scored, rule, rate, None, rate)
        new = Scored(maps[19:], maps[19:].max(axis=(1, 2)), [(1, 3)])
        score = rule.scores(new, calibration.roi_weights)[0]
        rejected += int(score > calibration.image_threshold)
    deviation = np.sqrt(rate * (1 - rate) / rounds)
    assert rate / 2 < rejected / rounds < rate + 3 * deviation


def test_the_smallest_defect(line: Path, good: Path, bad: list[Path]) -> None:
    raw = Detector(line, "onnxruntime").batch(bad)
    calibrate(line, good, "--min-area", 120)
    results = Detector(line, "onnxruntime").batch(bad)
    for before, after in zip(raw, results, strict=True):
        values = before.anomaly_map
        labels, _ = ndimage.label(values >= np.float32(after.score), np.ones((3, 3)))
        assert np.bincount(labels.ravel())[1:].max() >= 120
        above = np.nextafter(np.float32(after.score), np.float32(np.inf))
        labels, count = ndimage.label(values >= above, np.ones((3, 3)))
        assert not count or np.bincount(labels.ravel())[1:].max() < 120
        assert all(region.area >= 120 for region in after.regions)
        assert not after.is_anomalous or after.regions
        assert after.min_area == 120
    calibrate(line, good, "--min-area", 0)
    assert [r.score for r in Detector(line, "onnxruntime").batch(bad)] == [r.score for r in raw]


def test_an_engine_that_is_not_calibrated_has_no_threshold_of_another_score(
    line: Path, good: Path
) -> None:
    said = calibrate(line, good, "--min-area", 30, "--engine", "onnxruntime")
    records = Bundle(line).manifest.engines
    others = records.keys() - {"onnxruntime"}
    assert others
    for name in others:
        assert records[name].calibration.scores == records["onnxruntime"].calibration.scores
        assert f"{name}: has those of onnxruntime, since a score is another now" in said


def test_what_cannot_count_is_refused(line: Path, good: Path, tmp_path: Path) -> None:
    before = (line / "manifest.json").read_bytes()
    small = mask(tmp_path / "small.png", slice(0, 4), (32, 32))
    assert "got 32x32 pixels, expected 64x64, the size of the images" in refused(
        line, good, "--roi", small
    )
    part = mask(tmp_path / "part.png", slice(0, 30))
    assert "got a region of interest named 'a b'" in refused(line, good, "--roi", f"a b={part}")
    other = tmp_path / "other.png"
    Image.new("L", (80, 80)).save(other)
    assert "expected one size with regions of interest" in refused(line, good, other, "--roi", part)
    assert (line / "manifest.json").read_bytes() == before
    values = json.loads(before)
    del values["scoring"]  # as of version 1: nobody knows how the graph scores
    (line / "manifest.json").write_text(json.dumps(values))
    assert "the score does not come from the map" in refused(line, good, "--roi", part)


def test_scores_of_the_golden_maps_are_held(line: Path, good: Path, tmp_path: Path) -> None:
    calibrate(line, good, "--roi", mask(tmp_path / "part.png", slice(10, 40)))
    path = line / "scoring.npz"
    with np.load(path) as arrays:
        labels, scores = arrays["labels"], arrays["golden_scores"]

    def with_arrays(labels: np.ndarray, scores: np.ndarray) -> Path:
        np.savez(path, labels=labels, golden_scores=scores)
        put(line, "scoring.npz", path.read_bytes())
        return line

    with pytest.raises(ParityError, match="differently than at calibration"):
        Detector(with_arrays(labels, scores * np.float32(1.01)), "onnxruntime")(IMAGE)
    with pytest.raises(BundleError, match="labels contains the regions"):
        Detector(with_arrays(labels * 2, scores), "onnxruntime")
    with pytest.raises(BundleError, match="got labels"):
        Detector(with_arrays(labels[:5], scores), "onnxruntime")


def test_too_few_images_to_weigh_regions() -> None:
    rule = Rule(Scoring("max", 0, ("a", "b")), np.array([[1, 2]], np.uint8))
    one = Scored(np.ones((1, 1, 2), np.float32), np.ones(1, np.float32), [(1, 2)])
    with pytest.raises(DataError, match="expected at least two with scores above 0"):
        roi_weights(one, rule)
