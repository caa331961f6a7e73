"""Bundles: what is written is read back, and whatever is malformed or altered is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import (
    ENTRY,
    EXPECTED,
    FILES,
    GRAPH,
    RECORD,
    REQUIRED,
    WISHED,
    change_manifest,
    content_of,
    read_manifest,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from stpm.runtime.bundle.archive import (
    GOLDEN,
    MANIFEST,
    MODEL,
    Bundle,
    InputContract,
    Manifest,
    check_readable,
    write_bundle,
)
from stpm.runtime.errors import BundleError

SPECIFICATION = Path(__file__).parents[3] / "docs/format.md"


def test_written_bundle_is_read_back(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "part.stpm", WISHED, FILES)
    opened = Bundle(tmp_path / "part.stpm")
    assert opened.manifest == written
    assert replace(written, files={}) == WISHED
    assert {name: opened.read(name) for name in written.files} == FILES
    for name, array in vars(opened.golden()).items():
        assert array.dtype == getattr(EXPECTED, name).dtype
        np.testing.assert_array_equal(array, getattr(EXPECTED, name))


def test_layout_of_the_folder(part: Path) -> None:
    assert content_of(part).keys() == {MANIFEST, MODEL, GOLDEN}
    values = read_manifest(part)
    assert values["schema_version"] == 2
    assert values["files"][MODEL] == {
        "sha256": hashlib.sha256(GRAPH).hexdigest(),
        "size_bytes": len(GRAPH),
    }


def test_example_of_the_specification_is_complete(part: Path) -> None:
    text = SPECIFICATION.read_text()
    example = text.split("```json\n")[1].split("```")[0]
    (part / MANIFEST).write_text(example)
    assert json.loads(Bundle(part).manifest.to_json()) == json.loads(example)
    for keys in REQUIRED:
        assert f"| `{keys[-1]}` |" in text


def test_exported_bundle_opens(bundle_path: Path) -> None:
    opened = Bundle(str(bundle_path))
    assert opened.manifest.input == InputContract((64, 64), (1, 4), "host")
    assert opened.manifest.files.keys() == {MODEL, GOLDEN}
    golden = opened.golden()
    assert 1 <= len(golden.images) <= 3
    np.testing.assert_array_equal(golden.anomaly_maps.max(axis=(1, 2)), golden.pred_scores)


@settings(deadline=None, max_examples=30)
@given(
    st.builds(
        Manifest,
        name=st.text(max_size=20),
        method=st.text(max_size=20),
        precision=st.sampled_from(["fp32", "fp16", "bf16", "int8"]),
        opset=st.integers(1, 1000),
        input=st.builds(
            InputContract,
            size=st.tuples(st.integers(1, 16384), st.integers(1, 16384)),
            batch=st.tuples(st.integers(1, 8), st.integers(8, 4096)),
            resize=st.sampled_from(["host", "graph"]),
            channels=st.sampled_from([1, 3]),
        ),
        map_size=st.tuples(st.integers(1, 16384), st.integers(1, 16384)),
        tolerance=st.floats(0, 1, exclude_min=True),
        files=st.just({}),
        engines=st.dictionaries(st.text(max_size=5), st.just(RECORD), max_size=2),
        versions=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
        provenance=st.dictionaries(st.text(max_size=5), st.none() | st.integers(), max_size=2),
    )
)
def test_any_manifest_is_read_back(scratch: Path, manifest: Manifest) -> None:
    assert write_bundle(scratch, manifest, FILES) == Bundle(scratch).manifest


def no_folder(path: Path) -> None:
    shutil.rmtree(path)


def file_instead(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"zip")


def no_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()


def folder_as_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()
    (path / MANIFEST).mkdir()


def dangling_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()
    (path / MANIFEST).symlink_to(path / "absent")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_folder, r"part\.stpm: there is no such bundle; expected a folder"),
        (file_instead, r"part\.stpm: there is no such bundle; expected a folder"),
        (no_manifest, r"manifest\.json: cannot be read \(No such file"),
        (folder_as_manifest, r"manifest\.json: cannot be read \(Is a directory"),
        (dangling_manifest, r"manifest\.json: cannot be read \(No such file"),
    ],
)
def test_incomplete_folder(part: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(part)
    with pytest.raises(BundleError, match=message):
        Bundle(part)


FOREIGN_NAMES = ("../x", "/etc/passwd", "a/b", "a\\b", "..")
ODD_NAMES = ("", ".", ".hidden", "-rf", "a b", "a\n", "a\0", "ä", "a" * 129)


@pytest.mark.parametrize("name", FOREIGN_NAMES + ODD_NAMES)
def test_file_names_cannot_leave_the_folder(part: Path, name: str) -> None:
    entry = {"sha256": hashlib.sha256(b"").hexdigest(), "size_bytes": 0}
    change_manifest(part, ("files", name), entry)
    with pytest.raises(BundleError, match="is not a plain file name"):
        Bundle(part)


def test_only_listed_files_are_read(part: Path) -> None:
    (part / "notes.txt").write_bytes(b"hello")
    for name in ("notes.txt", "../part.stpm/model.onnx", MANIFEST):
        with pytest.raises(BundleError, match="does not list"):
            Bundle(part).read(name)


def test_surplus_files_and_fields_are_ignored(part: Path) -> None:
    (part / "notes.txt").write_bytes(b"hello")
    expected = Bundle(part).manifest
    change_manifest(part, ("comment",), "hello")
    assert Bundle(part).manifest == expected


def cut_model(path: Path) -> None:
    (path / MODEL).write_bytes(GRAPH[:-1])


def emptied_model(path: Path) -> None:
    (path / MODEL).write_bytes(b"")


def altered_model(path: Path) -> None:
    (path / MODEL).write_bytes(GRAPH.replace(b"g", b"h"))


def longer_model(path: Path) -> None:
    (path / MODEL).write_bytes(GRAPH + b"\0")


def linked_model(path: Path) -> None:
    outside = path.parent / "outside"
    outside.write_bytes(b"secrets")
    assert len(b"secrets") == len(GRAPH)
    (path / MODEL).unlink()
    (path / MODEL).symlink_to(outside)


def terabyte_model(path: Path) -> None:
    os.truncate(path / MODEL, 1 << 40)


def smaller_size(path: Path) -> None:
    change_manifest(path, (*ENTRY, "size_bytes"), len(GRAPH) - 1)


def larger_size(path: Path) -> None:
    change_manifest(path, (*ENTRY, "size_bytes"), len(GRAPH) + 1)


def other_hash(path: Path) -> None:
    change_manifest(path, (*ENTRY, "sha256"), "0" * 64)


@pytest.mark.parametrize(
    "damage",
    [
        cut_model,
        emptied_model,
        altered_model,
        longer_model,
        linked_model,
        terabyte_model,
        smaller_size,
        larger_size,
        other_hash,
    ],
)
def test_altered_files_are_refused(part: Path, damage: Callable[[Path], None]) -> None:
    damage(part)
    opened = Bundle(part)
    with pytest.raises(BundleError, match=r"model\.onnx: differs from the manifest's hash"):
        opened.read(MODEL)
    assert opened.read(GOLDEN) == FILES[GOLDEN]


def test_file_altered_after_opening_is_refused(part: Path) -> None:
    opened = Bundle(part)
    altered_model(part)
    with pytest.raises(BundleError, match="differs from the manifest's hash"):
        opened.read(MODEL)


def test_linked_file_with_the_right_content_is_read(part: Path) -> None:
    (part / MODEL).rename(part.parent / "outside")
    (part / MODEL).symlink_to(part.parent / "outside")
    assert Bundle(part).read(MODEL) == GRAPH


def test_missing_file(part: Path) -> None:
    (part / MODEL).unlink()
    with pytest.raises(BundleError, match=r"model\.onnx: cannot be read \(No such file"):
        Bundle(part).read(MODEL)


def test_folder_as_file(part: Path) -> None:
    (part / MODEL).unlink()
    (part / MODEL).mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx: cannot be read \(Is a directory"):
        Bundle(part).read(MODEL)


def test_new_bundle_replaces_the_whole_old_one(part: Path) -> None:
    (part / "notes.txt").write_bytes(b"hello")
    write_bundle(part, replace(WISHED, name="other"), {MODEL: b"another graph"})
    assert Bundle(part).manifest.name == "other"
    assert Bundle(part).read(MODEL) == b"another graph"
    assert content_of(part).keys() == {MANIFEST, MODEL}
    assert list(part.parent.iterdir()) == [part]


@pytest.mark.parametrize("there", [True, False], ids=["over an old one", "new"])
@pytest.mark.parametrize("method", ["write_bytes", "write_text", "rename"])
def test_failed_writing_changes_nothing(
    part: Path, monkeypatch: pytest.MonkeyPatch, method: str, there: bool
) -> None:
    if not there:
        shutil.rmtree(part)
    before = content_of(part.parent)
    original = getattr(Path, method)

    def disk_full(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == GOLDEN or path.name == MANIFEST or path.name.endswith(".partial"):
            raise OSError("disk full")
        return original(path, *args, **options)

    monkeypatch.setattr(Path, method, disk_full)
    with pytest.raises(OSError, match="disk full"):
        write_bundle(part, replace(WISHED, name="other"), FILES)
    assert content_of(part.parent) == before
    assert list(part.parent.iterdir()) == ([part] if there else [])


def test_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.png").write_bytes(b"dear")
    with pytest.raises(BundleError, match="photos: is a folder but not a bundle"):
        write_bundle(tmp_path / "photos", WISHED, FILES)
    assert content_of(tmp_path) == {"photos/holiday.png": b"dear"}


def test_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"dear")
    with pytest.raises(OSError, match="directory"):
        write_bundle(path, WISHED, FILES)
    assert content_of(tmp_path) == {"notes": b"dear"}


@pytest.mark.parametrize("name", ["empty", "new/deep/part.stpm"])
def test_bundle_is_written_into_empty_and_new_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    written = write_bundle(tmp_path / name, WISHED, FILES)
    assert Bundle(tmp_path / name).manifest == written


def test_a_new_bundle_that_no_reader_opens_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "part.stpm"
    write_bundle(path, WISHED, FILES, check_readable)
    before = content_of(path)
    with pytest.raises(BundleError, match="expected"):
        write_bundle(path, replace(WISHED, map_size=(9, 9)), FILES, check_readable)
    assert content_of(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["part.stpm"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps what is left")
def test_a_bundle_that_a_killed_process_had_put_aside_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "part.stpm"
    write_bundle(path, WISHED, FILES)
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    path.rename(tmp_path / f".part.stpm.{dead.pid}.old")
    with pytest.raises(BundleError, match="expected"):
        write_bundle(path, replace(WISHED, map_size=(9, 9)), FILES, check_readable)
    assert Bundle(path).manifest == replace(WISHED, files=Bundle(path).manifest.files)
