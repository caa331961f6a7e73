"""Bundles and images in a store: copied once, whole, and as they are there now."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import content_of
from stores import STORES, http_store, s3_store
from typer.testing import CliRunner

import stpm.runtime.cli
import stpm.runtime.site.cli
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, BundleError, DataError
from stpm.runtime.store import addresses_below, is_remote, local, read, shown

pytest.importorskip("fsspec")
ENGINE = "onnxruntime"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data_root: Path, bundle_path: Path) -> Path:
    """A bundle, a data set, and a line's images with one that is none and a note."""
    root = tmp_path_factory.mktemp("stored")
    shutil.copytree(bundle_path, root / "weave.stpm")
    shutil.copytree(data_root, root / "sets")
    shutil.copytree(data_root / "weave/test/good", root / "line")
    (root / "line/day 2").mkdir()
    shutil.copy(root / "line/000.png", root / "line/day 2/part#7.png")
    (root / "line/broken.png").write_text("no image")
    (root / "line/notes.txt").write_text("by hand")
    (root / "line/.DS_Store").write_text("the system's")
    return root


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    with STORES[request.param](folder) as address:
        yield address


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(stpm.runtime.cli.main, [*map(str, words), "--engine", ENGINE])
    assert result.exit_code == code, result.output
    return result.output


def test_a_detector_opens_a_bundle_in_a_store(store: str, bundle_path: Path) -> None:
    image = Bundle(bundle_path).golden().images[0]
    score = Detector(bundle_path, ENGINE)(image).score
    assert Detector(f"{store}/weave.stpm", ENGINE)(image).score == score
    assert Detector(Path(f"{store}/weave.stpm"), ENGINE)(image).score == score


def test_every_file_is_copied_but_the_systems_own(store: str, folder: Path) -> None:
    expected = content_of(folder / "line")
    del expected[".DS_Store"]
    copied = local(f"{store}/line/")
    assert sorted(content_of(copied).values()) == sorted(expected.values())
    assert shown(copied / "000.png") == f"{store}/line/000.png"


def test_stpm_run_scores_a_folder_and_an_image_of_a_store(store: str, folder: Path) -> None:
    output = run(f"{store}/weave.stpm", f"{store}/line", "--json", code=1)
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    names = sorted(row["image"] for row in rows)
    assert names[:4] == [f"{store}/line/00{i}.png" for i in range(4)]
    assert len(names) == 5
    assert names[4].startswith(f"{store}/line/day")
    detector = Detector(folder / "weave.stpm", ENGINE)
    for row in rows[:4]:
        name = row["image"].rpartition("/")[2]
        assert row["score"] == pytest.approx(detector(folder / "line" / name).score, rel=1e-6)
    assert f"error: {store}/line/broken.png: not an image" in output
    assert "left out 1 (1 .txt); refused 1" in output
    one = run(f"{store}/weave.stpm", f"{store}/line/001.png")
    assert f"{store}/line/001.png" in one
    assert "scored 1," in one


@pytest.mark.parametrize("kind", STORES)
def test_only_what_changed_is_copied_again_and_what_went_is_gone(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder / "line", source / "line")
    with STORES[kind](source) as address:
        copied = local(f"{address}/line")
        before = {path.name: path.stat().st_ino for path in copied.glob("*.png")}
        if kind == "s3":
            import s3fs

            system = s3fs.S3FileSystem()
            system.pipe_file(f"{address}/line/000.png", b"another")
            system.rm_file(f"{address}/line/001.png")
        else:
            (source / "line/000.png").write_bytes(b"another")
            (source / "line/001.png").unlink()
        local(f"{address}/line")
    after = {path.name: path.stat().st_ino for path in copied.glob("*.png")}
    assert (copied / "000.png").read_bytes() == b"another"
    assert set(after) == set(before) - {"001.png"}
    assert {name for name in after if after[name] != before[name]} == {"000.png"}


def test_a_copy_that_is_not_the_stores_is_made_again(store: str, folder: Path) -> None:
    copied = local(f"{store}/line")
    (copied / "000.png").write_bytes((copied / "001.png").read_bytes())
    (copied / "002.png").unlink()
    (copied / "stray.png").write_bytes(b"1")
    again = local(f"{store}/line")
    for name in ("000.png", "002.png"):
        assert (again / name).read_bytes() == (folder / "line" / name).read_bytes()
    assert not (again / "stray.png").exists()


def test_a_bundle_that_was_altered_in_the_store_is_refused(
    folder: Path, tmp_path: Path, bundle_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder / "weave.stpm", source / "weave.stpm")
    model = source / "weave.stpm/model.onnx"
    with http_store(source) as address:
        Detector(f"{address}/weave.stpm", ENGINE)
        model.write_bytes(model.read_bytes()[:-1] + b"!")
        with pytest.raises(BundleError, match="differs from the manifest's hash"):
            Detector(f"{address}/weave.stpm", ENGINE)


def test_thresholds_are_not_changed_in_a_copy(store: str, folder: Path, cache: Path) -> None:
    words = [f"{store}/weave.stpm", f"{store}/sets/weave/train/good", "--false-alarm-rate", "0.3"]
    result = CliRunner().invoke(stpm.runtime.site.cli.main, words)
    assert result.exit_code == 1
    assert "copy it here first" in result.output
    assert not cache.exists()
    there = CliRunner().invoke(stpm.runtime.site.cli.main, [*words, "--dry-run"])
    here = [str(folder / "weave.stpm"), str(folder / "sets/weave/train/good"), *words[2:]]
    expected = CliRunner().invoke(stpm.runtime.site.cli.main, [*here, "--dry-run"])
    assert there.exit_code == expected.exit_code == 0, there.output
    assert there.stdout == expected.stdout


def test_training_export_and_evaluation_take_their_images_from_a_store(
    store: str, folder: Path, checkpoint_path: Path, teacher_file: Path, tmp_path: Path
) -> None:
    from train_cli import flags_for

    import stpm.benchmarks.cli
    import stpm.export.cli
    import stpm.train.cli

    def result_of(program: object, *words: object) -> str:
        result = CliRunner().invoke(program, [str(word) for word in words])  # type: ignore[arg-type]
        assert result.exit_code == 0, result.output
        return result.output

    for root, name in ((store, "there"), (folder, "here")):
        flags = flags_for(teacher_file, tmp_path / f"{name}.pt")
        result_of(stpm.train.cli.main, "--good", f"{root}/sets/weave/train/good", *flags)
        export = ("--ckpt", checkpoint_path, "--engine", ENGINE, "--false-alarm-rate", "0.3")
        other = ("--calibrate", f"{root}/sets/weave/test/good", "--out", tmp_path / f"{name}.stpm")
        result_of(stpm.export.cli.main, *export, *other)
        words = ("accuracy", checkpoint_path, "--category", "weave", "--data", f"{root}/sets")
        result_of(stpm.benchmarks.cli.main, *words, "--out", tmp_path / f"{name}.json")
    there, here = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("there", "here"))
    assert there["categories"] == here["categories"]
    bundles = [Bundle(tmp_path / f"{name}.stpm") for name in ("there", "here")]
    assert bundles[0].manifest.engines == bundles[1].manifest.engines
    import torch

    students = [torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("there", "here")]
    for a, b in zip(*(student["student"].values() for student in students), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_is_written_outside_the_copy(tmp_path: Path) -> None:
    import fsspec

    class Hostile(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "hostile"

        def ls(self, path: str, **_: object) -> list[dict[str, object]]:
            if path.endswith(".."):
                return [{"name": f"{path}/part.png", "size": 1, "type": "file", "ETag": "1"}]
            return [{"name": f"{path}/..", "size": 0, "type": "directory"}]

        def cat_file(self, *_: object, **__: object) -> bytes:
            return b"1"

    fsspec.register_implementation("hostile", Hostile, clobber=True)
    for address in ("hostile://up", "hostile://up/../../.."):
        with pytest.raises(DataError, match="no name of a file"):
            local(address)
    assert not list(tmp_path.rglob("*.png"))


def test_a_cache_that_cannot_be_written_is_one_sentence(folder: Path, cache: Path) -> None:
    cache.write_text("a file in the folder's place")
    with http_store(folder) as address, pytest.raises(BackendError, match="XDG_CACHE_HOME"):
        local(f"{address}/line")


@pytest.mark.parametrize(
    ("address", "install"),
    [
        ("s3://bucket/line", "pip install 'stpm[s3]'"),
        ("gs://bucket/line", "pip install gcsfs"),
        ("https://host/line", "pip install 'fsspec[http]'"),
    ],
)
def test_without_fsspec_the_line_to_type_is_said(
    address: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(BackendError, match="cannot be opened") as caught:
        local(address)
    assert str(caught.value).endswith(f"run {install}.")


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("nosuch://bucket/images", BackendError, "cannot be opened"),
        ("http://127.0.0.1:9/images", BackendError, "cannot be listed"),
        ("http://127.0.0.1:9/part.png", DataError, "cannot be read"),
        ("memory://nothing", (BackendError, DataError), "nothing"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(path: str, error: type, said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        local(path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(folder: Path) -> None:
    with s3_store(folder) as address:
        for function in (local, addresses_below):
            with pytest.raises((BackendError, DataError)):
                function(f"{address}/nowhere")


def test_paths_of_the_disk_are_left_as_they_are(tmp_path: Path) -> None:
    for path in ("C:/parts", r"C:\parts", "parts/*.png", "-", "/data/s3", "./a:b", str(tmp_path)):
        assert not is_remote(path)
        assert local(path) == Path(path)
    assert read(str(tmp_path)) == tmp_path
    with pytest.raises(DataError, match="holds no image"):
        addresses_below(str(tmp_path))
