"""Kept frames: lossless, within their room, and scored again by --replay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from stations import ListSource, Live
from typer.testing import CliRunner

from stpm.runtime import Detector
from stpm.runtime.cli import main as run_main
from stpm.runtime.images.preprocess import load_image, read_pixels
from stpm.runtime.live.keep import KeptFrames
from stpm.runtime.live.read_record import read_record
from stpm.runtime.live.record import Record
from stpm.runtime.live.replay_record import replay
from stpm.runtime.live.station import Camera, Station
from stpm.runtime.live.verdict import Frame

NOON = 1_777_896_000_000_000_000
"""2026-05-04T12:00:00Z in nanoseconds."""


def frame(pixels: np.ndarray, second: int = 0) -> Frame:
    return Frame(pixels, "camera#1", NOON + second * 10**9)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_frames_keep_every_bit(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape).astype(kind)
    keep = KeptFrames(tmp_path / "frames", 10, tmp_path / "record")
    name = keep.put("top", frame(pixels))
    assert name == "../frames/20260504T120000000000Z-top.png"
    (path,) = (tmp_path / "frames").iterdir()
    kept = read_pixels(path)
    assert kept.dtype == kind
    np.testing.assert_array_equal(kept, pixels)


def test_the_oldest_go_and_nobody_elses(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "mine.png")
    noise = np.random.default_rng(0).integers(0, 256, (400, 1000), np.uint8)  # 0.4 MB as PNG
    for first in (0, 10):  # a second station goes on
        keep = KeptFrames(tmp_path, 2, tmp_path)
        for second in range(first, first + 10):
            keep.put("top", frame(noise, second))
            sizes = {path.name: path.stat().st_size for path in tmp_path.glob("2026*")}
            assert sum(sizes.values()) <= 2_000_000
    assert sorted(sizes) == [f"20260504T1200{second}000000Z-top.png" for second in range(16, 20)]
    assert (tmp_path / "mine.png").is_file()


def test_a_disk_that_refuses_a_frame_costs_no_verdict(
    detector: Detector,
    good: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep = KeptFrames(tmp_path / "frames", 10, tmp_path / "record")
    source = ListSource([load_image(path) for path in good[:3]])
    shutil.rmtree(tmp_path / "frames")
    station = Station([Camera("top", source, detector)], Record(tmp_path / "record"), [], keep=keep)
    station.run()
    entries = [line.entry for line in read_record(tmp_path / "record")]
    assert len(entries) == 3
    assert not any("kept" in e for e in entries)
    assert keep.failed == 3
    assert capsys.readouterr().err.count("frames cannot be kept (No such file or directory)") == 1


def test_a_video_is_replayed_where_it_was_copied_to(
    bundle_path: Path, detector: Detector, good: list[Path], bad: list[Path], tmp_path: Path
) -> None:
    station = tmp_path / "station"
    station.mkdir()
    writer = cv2.VideoWriter(str(station / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for path in (*good[:3], bad[0]):
        writer.write(load_image(path)[..., ::-1])
    writer.release()
    live = Live(station, bundle_path, "a.avi", "--keep", "frames", "--json")
    assert live.process.wait(60) == 0
    entries = [line.entry for line in read_record(station / "record")]
    assert [json.loads(line) for line in live.lines] == entries
    assert [entry["image"] for entry in entries] == [f"a.avi#{n}" for n in (1, 2, 3, 4)]
    assert all(entry["latency_ms"]["keep"] > 0 for entry in entries)

    elsewhere = station.rename(tmp_path / "desk")
    result = CliRunner().invoke(run_main, [str(bundle_path), "--replay", str(elsewhere / "record")])
    assert "4 as recorded, 0 different, 0 images not kept" in result.stderr
    assert result.exit_code == 0
    first, second = (elsewhere / "record" / entry["kept"] for entry in entries[:2])
    shutil.copy(second, first)
    second.unlink()
    said: list[str] = []
    found = replay(detector, elsewhere / "record", said.append)
    assert (found.same, found.different, found.missing) == (2, 1, 1)
    (path,) = (elsewhere / "record").glob("*.jsonl")
    assert said == [f"{path.name}:1 a.avi#1: the image has other pixels than it had"]


def test_a_line_keeps_frames_beside_its_file(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "line.toml").write_text(
        f"""
keep = "frames"
keep-max-mb = 0

[[camera]]
name = "top"
source = "."
bundle = {json.dumps(str(bundle_path))}
"""
    )
    live = Live(tmp_path, "line.toml")
    assert live.process.wait(60) == 1
    assert live.log.endswith("error: got keep-max-mb = 0, expected 1 or more; correct it.\n")
