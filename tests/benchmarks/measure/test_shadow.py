"""What two bundles decide otherwise, against counting one by one and the binomial law."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import CALIBRATION, change_manifest
from PIL import Image
from scipy.stats import binom
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.measure.archive import open_archive
from stpm.benchmarks.measure.intervals import mcnemar
from stpm.benchmarks.measure.shadow import VERDICTS, changes, contests, worst_first
from stpm.benchmarks.records.result_file import read_result
from stpm.runtime.detector import Detector
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.live.record import Record
from stpm.runtime.live.verdict import pixels_hash
from stpm.train.datasets import open_category

ENGINE = ("--engine", "onnxruntime")
JUDGE: Any = {"name": "a.stpm", "engine": "onnxruntime", "threshold": 0.5, "warn_threshold": 0.3}


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["shadow", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def image(name: str, old: str, new: str, kind: str | None = None, **scores: float) -> Any:
    """An image as it is kept, with scores that do not matter unless given."""
    judged = {
        "name": name,
        "old": {"score": scores.get("old_score", 0.4), "verdict": old},
        "new": {"score": scores.get("new_score", 0.4), "verdict": new},
    }
    return judged if kind is None else judged | {"kind": kind}


def random_images(count: int = 300) -> list[Any]:
    draw = np.random.default_rng(1)
    kinds = draw.choice(["good", "hole"], count)
    pairs = draw.choice(VERDICTS, (count, 2), p=[0.5, 0.15, 0.2, 0.15])
    return [image(str(i), *pairs[i].tolist(), str(kinds[i])) for i in range(count)]


@pytest.fixture
def pair(bundle_path: Path, data_root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """One student with two thresholds, between which are some test images; the new one warns."""
    found = sorted(Detector(bundle_path, "onnxruntime").scores(_test_images(data_root)).tolist())
    paths = tmp_path / "weave_old.stpm", tmp_path / "weave_new.stpm"
    for path, place in zip(paths, (2, 5), strict=True):
        shutil.copytree(bundle_path, path)
        between = (found[place] + found[place + 1]) / 2
        change_manifest(path, (*CALIBRATION, "image_threshold"), between)
    change_manifest(paths[1], (*CALIBRATION, "warn_rate"), 0.99)
    change_manifest(paths[1], (*CALIBRATION, "warn_threshold"), (found[1] + found[2]) / 2)
    return paths


def _test_images(data_root: Path) -> list[Path]:
    return [sample.path for sample in open_category(data_root, "weave").test_samples()]


def test_changes_are_counted_by_both_verdicts() -> None:
    images = random_images()
    found = {(c["old"], c["new"]): c for c in changes(images)}
    for old in VERDICTS:
        for new in VERDICTS:
            count = 0
            for judged in images:
                count += (judged["old"]["verdict"], judged["new"]["verdict"]) == (old, new)
            if old == new:
                assert (old, new) not in found
                continue
            assert found[old, new]["count"] == count
            low, high = found[old, new]["interval"]
            assert binom.sf(count - 1, len(images), low) == pytest.approx(0.025)
            assert binom.cdf(count, len(images), high) == pytest.approx(0.025)


def test_only_rejections_that_differ_are_contested() -> None:
    images = random_images()
    by_group = {contest["group"]: contest for contest in contests(images)}
    assert list(by_group) == ["all", "good", "defective"]
    for group, kinds in (("all", "good hole"), ("good", "good"), ("defective", "hole")):
        of_group = [judged for judged in images if judged["kind"] in kinds.split()]
        bad = ("anomalous", "unaligned")
        before = [judged["old"]["verdict"] in bad for judged in of_group]
        after = [judged["new"]["verdict"] in bad for judged in of_group]
        newly = [b for b, a in zip(before, after, strict=True) if a and not b]
        passed = [b for b, a in zip(before, after, strict=True) if b and not a]
        found = by_group[group]
        assert found["images"] == len(of_group)
        assert (found["newly_rejected"], found["newly_passed"]) == (len(newly), len(passed))
        low, high = found["interval"]
        assert low < len(newly) / (len(newly) + len(passed)) < high
    unlabelled = [image("a", "ok", "anomalous"), image("b", "ok", "warn")]
    (alone,) = contests(unlabelled)
    assert (alone["newly_rejected"], alone["newly_passed"], alone["p_value"]) == (1, 0, 1.0)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (9, 1), (3, 12), (40, 40)])
def test_the_p_value_is_the_sum_of_the_less_likely_outcomes(first: int, second: int) -> None:
    count = first + second
    odds = [math.comb(count, i) / 2**count for i in range(count + 1)]
    expected = sum(p for p in odds if p <= odds[first] * (1 + 1e-9))
    assert mcnemar(first, second) == pytest.approx(expected)


def test_known_mistakes_come_first_and_then_what_is_passed() -> None:
    far = {"old_score": 0.9, "new_score": 0.1}
    images = [
        image("right alarm", "ok", "anomalous", "hole"),
        image("right pass", "anomalous", "ok", "good"),
        image("false alarm", "ok", "anomalous", "good"),
        image("missed", "anomalous", "ok", "hole"),
        image("missed by far", "anomalous", "warn", "hole", **far),
    ]
    ordered = [judged["name"] for judged in worst_first(images, [JUDGE, JUDGE])]
    assert ordered == ["missed by far", "missed", "false alarm", "right pass", "right alarm"]
    unlabelled = [image("a", "ok", "anomalous"), image("b", "anomalous", "ok")]
    assert [j["name"] for j in worst_first(unlabelled, [JUDGE, JUDGE])] == ["b", "a"]


def test_a_labelled_archive_says_who_is_right(
    pair: tuple[Path, Path], data_root: Path, tmp_path: Path, read_page: Callable[[Path], Any]
) -> None:
    out, pictures = tmp_path / "shadow.json", tmp_path / "pictures"
    code, stdout, stderr = run(
        *pair, data_root, "--category", "weave", *ENGINE, "--out", out, "--gallery", pictures
    )
    assert code == 0, stderr
    record = read_result(out)
    assert record["kind"] == "shadow"
    samples = open_category(data_root, "weave").test_samples()
    results = [[Detector(path, "onnxruntime")(s.path) for s in samples] for path in pair]
    verdicts = {
        f"{sample.kind}/{sample.path.name}": (old.verdict, new.verdict)
        for sample, old, new in zip(samples, *results, strict=True)
    }
    kept = {i["name"]: (i["old"]["verdict"], i["new"]["verdict"]) for i in record["images"]}
    assert kept == verdicts
    changed = [name for name, (old, new) in verdicts.items() if old != new]
    assert len(changed) >= 3
    assert {i["name"] for i in record["images"][: len(changed)]} == set(changed)
    passed = [n for n in changed if verdicts[n][0] == "anomalous"]
    found = {c["group"]: c["newly_passed"] for c in record["contests"]}
    assert found["all"] == len(passed)
    assert found["good"] == sum(name.startswith("good") for name in passed)
    for name in changed:
        assert name in stdout
    assert [p["image"] for p in record["gallery"]] == [
        i["name"] for i in record["images"][: len(changed)]
    ]
    for entry in record["gallery"]:
        with Image.open(entry["picture"]) as picture:
            assert picture.height > picture.width / 3  # two rows of panels

    page = tmp_path / "report.html"
    assert CliRunner().invoke(main, ["report", str(out), "-o", str(page)]).exit_code == 0
    read = read_page(page)
    shown = [attrs["alt"] for tag, attrs in read.tags if tag == "img"]
    assert shown == [f"Input and maps of both bundles of {p['image']}" for p in record["gallery"]]
    assert "weave_new.stpm in place of weave_old.stpm" in read.text


def test_a_category_by_itself_is_labelled_and_its_masks_are_no_parts(
    bundle_path: Path, data_root: Path
) -> None:
    archive = open_archive(data_root / "weave", bundle_path)
    expected = [(s.kind, s.path) for s in open_category(data_root, "weave").test_samples()]
    assert [(k.sample.kind, k.path) for k in archive.images if k.sample] == expected


def test_what_cannot_be_read_is_named_and_counted(
    pair: tuple[Path, Path], data_root: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    (archive / "monday").mkdir(parents=True)
    for number, path in enumerate(_test_images(data_root)):
        shutil.copy(path, archive / "monday" / f"{number}.png")
    shutil.copy(archive / "monday/3.png", archive / "monday/3-overlay.png")
    (archive / "broken.png").write_bytes(b"no image")
    (archive / "notes.txt").write_text("of the shift")
    out, pictures = tmp_path / "shadow.json", archive / "pictures"
    outputs = ("--out", out, "--gallery", pictures)
    assert run(*pair, archive, *ENGINE, *outputs)[0] == 1
    assert len(list(pictures.rglob("*.png"))) >= 3  # which the second run does not score
    code, stdout, stderr = run(*pair, archive, *ENGINE, *outputs)
    assert code == 1, stderr
    record = read_result(out)
    assert record["kind"] == "shadow"
    assert {i["name"] for i in record["images"]} == {f"monday/{number}.png" for number in range(8)}
    assert [i["name"] for i in record["unscored"]] == ["broken.png"]
    assert "not an image" in record["unscored"][0]["reason"]
    assert record["left_out"] == {"overlays": 1, ".txt": 1}
    assert "broken.png" in stdout
    assert "left out: overlays" in stdout
    assert [c["group"] for c in record["contests"]] == ["all"]


def test_the_kept_images_of_a_record_are_scored(
    pair: tuple[Path, Path], data_root: Path, tmp_path: Path
) -> None:
    station = Record(tmp_path / "record")
    for number, path in enumerate(_test_images(data_root)):
        copy = tmp_path / f"{number}.png"
        shutil.copy(path, copy)
        station.append(_entry(copy, pixels_hash(load_image(copy))))
        if number == 0:
            station.append(_entry(copy, pixels_hash(load_image(copy))))  # given twice
    station.append(_entry(tmp_path / "gone.png", "0" * 64))
    station.append(_entry(tmp_path / "2.png", "1" * 64))  # and then written again
    station.append(_entry(tmp_path / "2.png", pixels_hash(load_image(tmp_path / "2.png"))))
    station.append({**_entry(tmp_path / "1.png", ""), "verdict": "dropped"})
    station.close()
    Image.new("RGB", (64, 64)).save(tmp_path / "4.png")
    out = tmp_path / "shadow.json"
    code, _, stderr = run(*pair, tmp_path / "record", *ENGINE, "--out", out)
    assert code == 1, stderr
    record = read_result(out)
    assert record["kind"] == "shadow"
    names = {Path(i["name"]).name for i in record["images"]}
    assert names == {f"{number}.png" for number in range(8) if number != 4}
    assert record["not_kept"] == 2
    assert record["left_out"] == {"recorded as dropped": 1}
    (other,) = record["unscored"]
    assert "4.png: has other pixels than were recorded" in other["reason"]

    code, _, stderr = run(*pair, tmp_path / "record", "--category", "weave")
    assert (code, stderr.count("\n")) == (1, 1)
    assert "leave out --category" in stderr
    (lines,) = (tmp_path / "record").glob("*.jsonl")
    content = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(b"".join(content[:3] + content[4:]))
    code, _, stderr = run(*pair, tmp_path / "record", *ENGINE)
    assert (code, stderr.count("\n")) == (1, 1)
    assert "is not bound" in stderr


def _entry(path: Path, sha256: str) -> dict[str, Any]:
    return {
        "time": "2026-05-04T06:30:00.000000+00:00",
        "image": str(path),
        "verdict": "ok",
        "score": 0.1,
        "sha256": sha256,
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "holds no image to score"),
        ({"a.txt": b"text"}, "left out: 1 .txt"),
        ({"a.png": b"no image", "b.png": b""}, "none of its 2 images can be scored"),
        (None, "there is no such folder"),
    ],
)
def test_an_archive_without_images_is_one_sentence(
    files: dict[str, bytes] | None, expected: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    for name, content in (files or {}).items():
        archive.mkdir(exist_ok=True)
        (archive / name).write_bytes(content)
    if files == {}:
        archive.mkdir()
    out = tmp_path / "shadow.json"
    code, stdout, stderr = run(*pair, archive, *ENGINE, "--out", out)
    assert (code, stdout) == (1, "")
    assert expected in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert not out.exists()


def test_a_result_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shadow.json"
    path.write_text(json.dumps({"schema_version": 1, "kind": "shadow"}))
    result = CliRunner().invoke(main, ["report", str(path), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 1
    assert "is not a result of kind 'shadow'" in result.stderr
