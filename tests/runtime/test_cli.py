"""`stpm-run`: lines, pictures and exit codes."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stpm.runtime import cli
from stpm.runtime.bundle.archive import GOLDEN, MODEL, Bundle, write_bundle
from stpm.runtime.cli import main
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.images.listing import find_images
from stpm.runtime.images.preprocess import IMAGE_SUFFIXES

opened = functools.cache(Detector)
KINDS = ("heatmap", "mask", "overlay")
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)


@pytest.fixture(autouse=True)
def _open_each_bundle_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "Detector", opened)


@pytest.fixture(scope="module")
def good(data_root: Path) -> Path:
    return data_root / "weave/test/good/000.png"


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "bad.png"
    Image.fromarray(PIXELS).save(path)
    return path


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, good: Path, bad: Path
) -> Path:
    """The shared bundle with a threshold that tells the image `good` from the image `bad`."""
    detector = opened(bundle_path, "onnxruntime")
    low, high = detector(good).score, detector(bad).score
    assert low < high
    source = Bundle(bundle_path)
    record = source.manifest.engines["onnxruntime"]
    calibration = replace(record.calibration, image_threshold=(low + high) / 2)
    engines = {"onnxruntime": replace(record, calibration=calibration)}
    path = tmp_path_factory.mktemp("bundle") / "weave.stpm"
    files = {name: source.read(name) for name in (MODEL, GOLDEN)}
    write_bundle(path, replace(source.manifest, engines=engines), files)
    return path


class Run:
    """What a run of the command printed and returned."""

    def __init__(self, *arguments: object, stdin: str | None = None) -> None:
        done = CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)
        self.code, self.exception = done.exit_code, done.exception
        self.out, self.log = done.stdout.splitlines(), done.stderr.splitlines()

    @property
    def images(self) -> list[Path]:
        return [Path(json.loads(line)["image"]) for line in self.out]

    @property
    def error(self) -> str:
        """The one sentence of a known error."""
        assert isinstance(self.exception, SystemExit)
        (sentence,) = [line for line in self.log if line.startswith("error: ")]
        assert self.log[-1] == sentence
        return sentence


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(path)


def pictures(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def of(*stems: str) -> set[str]:
    return {f"{stem}_{kind}.png" for stem in stems for kind in KINDS}


def test_help_names_the_options() -> None:
    run = Run("--help")
    text = "\n".join(run.out)
    assert run.code == 0
    for word in ("--engine", "--threads", "--json", "--save", "--fail-on-anomaly", "exit"):
        assert word in text


def test_a_line_for_each_image(bundle: Path, good: Path, bad: Path) -> None:
    run = Run(bundle, good, bad)
    threshold = opened(bundle).calibration.image_threshold
    scores = [opened(bundle)(path).score for path in (good, bad)]
    assert run.code == 0
    assert run.out == [
        f"ok         {scores[0]:.6g}  {threshold:.6g}  {good}",
        f"ANOMALOUS  {scores[1]:.6g}  {threshold:.6g}  {bad}",
    ]
    assert run.log == [
        f"{bundle}: engine onnxruntime, threshold {threshold:.4g}",
        "scored 2, of which anomalous 1; left out 0; refused 0",
    ]


def test_json_lines_are_the_results(bundle: Path, good: Path, bad: Path) -> None:
    run = Run(bundle, good, bad, "--json")
    detector = opened(bundle)
    expected = [{"image": str(p)} | detector(p).summary() for p in (good, bad)]
    assert [json.loads(line) for line in run.out] == expected
    assert [line["is_anomalous"] for line in expected] == [False, True]
    assert expected[1]["regions"]


def test_every_image_format(bundle: Path, tmp_path: Path) -> None:
    paths = sorted(tmp_path / f"part{suffix}" for suffix in [*IMAGE_SUFFIXES, ".PNG", ".Jpg"])
    save(*paths)
    (tmp_path / "part.txt").write_text("no image")
    run = Run(bundle, tmp_path, "--json")
    detector = opened(bundle)
    assert run.code == 0
    assert run.images == paths
    assert [json.loads(line)["score"] for line in run.out] == [detector(p).score for p in paths]


@pytest.mark.parametrize(
    ("names", "options", "code"),
    [
        (["good"], [], 0),
        (["bad"], [], 0),
        (["good"], ["--fail-on-anomaly"], 0),
        (["bad"], ["--fail-on-anomaly"], 3),
        (["good", "bad", "good"], ["--fail-on-anomaly"], 3),
        (["absent"], [], 1),
        (["good", "absent"], ["--fail-on-anomaly"], 1),
        (["bad", "absent"], ["--fail-on-anomaly"], 1),
    ],
)
def test_exit_codes(
    bundle: Path, good: Path, bad: Path, names: list[str], options: list[str], code: int
) -> None:
    paths = {"good": good, "bad": bad, "absent": good.with_name("absent.png")}
    assert Run(bundle, *(paths[name] for name in names), *options).code == code


def test_bad_files_are_reported_and_the_others_scored(
    bundle: Path, tmp_path: Path, good: Path
) -> None:
    save(tmp_path / "a.png", tmp_path / "d.png")
    (tmp_path / "b.png").write_text("no image")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    run = Run(bundle, tmp_path, good.with_name("absent.png"), "--json", "--save", tmp_path / "out")
    errors = [line for line in run.log if line.startswith("error: ")]
    assert run.code == 1
    assert run.images == [tmp_path / "a.png", tmp_path / "d.png"]
    assert len(pictures(tmp_path / "out")) == 2 * len(KINDS)
    for name, error in zip(["b.png", "c.png", "absent.png"], errors, strict=True):
        assert name in error
    assert run.log[-1] == "scored 2, of which anomalous 2; left out 0; refused 3"


def test_folders_are_searched_in_order(bundle: Path, tmp_path: Path) -> None:
    names = ["a/9.png", "a/b/1.png", "a/b/2.JPG", "c.bmp"]
    save(*(tmp_path / name for name in reversed(names)))
    (tmp_path / "a/readme.md").write_text("no image")
    run = Run(bundle, tmp_path, "--json")
    assert run.images == sorted(tmp_path / name for name in names)


@pytest.mark.parametrize("prefix", ["", "absolute"])
def test_globs(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path if prefix else Path()
    names = ["b.png", "a.png", "c.jpg", "deep/er/d.png"]
    save(*map(Path, names))
    (tmp_path / "e.png").mkdir()
    assert Run(bundle, root / "*.png", "--json").images == [root / "a.png", root / "b.png"]
    assert Run(bundle, root / "**/d.png", "--json").images == [root / "deep/er/d.png"]
    assert Run(bundle, root / "[cx].*", root / "a.png", "--json").images == [
        root / "c.jpg",
        root / "a.png",
    ]


def test_file_with_the_name_of_a_pattern(bundle: Path, tmp_path: Path) -> None:
    save(tmp_path / "[1].png", tmp_path / "1.png")
    assert Run(bundle, tmp_path / "[1].png", "--json").images == [tmp_path / "[1].png"]


def test_paths_from_standard_input(bundle: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "b c.png", tmp_path / "a.png"]
    save(*paths)
    run = Run(bundle, "-", "--json", stdin=f"{paths[0]}\n\n  {paths[1]}\r\n")
    assert run.code == 0
    assert run.images == paths


def test_nothing_matched(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    for argument, beside in (
        (tmp_path, " (left out: 1 .txt)"),
        (tmp_path / "*.png", ""),
        ("-", ""),
    ):
        run = Run(bundle, argument, stdin="\n")
        assert run.code == 1
        assert run.out == []
        assert run.error == f"error: {argument}: matches no image{beside}; check the path."


def test_bad_bundles(bundle: Path, tmp_path: Path, good: Path) -> None:
    altered = Path(shutil.copytree(bundle, tmp_path / "altered.stpm"))
    (altered / MODEL).write_bytes(b"no graph")
    for path, message in {
        tmp_path / "absent.stpm": "there is no such bundle",
        tmp_path: "cannot be read",
        altered: "differs from the manifest's hash",
    }.items():
        run = Run(path, good)
        assert run.code == 1
        assert run.out == []
        assert message in run.error


def test_engine_without_a_threshold(bundle: Path, good: Path) -> None:
    run = Run(bundle, good, "--engine", "openvino")
    assert run.code == 1
    assert "no threshold for the engine openvino" in run.error


def test_threads(bundle: Path, good: Path) -> None:
    (line,) = map(json.loads, Run(bundle, good, "--threads", 1, "--json").out)
    assert line["score"] == pytest.approx(opened(bundle)(good).score, rel=1e-4)


@pytest.mark.parametrize("options", [[], ["--threads", "-1"], ["--engines", "openvino"]])
def test_wrong_usage(bundle: Path, options: list[str]) -> None:
    arguments = [bundle, "a.png", *options] if options else [bundle]
    run = Run(*arguments)
    assert run.code == 2
    assert "Usage" in run.log[0]


def test_saved_pictures_are_those_of_the_result(bundle: Path, bad: Path, tmp_path: Path) -> None:
    assert Run(bundle, bad, "--save", tmp_path / "new/out").code == 0
    assert pictures(tmp_path) == {f"new/out/{name}" for name in of("bad")}
    result = opened(bundle)(bad)
    mask = np.asarray(Image.open(tmp_path / "new/out/bad_mask.png"))
    overlay = np.asarray(Image.open(tmp_path / "new/out/bad_overlay.png"))
    np.testing.assert_array_equal(mask, np.where(result.pred_mask, 255, 0))
    assert overlay.shape == PIXELS.shape


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["in/a.png"], ["a"]),
        (["in/a.png", "in/b.jpg"], ["a", "b"]),
        (["in/a.png", "in/a.jpg", "in/b.png"], ["a.png", "a.jpg", "b"]),
        (["in/a.1.png", "in/a.2.png"], ["a.1", "a.2"]),
        (["in/a.png", "in/a.jpg", "in/a.png.bmp"], ["a.png", "a.jpg", "a.png.bmp"]),
        (["in/x/a.png", "in/y/a.png"], ["x/a", "y/a"]),
        (["in/a.png", "in/x/y/a.png"], ["a", "x/y/a"]),
        (["in/../in/a.png", "in/b.png"], ["a", "b"]),
        (["in/x/../../other/a.png", "in/b.png"], ["other/a", "in/b"]),
        (["in/a.png", "in/a.png"], ["a"]),
    ],
    ids=lambda names: " ".join(names),
)
def test_names_of_saved_pictures(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    stems: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/x").mkdir(parents=True)
    save(*map(Path, names))
    before = pictures(tmp_path)
    assert Run(bundle, *names, "--save", "out").code == 0
    assert pictures(tmp_path) - before == {f"out/{name}" for name in of(*stems)}


def test_absolute_paths_are_saved_below_their_common_folder(bundle: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "in/x/a.png", tmp_path / "in/y/a.png"]
    save(*paths)
    assert Run(bundle, *paths, "--save", tmp_path / "out").code == 0
    assert pictures(tmp_path / "out") == of("x/a", "y/a")


def test_pictures_of_a_parent_folder_stay_in_the_given_one(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "here/a.png", tmp_path / "there/b.png")
    monkeypatch.chdir(tmp_path / "here")
    assert Run(bundle, "a.png", "../there/b.png", "--save", "out").code == 0
    assert pictures(tmp_path / "here/out") == of("here/a", "there/b")
    assert pictures(tmp_path / "there") == {"b.png"}


def test_pictures_cannot_be_saved_in_a_file(bundle: Path, good: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    run = Run(bundle, good, "--save", tmp_path / "out")
    assert run.code == 2
    assert (tmp_path / "out").read_text() == "a file"


def test_missing_files_are_left_to_the_reader(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.png")
    assert find_images([absent]).images == [Path(absent)]
    with pytest.raises(DataError, match="matches no image"):
        find_images([absent, str(tmp_path / "*.png")])


def as_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from stpm.runtime.cli import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_process(bundle: Path, bad: Path, tmp_path: Path) -> None:
    found = as_process(bundle, bad, "--json", "--fail-on-anomaly")
    assert found.returncode == 3
    assert json.loads(found.stdout)["is_anomalous"] is True
    failed = as_process(tmp_path / "absent.stpm", bad)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr
