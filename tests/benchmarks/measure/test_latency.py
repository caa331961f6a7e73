"""What is timed, and that the recorded times are those of the work."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpm.benchmarks.measure import latency
from stpm.benchmarks.measure.footprint import footprint
from stpm.benchmarks.measure.latency import (
    Case,
    LatencyPlan,
    Workload,
    latency_result,
    open_workloads,
    time_cases,
)
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, DataError

ENGINE = "onnxruntime"


def plan(bundle: Path, **options: object) -> LatencyPlan:
    return LatencyPlan([bundle], [ENGINE], **options)  # type: ignore[arg-type]


def test_every_sensible_combination_is_a_case(bundle_path: Path) -> None:
    cases = plan(bundle_path, batches=(1, 4, 8), streams=(2, 3), image_sizes=[(64, 64), (90, 70)])
    found = {(c.scenario, c.batch, c.streams, c.image_size) for c in cases.cases()}
    # The bundle takes batches up to 4; a single stream is one stream.
    expected = set()
    for size in ((64, 64), (90, 70)):
        for batch in (1, 4):
            expected.add(("single_stream", batch, 1, size))
            for scenario in ("multi_stream", "offline"):
                expected |= {(scenario, batch, streams, size) for streams in (2, 3)}
    assert found == expected
    assert len({case.name for case in cases.cases()}) == len(expected)


def test_nothing_to_time_is_said(bundle_path: Path) -> None:
    with pytest.raises(DataError, match=r"--batch MIN\.\.MAX"):
        plan(bundle_path, batches=(8,)).cases()


@pytest.mark.parametrize(
    ("scenario", "batch", "streams", "images"),
    [
        ("single_stream", 1, 1, 1),
        ("single_stream", 4, 1, 4),
        ("multi_stream", 2, 3, 6),
        ("offline", 4, 2, 128),
        ("offline", 1, 2, 128),
    ],
)
def test_images_of_a_query(scenario: str, batch: int, streams: int, images: int) -> None:
    case = Case(Path("x.stpm"), ENGINE, scenario, (64, 64), batch, streams)
    assert case.images_per_query == images


class SlowDetector(Detector):
    """Sleeps for known times in each stage."""

    def prepare(self, images):  # type: ignore[no-untyped-def]
        time.sleep(0.01)
        return super().prepare(images)

    def infer(self, inputs):  # type: ignore[no-untyped-def]
        time.sleep(0.03 if hasattr(self, "opened") else 0)
        return super().infer(inputs)

    def decide(self, *arguments):  # type: ignore[no-untyped-def]
        time.sleep(0.02)
        return super().decide(*arguments)


def test_stages_hold_their_own_time(bundle_path: Path) -> None:
    detector = SlowDetector(bundle_path, ENGINE)
    detector.opened = True  # type: ignore[attr-defined]
    workload = Workload(Case(bundle_path, ENGINE, "single_stream", (64, 64)), detector, [])
    stages = workload.query()
    assert set(stages) == {"decode", "resize", "engine", "decision", "total"}
    assert stages["resize"] >= 10
    assert stages["engine"] >= 30
    assert stages["decision"] >= 20
    assert stages["total"] == pytest.approx(
        stages["resize"] + stages["engine"] + stages["decision"]
    )


def test_streams_score_at_once(bundle_path: Path) -> None:
    together = threading.Barrier(4)

    class Meeting(Detector):
        def prepare(self, images):  # type: ignore[no-untyped-def]
            together.wait(timeout=60)  # breaks unless four threads meet here
            return super().prepare(images)

    case = Case(bundle_path, ENGINE, "multi_stream", (64, 64), streams=4)
    assert set(Workload(case, Meeting(bundle_path, ENGINE), []).query()) == {"total"}


def test_frames_are_the_files_at_the_cameras_size(bundle_path: Path, tmp_path: Path) -> None:
    seen = []

    class Recorder(Detector):
        def prepare(self, images):  # type: ignore[no-untyped-def]
            seen.extend(images)
            return super().prepare(images)

    path = tmp_path / "flat.png"
    Image.fromarray(np.full((30, 40, 3), 77, np.uint8)).save(path)
    case = Case(bundle_path, ENGINE, "single_stream", (90, 70), batch=2)
    Workload(case, Recorder(bundle_path, ENGINE), [path]).query()
    assert [frame.shape for frame in seen] == [(90, 70, 3)] * 2
    assert all((frame == 77).all() for frame in seen)


def test_rounds_are_interleaved_and_reversed(bundle_path: Path) -> None:
    order: list[int] = []

    class Fake:
        def __init__(self, number: int) -> None:
            self.number = number
            self.case = Case(bundle_path, ENGINE, "single_stream", (64, 64))

        def query(self) -> dict[str, float]:
            order.append(self.number)
            return {"total": float(self.number)}

    fakes = [Fake(1), Fake(2)]
    times = time_cases(fakes, images=4, rounds=2, on_round=lambda _: None)  # type: ignore[arg-type]
    warm_up = 2 * latency.WARM_UP
    assert order[warm_up:] == [1, 1, 2, 2, 2, 2, 1, 1]
    assert times == [[{"total": [1.0, 1.0]}] * 2, [{"total": [2.0, 2.0]}] * 2]


def test_the_result_keeps_every_time_and_its_percentiles(bundle_path: Path) -> None:
    content = latency_result(plan(bundle_path, batches=(1, 2)), [], images=6, rounds=3)
    assert content["kind"] == "latency"
    assert set(content["models"]) == {"weave.stpm"}
    assert [case["scenario"] for case in content["cases"]] == 2 * list(latency.SCENARIOS)
    for case in content["cases"]:
        times = np.concatenate(case["rounds_ms"])
        assert len(case["rounds_ms"]) == 3
        assert case["latency_ms"]["p50"] == pytest.approx(np.median(times), abs=1e-3)
        assert case["latency_ms"]["max"] == pytest.approx(times.max(), abs=1e-3)
        rate = case["images_per_query"] * len(times) / times.sum() * 1000
        assert case["images_per_second"] == pytest.approx(rate, rel=1e-3)
    (process,) = content["footprints"]
    assert process["open_ms"] >= process["build_ms"] > 0
    assert process["peak_memory_mib"] > 20


def test_workloads_of_one_bundle_share_a_detector(bundle_path: Path) -> None:
    cases = plan(bundle_path, batches=(1, 2), scenarios=("single_stream",)).cases()
    first, second = open_workloads(cases, [])
    assert first._detector is second._detector


def test_a_process_that_fails_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="a fresh process cannot open it"):
        footprint(tmp_path / "missing.stpm", ENGINE, 0)
