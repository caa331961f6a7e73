"""The loop: every frame a verdict, whatever the scorer's pace, the sinks and the disk do."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from stations import ListSource, wait_until

from stpm.runtime import Detector
from stpm.runtime.live.delivery import Delivery
from stpm.runtime.live.record import Record, read_record
from stpm.runtime.live.station import Camera, Station, WhenBehind
from stpm.runtime.live.verdict import Event, pixels_hash


class ListSink:
    """Keeps what it is sent, after it has failed so often."""

    wants_images = False

    def __init__(self, failures: int = 0, seconds: float = 0) -> None:
        self.events: list[Event] = []
        self.is_closed = False
        self._failures, self._seconds = failures, seconds

    def send(self, event: Event) -> None:
        time.sleep(self._seconds)
        if self._failures:
            self._failures -= 1
            raise ConnectionError("nobody there")
        self.events.append(event)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def images(good: list[Path], bad: list[Path]) -> list[np.ndarray]:
    from stpm.runtime.images.preprocess import load_image

    return [load_image(path) for path in (*good[:6], *bad)]


def test_every_frame_has_a_verdict_in_the_record(
    detector: Detector, images: list[np.ndarray], tmp_path: Path
) -> None:
    source, sink = ListSource(images), ListSink()
    camera = Camera("top", source, detector)
    Station([camera], Record(tmp_path), [Delivery("list", sink)], cycle_time=1e-6).run()
    entries = [line.entry for line in read_record(tmp_path)]
    assert [e["image"] for e in entries] == [f"list#{i}" for i in range(len(images))]
    for entry, image, result in zip(entries, images, detector.batch(images), strict=True):
        assert entry["verdict"] == result.verdict
        assert entry["score"] == pytest.approx(result.score, rel=1e-5)
        assert entry["sha256"] == pixels_hash(image)
        assert entry["bundle"] == detector.bundle.manifest_sha256
        assert entry["latency_ms"].keys() == {"wait", "decode", "score"}
    assert [event.entry for event in sink.events] == entries
    assert all(event.image is None for event in sink.events)
    assert sink.is_closed
    assert source.recorded == [e["image"] for e in entries]
    assert camera.counts.total() == len(images)


class Paced:
    """A detector that takes its time."""

    def __init__(self, detector: Detector, seconds: float) -> None:
        self._detector, self._seconds = detector, seconds
        self.bundle, self.engine_name = detector.bundle, detector.engine_name

    def __call__(self, image: np.ndarray) -> object:
        time.sleep(self._seconds)
        return self._detector(image)


@pytest.mark.parametrize("policy", list(WhenBehind))
def test_a_line_faster_than_the_scorer(
    policy: WhenBehind, detector: Detector, images: list[np.ndarray], tmp_path: Path
) -> None:
    camera = Camera("top", ListSource(images), Paced(detector, 0.2))  # type: ignore[arg-type]
    Station([camera], Record(tmp_path), [], when_behind=policy, queue=2).run()
    verdicts = {line.entry["image"]: line.entry["verdict"] for line in read_record(tmp_path)}
    assert len(verdicts) == len(images)  # what was dropped is a verdict, too
    dropped = [image for image, verdict in verdicts.items() if verdict == "dropped"]
    last = f"list#{len(images) - 1}"
    if policy is WhenBehind.BLOCK:
        assert dropped == []
    else:
        assert len(dropped) >= len(images) - 4
        assert (last in dropped) == (policy is WhenBehind.DROP_NEWEST)


def test_an_unreadable_image_is_a_verdict(detector: Detector, tmp_path: Path) -> None:
    source = ListSource([np.zeros((4, 4, 2), np.uint8), np.zeros((64, 64), np.uint8)])
    Station([Camera("top", source, detector)], Record(tmp_path), []).run()
    first, second = (line.entry for line in read_record(tmp_path))
    assert first["verdict"] == "error"
    assert "expected uint8 or uint16 of shape" in first["error"]
    assert "score" in second


def test_a_sink_that_is_down_holds_nobody_up(
    detector: Detector, images: list[np.ndarray], tmp_path: Path
) -> None:
    down, well = ListSink(failures=3), ListSink()
    deliveries = [Delivery("down", down), Delivery("well", well)]
    Station([Camera("top", ListSource(images), detector)], Record(tmp_path), deliveries).run()
    assert [len(sink.events) for sink in (down, well)] == [len(images)] * 2
    assert [e.entry for e in down.events] == [e.entry for e in well.events]  # none twice, in order
    assert (deliveries[0].sent, deliveries[0].lost, deliveries[0].state) == (len(images), 0, "")


def test_a_full_queue_loses_the_oldest_and_counts_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stpm.runtime.live import delivery

    monkeypatch.setattr(delivery, "CAPACITY", 3)
    sink = ListSink(seconds=0.05)
    slow = Delivery("slow", sink)
    for number in range(10):
        slow.put(Event({"number": number}))
    wait_until(lambda: not slow.waiting)
    slow.close(5)
    assert slow.lost >= 6
    assert sink.events[-1].entry == {"number": 9}
    assert "slow: is too slow or down" in capsys.readouterr().err


def test_a_full_disk_ends_the_station(
    detector: Detector, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stpm.runtime.live import record

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    sink = ListSink()
    station = Station(
        [Camera("top", ListSource(images), detector)], Record(tmp_path), [Delivery("list", sink)]
    )
    monkeypatch.setattr(record.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        station.run()
    assert sink.events == []  # nobody was told of what is not on the disk
    assert list(read_record(tmp_path)) == []


def test_the_shadow_decides_nothing(
    detector: Detector, images: list[np.ndarray], bundle_path: Path, tmp_path: Path
) -> None:
    import shutil

    from typer.testing import CliRunner

    from stpm.runtime.site.cli import main as calibrate

    strict = shutil.copytree(bundle_path, tmp_path / "strict.stpm")
    result = CliRunner().invoke(calibrate, [str(strict), "--threshold", "1e-9"])
    assert result.exit_code == 0, result.output
    shadow = Detector(strict, "onnxruntime", threads=1)
    camera = Camera("top", ListSource(images), detector, shadow=shadow)
    Station([camera], Record(tmp_path / "record"), []).run()
    entries = [line.entry for line in read_record(tmp_path / "record")]
    assert [e["verdict"] for e in entries] == [r.verdict for r in detector.batch(images)]
    assert {e["shadow"]["verdict"] for e in entries} == {"anomalous"}
    differing = sum(e["verdict"] != "anomalous" for e in entries)
    assert camera.shadow_differs == differing > 0
