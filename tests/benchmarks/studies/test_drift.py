"""How soon drift is found: looks against formulas, delays against a station's own tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.records.result_file import read_result
from stpm.benchmarks.studies.drift import CHANGES, Plan, drift_result, highest_evidence, until_alarm
from stpm.benchmarks.studies.drift_images import GAINS, LIGHT, NOISE, Look, measure_pools, seen
from stpm.runtime.bundle.image_statistics import image_statistics
from stpm.runtime.detector import Detector
from stpm.runtime.live.drift import LEVEL, TESTS, Drift, DriftMonitor

PLAN = Plan(
    calibration=40,
    before=50,
    repetitions=5,
    short_runs=30,
    short_images=60,
    long_runs=2,
    long_images=300,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty textured parts."""
    folder = tmp_path_factory.mktemp("good")
    paths = []
    rows, columns = np.mgrid[:64, :64]
    for number in range(20):
        noise = np.random.default_rng(number).normal(0, 6, (64, 64))
        pixels = 110 + 40 * np.sin(rows / 3 + number) + 30 * np.cos(columns / 5) + noise
        paths.append(folder / f"{number:02}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def test_a_look_is_the_light_the_lens_and_the_tint() -> None:
    random = np.random.default_rng(0)
    image = random.integers(60, 180, (200, 200, 3)).astype(np.uint8)
    plain = np.array([seen(image, Look(), random).astype(float) for _ in range(60)])
    light = plain.mean(axis=(1, 2, 3)) / image.mean()
    assert light.mean() == pytest.approx(1, abs=4 * LIGHT / math.sqrt(60))
    assert light.std() == pytest.approx(LIGHT, rel=0.4)
    noise = plain[0] - light[0] * image
    assert noise.std() == pytest.approx(math.hypot(NOISE, math.sqrt(1 / 12)), rel=0.05)
    dim = seen(image, Look(gain=0.8), random)
    assert dim.mean() / image.mean() == pytest.approx(0.8, abs=4 * LIGHT)
    red, green, blue = (seen(image, Look(tint=0.1), random) / image).mean(axis=(0, 1))
    assert (red / green, blue / green) == pytest.approx((0.9, 1.1), abs=0.005)
    # White noise through a Gaussian of standard deviation s keeps 1 / (2 s sqrt(pi)) of its own.
    blurred = seen(image, Look(blur=2.0), random).astype(float)
    assert blurred.std() / image.std() == pytest.approx(1 / (4 * math.sqrt(math.pi)), rel=0.15)


def test_every_image_is_measured_in_every_look(bundle_path: Path, good: list[Path]) -> None:
    detector = Detector(bundle_path, "onnxruntime")
    blurred = Look(blur=2.0)
    pools = measure_pools(detector, good[:3], good[:2], (blurred,), 4, seed=0)
    assert pools.still.shape == (12, len(TESTS))
    assert pools.gains.shape == (len(GAINS), 3, len(TESTS))
    assert pools.defects.shape == (2, len(TESTS))
    for path, values in zip(good, pools.unaltered, strict=False):
        image = np.asarray(Image.open(path).convert("RGB"))
        expected = {"score": detector(path).score} | image_statistics(image)
        assert dict(zip(TESTS, values.tolist(), strict=True)) == pytest.approx(expected)
    brightness, sharpness = TESTS.index("brightness"), TESTS.index("sharpness")
    by_light = pools.gains[:, :, brightness].mean(axis=1) / pools.unaltered[:, brightness].mean()
    np.testing.assert_allclose(by_light, GAINS, atol=4 * LIGHT)
    assert (pools.looks[blurred][:, sharpness] < 0.6 * pools.unaltered[:, sharpness]).all()


def test_a_delay_is_that_of_the_station_s_own_tests() -> None:
    """`Drift` shares the level among its tests."""
    draw = np.random.default_rng(2)
    calibration, values = draw.normal(size=50), [*draw.normal(size=30), *draw.normal(4, size=40)]
    course = until_alarm(calibration, values, math.log10(len(TESTS) / LEVEL))
    image = np.full((4, 4, 3), 90, np.uint8)
    drift = Drift(calibration.tolist(), {})
    alarms = [bool(drift.update(value, image)["alarms"]) for value in values]
    assert len(course) == alarms.index(True) + 1
    assert 30 < len(course) < 50


def test_the_highest_evidence_is_that_of_any_test_at_any_time() -> None:
    draw = np.random.default_rng(3)
    calibration, stream = draw.normal(size=(30, len(TESTS))), draw.normal(size=(80, len(TESTS)))
    stream[20:40, 2] += 3
    highest = -math.inf
    for i in range(len(TESTS)):
        monitor = DriftMonitor(calibration[:, i].tolist())
        for value in stream[:, i].tolist():
            highest = max(highest, monitor.update(value).log10_evidence)
    assert highest_evidence(calibration, stream) == highest > 3


def test_the_study_finds_what_it_disturbs(bundle_path: Path, good: list[Path]) -> None:
    record = drift_result(bundle_path, good, good[:4], PLAN, "onnxruntime")
    assert [found["what"] for found in record["disturbances"]] == list(CHANGES)
    dimmed, blurred, *_ = record["disturbances"]
    for found, test in ((dimmed, "brightness"), (blurred, "sharpness")):
        assert found["early"] + found["repetitions"] == PLAN.repetitions
        assert found["delays"][test]["found"] == found["repetitions"] > 0
        low, middle, high = found["delays"][test]["quartiles"]
        assert 0 < low <= middle <= high < 40
        places, evidence = zip(*found["evidence"][test], strict=True)
        assert places[0] == 1 - PLAN.before
        assert evidence[-1] >= math.log10(len(TESTS) / PLAN.level) > max(evidence[:-1])
    for runs in record["undisturbed"]:
        alarms = {share["level"]: share["alarms"] for share in runs["shares"]}
        assert all(n <= binom.ppf(0.9999, runs["runs"], level) for level, n in alarms.items())
        assert all(
            (n > 0) == (runs["highest"] >= math.log10(len(TESTS) / level))
            for level, n in alarms.items()
        )
    assert [runs["images"] for runs in record["undisturbed"]] == [10, 60, 300]


def test_the_command_prints_what_it_writes(
    bundle_path: Path, good: list[Path], tmp_path: Path, read_page: Callable[[Path], Any]
) -> None:
    out, page = tmp_path / "drift.json", tmp_path / "report.html"
    few = ("--repetitions", 2, "--short-runs", 3, "--long-runs", 1, "--long", 50, "--before", 20)
    arguments = [bundle_path, "--good", good[0].parent, *few, "--engine", "onnxruntime"]
    result = CliRunner().invoke(main, ["drift", *map(str, arguments), "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    record = read_result(out)
    assert record["kind"] == "drift"
    assert not any("bad batch" in found["what"] for found in record["disturbances"])
    assert CliRunner().invoke(main, ["report", str(out), "-o", str(page)]).exit_code == 0
    read = read_page(page)
    (title,) = (title for title in read.tables if title.startswith("Images from the change"))
    rows = {row[0]: row for row in read.tables[title]}
    for found in record["disturbances"]:
        cells = rows[found["what"]]
        for place, test in enumerate([*TESTS, "any"], 1):
            middle = found["delays"][test]["quartiles"][1]
            assert cells[place].splitlines()[0] == ("never" if middle is None else str(middle))
        assert f"Evidence: {found['what']}" in read.text


def test_too_few_images_are_one_sentence(bundle_path: Path, good: list[Path]) -> None:
    result = CliRunner().invoke(main, ["drift", str(bundle_path), "--good", str(good[0])])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "got 1 good images, expected 20 or more" in result.stderr
