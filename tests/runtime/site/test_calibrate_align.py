"""`stpm-calibrate --align`: parts are scored at the reference's place, or not at all."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import parts
import pytest
from bundles import put
from PIL import Image
from stations import ListSource
from typer.testing import CliRunner

from stpm.runtime import Bundle, Detector, Result
from stpm.runtime.aligner import Placement
from stpm.runtime.cli import main as run
from stpm.runtime.errors import BackendError, BundleError, DataError, ParityError
from stpm.runtime.live.drift import Drift
from stpm.runtime.live.record import Record, read_record
from stpm.runtime.live.replay_record import replay
from stpm.runtime.live.station import Camera, Station
from stpm.runtime.output.map_score import UNALIGNED_SCORE
from stpm.runtime.output.overlay import overlay
from stpm.runtime.serve.answers import answers
from stpm.runtime.serve.clients import OUTPUTS
from stpm.runtime.serve.options import check_graph_scores
from stpm.runtime.serve.verify import verify
from stpm.runtime.site.align import check_whole_images
from stpm.runtime.site.cli import main

UNMOVED = Placement(np.eye(2, 3), parts.SIZE, 1.0)
NO_PART = np.random.default_rng(0).integers(0, 256, (*parts.SIZE, 3), np.uint8)


def invoke(line: Path, *arguments: object, exit_code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(line), *map(str, arguments)])
    assert result.exit_code == exit_code, result.output
    return result.output if exit_code == 0 else result.stderr


def saved(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts that lie somewhere within 5 pixels and 8 degrees."""
    folder = tmp_path_factory.mktemp("good")
    draw = np.random.default_rng(1)
    for seed in range(20):
        x, y, degrees = draw.uniform(-1, 1, 3) * (5, 5, 8)
        saved(folder / f"{seed:02}.png", parts.draw_part((x, y), degrees, seed=seed))
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("reference") / "part.png", parts.draw_part())


@pytest.fixture(scope="module")
def aligned(
    bundle_path: Path, good: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle that aligns parts. Do not change it."""
    path = Path(shutil.copytree(bundle_path, tmp_path_factory.mktemp("line") / "line.stpm"))
    invoke(path, good, "--align", reference)
    return path


@pytest.fixture
def line(aligned: Path, tmp_path: Path) -> Path:
    """One to change."""
    return Path(shutil.copytree(aligned, tmp_path / "line.stpm"))


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_moved_part_scores_as_one_at_rest(aligned: Path) -> None:
    detector = Detector(aligned, "onnxruntime")
    at_rest = parts.draw_part(defect=True)
    moved = parts.draw_part((6, -5), 9, defect=True)
    first, second = detector.batch([at_rest, moved])
    assert second.score == pytest.approx(first.score, rel=0.25)
    assert detector.aligner is not None
    _, (place,) = detector.aligner(moved[None])
    assert place is not None
    # In the camera's coordinates, so that it is the other map moved.
    assert likeness(second.anomaly_map, place.to_camera(first.anomaly_map)) > 0.9
    assert likeness(second.anomaly_map, first.anomaly_map) < 0.8
    scores = detector.scores([moved, at_rest])
    np.testing.assert_allclose(scores, [second.score, first.score], rtol=1e-5)
    maps, scores = detector.outputs([moved])
    # In batches of other sizes the last digits are others.
    np.testing.assert_allclose(maps[0], second.anomaly_map, rtol=1e-4, atol=1e-6)
    assert scores[0] == pytest.approx(second.score, rel=1e-5)


def test_what_is_not_found_has_a_verdict_of_its_own(aligned: Path) -> None:
    detector = Detector(aligned, "onnxruntime")
    ordinary, nothing = detector.batch([parts.draw_part((3, 3), 2, seed=50), NO_PART])
    assert (ordinary.verdict, nothing.verdict) == ("ok", "unaligned")
    assert nothing.is_anomalous
    assert nothing.score == UNALIGNED_SCORE
    assert np.isfinite(nothing.score)
    assert not nothing.anomaly_map.any()
    assert nothing.regions == ()
    assert json.loads(json.dumps(nothing.summary()))["verdict"] == "unaligned"
    assert tuple(overlay(NO_PART, nothing)[0, 0]) == (190, 20, 30)  # struck out


def test_thresholds_are_of_aligned_parts(aligned: Path, good: Path) -> None:
    results = Detector(aligned, "onnxruntime").batch(sorted(good.glob("*.png")))
    manifest = Bundle(aligned).manifest
    kept = manifest.engines["onnxruntime"].calibration
    assert kept.scores == pytest.approx(sorted(r.score for r in results), rel=1e-6)
    assert manifest.scoring.align is not None
    assert manifest.scoring.align.size == parts.SIZE
    assert manifest.scoring.align.correlation == 0.85  # however alike good parts are


def test_regions_are_drawn_on_the_reference(
    line: Path, good: Path, reference: Path, tmp_path: Path
) -> None:
    mask = np.zeros(parts.SIZE, np.uint8)
    mask[:, 64:] = 255
    said = invoke(line, good, "--roi", saved(tmp_path / "right.png", mask))
    assert "cannot be aligned" not in said
    detector = Detector(line, "onnxruntime")
    result = detector(parts.draw_part((6, -5), 9, defect=True))
    scale = np.array(result.anomaly_map.shape) / parts.SIZE
    for corner, is_inside in (((30, 0), True), ((8, 10), True), ((-8, -4), False)):
        x, y = parts.place(corner, (6, -5), 9)
        row, column = (int(v) for v in np.array([y, x]) * scale)
        assert (result.anomaly_map[row, column] > 0) == is_inside
    assert [roi.name for roi in result.rois] == ["right"]
    assert result.rois[0].score == pytest.approx(result.anomaly_map.max())
    nothing = detector(NO_PART)
    assert [roi.verdict for roi in nothing.rois] == ["unaligned"]
    invoke(line, good, "--whole-image", "--no-align")
    assert not {"scoring.npz", "align.npz"} & Bundle(line).manifest.files.keys()
    assert Detector(line, "onnxruntime")(NO_PART).verdict != "unaligned"


def test_images_that_are_not_aligned_set_no_threshold(
    line: Path, good: Path, tmp_path: Path
) -> None:
    odd = saved(tmp_path / "odd.png", NO_PART)
    said = invoke(line, good, odd, "--engine", "onnxruntime", "--bad", odd)
    assert "onnxruntime: 1 of 21 good images cannot be aligned" in said
    assert "1 of 1 defects found" in said
    calibration = Bundle(line).manifest.engines["onnxruntime"].calibration
    assert calibration.image_count == 20
    assert "none of which can be brought to the reference" in invoke(line, odd, exit_code=1)


def test_what_cannot_be_a_reference_is_refused(
    line: Path, good: Path, reference: Path, tmp_path: Path
) -> None:
    before = (line / "manifest.json").read_bytes()

    def refusal(align: Path, *more: str) -> str:
        return invoke(line, good, "--align", align, *more, exit_code=1)

    flat = saved(tmp_path / "flat.png", np.full((*parts.SIZE, 3), 80, np.uint8))
    assert "is flat, with nothing on it to align by" in refusal(flat)
    large = saved(tmp_path / "large.png", parts.draw_part(size=(192, 256)))
    assert "got a reference of 192x256 pixels, expected the 96x128" in refusal(large)
    upside_down = saved(tmp_path / "other.png", parts.draw_part((0, 0), 180))
    assert "none of the 20 good images could be brought to it" in refusal(upside_down)
    assert "got --align-limit '5'" in refusal(reference, "--align-limit", "5")
    assert "expected a share above 0" in refusal(reference, "--align-limit", "90%,10")
    assert "there is no such file" in refusal(tmp_path / "absent.png")
    assert (line / "manifest.json").read_bytes() == before
    with pytest.raises(DataError, match="cuts its images into tiles"):
        check_whole_images(line, True)


def test_limits_in_pixels(line: Path, good: Path, reference: Path) -> None:
    invoke(line, good, "--align", reference, "--align-limit", "16, 12")
    alignment = Bundle(line).manifest.scoring.align
    assert alignment is not None
    assert (alignment.shift, alignment.degrees) == (16 / 128, 12)
    detector = Detector(line, "onnxruntime")
    assert detector(parts.draw_part((0, 0), 11)).verdict != "unaligned"
    assert detector(parts.draw_part((0, 0), 13.5)).verdict == "unaligned"


@pytest.mark.parametrize("flags", [["--align-limit", "5%,5"], ["--align", "x.png", "--no-align"]])
def test_flags_that_do_not_go_together(line: Path, good: Path, flags: list[str]) -> None:
    invoke(line, good, *flags, exit_code=2)


def test_golden_parts_are_held(line: Path) -> None:
    path = line / "align.npz"
    with np.load(path) as arrays:
        kept = dict(arrays)

    def with_arrays(**changed: np.ndarray) -> Path:
        np.savez(path, **(kept | changed))
        put(line, "align.npz", path.read_bytes())
        return line

    with pytest.raises(ParityError, match="brings a golden part elsewhere"):
        Detector(with_arrays(golden_aligned=np.roll(kept["golden_aligned"], 4, axis=2)))
    with pytest.raises(ParityError, match="brings a golden part elsewhere"):
        Detector(with_arrays(golden_correlations=kept["golden_correlations"] - np.float32(0.1)))
    with pytest.raises(BundleError, match="got reference"):
        Detector(with_arrays(reference=kept["reference"][:5]))
    put(line, "align.npz", b"none")
    with pytest.raises(BundleError, match="malformed"):
        Detector(line)


def test_without_opencv_it_says_what_to_install(
    aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "cv2" else real(name, *a)
    )
    with pytest.raises(BackendError, match=r"pip install 'stpm\[align\]'"):
        Detector(aligned)


def test_a_graph_alone_is_not_served_nor_run_on_the_device(aligned: Path) -> None:
    with pytest.raises(BackendError, match="--backend python"):
        check_graph_scores(Bundle(aligned))
    detector = Detector(aligned, "onnxruntime")
    with pytest.raises(BackendError, match="--no-align"):
        detector.score_on_device(None)
    with pytest.raises(BackendError, match="maps without views"):
        detector.decide([parts.SIZE], detector.infer(detector.prepare([NO_PART])))


def test_a_server_that_aligns_is_verified(aligned: Path) -> None:
    detector = Detector(aligned, "onnxruntime")

    class Server:
        """Answers as the Python backend does."""

        def __init__(self, *, aligns: bool) -> None:
            self.aligns = aligns

        def ask(self, *request: Any) -> dict[str, np.ndarray]:
            images = request[2]
            inputs, views = detector.align(images)
            maps = detector.infer(inputs if self.aligns else images)
            sizes = [images.shape[1:3]] * len(images)
            views = views if self.aligns else [UNMOVED] * len(images)
            return answers(detector.decide(sizes, maps, views), OUTPUTS)

    bundle = Bundle(aligned)
    assert verify(Server(aligns=True), bundle, "line", "", "onnxruntime").image_count > 0
    with pytest.raises(ParityError, match="differs from the golden maps"):
        verify(Server(aligns=False), bundle, "line", "", "onnxruntime")


def test_stpm_run_says_it(aligned: Path, tmp_path: Path) -> None:
    images = [saved(tmp_path / "a.png", parts.draw_part()), saved(tmp_path / "b.png", NO_PART)]
    arguments = [str(aligned), *map(str, images), "--engine", "onnxruntime"]
    result = CliRunner().invoke(run, [*arguments, "--save", str(tmp_path / "pictures")])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok ")
    assert lines[1].startswith("UNALIGNED  -  ")
    assert "scored 1, of which anomalous 0; not aligned, and not scored 1" in result.stderr
    assert CliRunner().invoke(run, [*arguments, "--fail-on-anomaly"]).exit_code == 3
    printed = CliRunner().invoke(run, [*arguments, "--json"]).stdout.splitlines()
    assert [json.loads(one)["verdict"] for one in printed] == ["ok", "unaligned"]


def test_a_station_records_it_without_a_score(aligned: Path, tmp_path: Path) -> None:
    detector = Detector(aligned, "onnxruntime")
    images = [parts.draw_part(), NO_PART, parts.draw_part((4, 2), 3)]
    paths = [saved(tmp_path / f"{i}.png", image) for i, image in enumerate(images)]
    told: list[Result | None] = []
    calibration = detector.calibration
    camera = Camera("top", ListSource(images), detector, shadow=detector)
    camera.drift = Drift(calibration.scores, calibration.image_statistics)
    Station([camera], Record(tmp_path / "record"), [], [lambda e: told.append(e.result)]).run()
    entries = [line.entry for line in read_record(tmp_path / "record")]
    assert [entry["verdict"] for entry in entries] == ["ok", "unaligned", "ok"]
    assert "score" not in entries[1]
    assert "drift" not in entries[1]
    assert entries[1]["latency_ms"]
    assert entries[1]["shadow"] == {"verdict": "unaligned"}
    assert camera.counts == {"ok": 2, "unaligned": 1}
    assert camera.shadow_differs == 0
    assert len(told) == 3
    kept = Record(tmp_path / "kept")
    for entry, path in zip(entries, paths, strict=True):
        kept.append({k: v for k, v in entry.items() if k != "previous"} | {"image": str(path)})
    kept.close()
    said: list[str] = []
    found = replay(detector, tmp_path / "kept", said.append)
    assert (found.same, found.different, said) == (3, 0, [])
