"""Bundles: what is written is read back, and whatever is malformed or altered is refused."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stpm.runtime import bundle as bundle_module
from stpm.runtime.bundle import (
    GOLDEN,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MODEL,
    Bundle,
    EngineRecord,
    Golden,
    InputContract,
    Manifest,
    golden_bytes,
    write_bundle,
)
from stpm.runtime.calibration import Calibration
from stpm.runtime.errors import BundleError

SPECIFICATION = Path(__file__).parents[2] / "docs/format.md"
REMOVED = object()
RECORD = EngineRecord(
    calibration=Calibration(1.5, 0.5, 0.1, 9, (0.003, 0.3)),
    parity={"map_difference": 1e-6, "score_difference": 0.0},
    built_with={"onnxruntime": "1.20.0", "device": "CPU"},
)
WISHED = Manifest(
    name="part",
    method="stpm",
    precision="fp32",
    opset=20,
    input=InputContract(size=(4, 6), batch=(1, 8), resize="host"),
    map_size=(2, 3),
    tolerance=1e-4,
    files={},
    engines={"onnxruntime": RECORD},
    versions={"stpm": "0.1.0"},
    provenance={"training": {"epochs": 2, "seeds": [0, 1]}},
)
GRAPH = b"a graph"
RANDOM = np.random.default_rng(0)
EXPECTED = Golden(
    images=RANDOM.integers(0, 256, (3, 4, 6, 3), np.uint8),
    anomaly_maps=RANDOM.random((3, 2, 3), np.float32),
    pred_scores=RANDOM.random(3, np.float32),
)
FILES = {MODEL: GRAPH, GOLDEN: golden_bytes(EXPECTED)}


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A small bundle whose graph no engine can run."""
    path = tmp_path / "part.stpm"
    write_bundle(path, WISHED, FILES)
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `part`, for tests that write the changed file anew for each example."""
    path = tmp_path_factory.mktemp("scratch") / "part.stpm"
    write_bundle(path, WISHED, FILES)
    return path


def read_manifest(path: Path) -> dict[str, Any]:
    values = json.loads((path / MANIFEST).read_text())
    assert isinstance(values, dict)
    return values


def changed(values: Any, keys: tuple[str | int, ...], value: object) -> Any:
    result = copy.deepcopy(values)
    target = result
    for key in keys[:-1]:
        target = target[key]
    if value is REMOVED:
        del target[keys[-1]]
    else:
        target[keys[-1]] = value
    return result


def change_manifest(path: Path, keys: tuple[str | int, ...], value: object) -> None:
    (path / MANIFEST).write_text(json.dumps(changed(read_manifest(path), keys, value)))


def put(path: Path, name: str, content: bytes) -> None:
    """Replace a file of the bundle, and its hash in the manifest."""
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (path / name).write_bytes(content)
    change_manifest(path, ("files", name), entry)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


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
    assert values["schema_version"] == 1
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
        precision=st.sampled_from(["fp32", "fp16", "bf16"]),
        opset=st.integers(1, 1000),
        input=st.builds(
            InputContract,
            size=st.tuples(st.integers(1, 16384), st.integers(1, 16384)),
            batch=st.tuples(st.integers(1, 8), st.integers(8, 4096)),
            resize=st.sampled_from(["host", "graph"]),
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


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"stpm", b"\xff\xfe\x00", b'{"schema_version": 1,}', b"[" * 100_000, b"9" * 5000],
    ids=["empty", "open", "word", "not utf-8", "trailing comma", "nested", "huge integer"],
)
def test_manifest_that_is_not_json(part: Path, content: bytes) -> None:
    (part / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: is not JSON"):
        Bundle(part)


@pytest.mark.parametrize("content", ["null", "[]", "1", '"text"', "{}"])
def test_json_without_a_version(part: Path, content: str) -> None:
    (part / MANIFEST).write_text(content)
    with pytest.raises(BundleError, match="got schema version None, expected 1"):
        Bundle(part)


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, "1", True, None, [1], {"major": 1}])
def test_other_schema_versions(part: Path, version: object) -> None:
    change_manifest(part, ("schema_version",), version)
    with pytest.raises(BundleError, match=r"got schema version .*, expected 1") as caught:
        Bundle(part)
    assert repr(version) in str(caught.value)


def test_no_more_of_a_manifest_is_read_than_is_allowed(part: Path) -> None:
    os.truncate(part / MANIFEST, 1 << 40)
    with pytest.raises(BundleError, match="is larger than"):
        Bundle(part)


@pytest.mark.parametrize("surplus", [0, 1])
def test_manifest_may_have_a_megabyte(part: Path, surplus: int) -> None:
    text = (part / MANIFEST).read_text()
    (part / MANIFEST).write_text(text.ljust(MAX_MANIFEST_BYTES + surplus))
    if surplus:
        with pytest.raises(BundleError, match=f"is larger than {MAX_MANIFEST_BYTES} bytes"):
            Bundle(part)
    else:
        assert Bundle(part).manifest.name == "part"


ENGINE = ("engines", "onnxruntime")
CALIBRATION = (*ENGINE, "calibration")
ENTRY = ("files", MODEL)
REQUIRED = [
    *[(key,) for key in ("name", "method", "precision", "opset", "input", "map_size")],
    *[(key,) for key in ("tolerance", "files", "engines", "versions", "provenance")],
    *[("input", key) for key in ("size", "batch", "resize")],
    *[(*ENTRY, key) for key in ("sha256", "size_bytes")],
    *[(*ENGINE, key) for key in ("calibration", "parity", "built_with")],
    *[(*CALIBRATION, key) for key in ("image_threshold", "pixel_threshold", "false_alarm_rate")],
    *[(*CALIBRATION, key) for key in ("image_count", "false_alarm_interval")],
]


@pytest.mark.parametrize("keys", REQUIRED, ids=lambda keys: ".".join(keys))
def test_every_field_is_required(part: Path, keys: tuple[str, ...]) -> None:
    change_manifest(part, keys, REMOVED)
    with pytest.raises(BundleError, match=r"manifest\.json: .*; export the (bundle|model) again"):
        Bundle(part)
    with pytest.raises(BundleError, match=keys[-1]):
        Bundle(part)


def test_fields_of_built_engines_are_optional(part: Path) -> None:
    for name in ("verified", "file", "layer_precisions"):
        change_manifest(part, (*ENGINE, name), REMOVED)
    assert Bundle(part).manifest.engines == {"onnxruntime": RECORD}
    for name, value in (("verified", False), ("file", GOLDEN), ("layer_precisions", {"a": "f16"})):
        change_manifest(part, (*ENGINE, name), value)
    record = Bundle(part).manifest.engines["onnxruntime"]
    assert record == replace(RECORD, verified=False, file=GOLDEN, layer_precisions={"a": "f16"})


NO_TEXTS = (None, 1, ["a"], "a" * 1001)
NO_OBJECTS = (None, 1, "text", [], [["a", "b"]])
NO_NUMBERS = (None, "1", True, [1.0], float("nan"), float("inf"), -float("inf"), 10**400)
NO_SIZES = (None, 7, "77", [], [7], [7, 7, 7], [7, 7.0], [7, "7"], [0, 7], [-7, 7], [7, 16385])
NO_COUNTS = (None, "1", 1.0, True, -1)
WRONG: dict[tuple[str, ...], tuple[object, ...]] = {
    ("name",): NO_TEXTS,
    ("method",): NO_TEXTS,
    ("precision",): (None, "int8", "FP32", ["fp32"], {}),
    ("opset",): (*NO_COUNTS, 0, 1001),
    ("input",): NO_OBJECTS,
    ("input", "size"): NO_SIZES,
    ("input", "batch"): (*NO_SIZES, [2, 1], [1, 4097]),
    ("input", "resize"): (None, "camera", ["host"], {}),
    ("map_size",): NO_SIZES,
    ("tolerance",): (*NO_NUMBERS, 0, -1e-4, 1.001),
    ("files",): NO_OBJECTS,
    ENTRY: NO_OBJECTS,
    (*ENTRY, "sha256"): (None, 1, "", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 63 + "\n"),
    (*ENTRY, "size_bytes"): (*NO_COUNTS, (2 << 30) + 1),
    ("engines",): NO_OBJECTS,
    ENGINE: NO_OBJECTS,
    CALIBRATION: NO_OBJECTS,
    (*CALIBRATION, "image_threshold"): NO_NUMBERS,
    (*CALIBRATION, "pixel_threshold"): NO_NUMBERS,
    (*CALIBRATION, "false_alarm_rate"): (*NO_NUMBERS, 0, 1, -0.1),
    (*CALIBRATION, "image_count"): (*NO_COUNTS, 0),
    (*CALIBRATION, "false_alarm_interval"): (None, 1, [], [0.1], [0.2, 0.1], [0.1, 2], [None, 1]),
    (*CALIBRATION, "surplus"): (1,),
    (*ENGINE, "parity"): NO_OBJECTS,
    (*ENGINE, "parity", "map_difference"): NO_NUMBERS,
    (*ENGINE, "built_with"): NO_OBJECTS,
    (*ENGINE, "built_with", "device"): NO_TEXTS,
    (*ENGINE, "verified"): (None, 1, "true", [True]),
    (*ENGINE, "file"): (1, "absent", "", ["model.onnx"], {}),
    (*ENGINE, "layer_precisions"): NO_OBJECTS,
    (*ENGINE, "layer_precisions", "fp32/node"): NO_TEXTS,
    ("versions",): NO_OBJECTS,
    ("versions", "stpm"): NO_TEXTS,
    ("provenance",): NO_OBJECTS,
}


@pytest.mark.parametrize(
    ("keys", "value"),
    [(keys, value) for keys, values in WRONG.items() for value in values],
    ids=lambda shown: ".".join(shown) if isinstance(shown, tuple) else repr(shown)[:20],
)
def test_wrong_values_are_named(part: Path, keys: tuple[str, ...], value: object) -> None:
    change_manifest(part, keys, value)
    with pytest.raises(BundleError, match=r"manifest\.json: .*expected") as caught:
        Bundle(part)
    assert keys[-1] in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(part))


def nested(depth: int) -> Any:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "keys", [("schema_version",), ("name",), ("input", "size"), (*CALIBRATION, "image_threshold")]
)
@pytest.mark.parametrize("depth", [50, 900, 100_000])
def test_deep_values_are_refused(part: Path, keys: tuple[str, ...], depth: int) -> None:
    text = json.dumps(changed(read_manifest(part), keys, "here"))
    (part / MANIFEST).write_text(text.replace('"here"', "[" * depth + "]" * depth))
    with pytest.raises(BundleError):
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
        with pytest.raises(BundleError, match="lists no"):
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


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("images", EXPECTED.images.astype(np.float32)),
        ("images", EXPECTED.images[..., :2]),
        ("images", EXPECTED.images.transpose(0, 3, 1, 2)),
        ("images", EXPECTED.images[0]),
        ("images", EXPECTED.images[:2]),
        ("images", EXPECTED.images[:0]),
        ("images", np.uint8(0)),
        ("anomaly_maps", EXPECTED.anomaly_maps.astype(np.float64)),
        ("anomaly_maps", EXPECTED.anomaly_maps.astype(">f4")),
        ("anomaly_maps", EXPECTED.anomaly_maps[:, None]),
        ("anomaly_maps", EXPECTED.anomaly_maps[:, :1]),
        ("pred_scores", EXPECTED.pred_scores.astype(np.float16)),
        ("pred_scores", EXPECTED.pred_scores[:, None]),
        ("pred_scores", EXPECTED.pred_scores[:2]),
        ("pred_scores", np.float32(1)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype.str}{value.shape}",
)
def test_golden_arrays_that_do_not_fit(part: Path, name: str, array: NDArray[Any]) -> None:
    put(part, GOLDEN, npz(**vars(EXPECTED) | {name: array}))
    with pytest.raises(BundleError, match=r"golden\.npz: got .*, expected"):
        Bundle(part).golden()


HUGE = npy(np.zeros(0, np.uint8)).replace(b"(0,), }" + b" " * 18, b"(1000000000000000000,), }")
BROKEN_GOLDEN = {
    "empty": b"",
    "text": b"no archive",
    "cut in half": FILES[GOLDEN][: len(FILES[GOLDEN]) // 2],
    "without its last byte": FILES[GOLDEN][:-1],
    "pickle": pickle.dumps(vars(EXPECTED)),
    "one array": npy(EXPECTED.images),
    "empty archive": archive(),
    "without scores": npz(images=EXPECTED.images, anomaly_maps=EXPECTED.anomaly_maps),
    "objects": archive(images=npy(np.array([{}, None], dtype=object))),
    "no arrays": archive(images=b"text", anomaly_maps=b"text", pred_scores=b"text"),
    "nothing in the arrays": archive(images=b"", anomaly_maps=b"", pred_scores=b""),
    "array beyond all memory": archive(images=HUGE),
}


@pytest.mark.parametrize("content", BROKEN_GOLDEN.values(), ids=BROKEN_GOLDEN)
def test_broken_golden_file_with_the_right_hash(part: Path, content: bytes) -> None:
    put(part, GOLDEN, content)
    with pytest.raises(BundleError, match=r"golden\.npz: "):
        Bundle(part).golden()


def test_array_beyond_all_memory_is_one() -> None:
    assert b"'shape': (1000000000000000000,)" in HUGE


def test_pickles_are_not_loaded(part: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    put(part, GOLDEN, archive(images=npy(np.array([Payload()], dtype=object))))
    with pytest.raises(BundleError, match="Object arrays cannot be loaded"):
        Bundle(part).golden()
    assert not (tmp_path / "ran").exists()


def test_golden_arrays_are_bounded(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "MAX_GOLDEN_BYTES", 999)
    put(part, GOLDEN, archive(images=bytes(1000)))
    with pytest.raises(BundleError, match="1000 bytes, expected at most 999"):
        Bundle(part).golden()


def assert_opens_or_bundle_error(path: Path) -> None:
    try:
        opened = Bundle(path)
    except BundleError:
        return
    (path / MANIFEST).write_text(opened.manifest.to_json())
    assert Bundle(path).manifest == opened.manifest


def places(values: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the keys of everything in a JSON value."""
    steps = values if isinstance(values, dict) else range(len(values))
    for key in steps:
        yield (*keys, key)
        if isinstance(values[key], dict | list):
            yield from places(values[key], (*keys, key))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.data())
def test_any_change_of_the_manifest_opens_or_is_refused(scratch: Path, data: st.DataObject) -> None:
    values = json.loads(replace(WISHED, files=write_bundle(scratch, WISHED, FILES).files).to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        if values:
            keys = data.draw(st.sampled_from(list(places(values))))
            values = changed(values, keys, data.draw(st.just(REMOVED) | JSON_VALUES))
    (scratch / MANIFEST).write_text(json.dumps(values))
    assert_opens_or_bundle_error(scratch)


@settings(deadline=None)
@given(start=st.integers(0, 1500), length=st.integers(0, 20), insert=st.binary(max_size=5))
def test_any_damage_to_the_manifest_opens_or_is_refused(
    scratch: Path, start: int, length: int, insert: bytes
) -> None:
    write_bundle(scratch, WISHED, FILES)
    content = (scratch / MANIFEST).read_bytes()
    (scratch / MANIFEST).write_bytes(content[:start] + insert + content[start + length :])
    assert_opens_or_bundle_error(scratch)


@settings(deadline=None)
@given(st.data())
def test_any_damage_to_the_golden_file_is_read_or_refused(
    scratch: Path, data: st.DataObject
) -> None:
    content = bytearray(FILES[GOLDEN])
    spots = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for spot, value in data.draw(st.lists(spots, min_size=1, max_size=4)):
        content[spot] = value
    write_bundle(scratch, WISHED, {MODEL: GRAPH, GOLDEN: bytes(content)})
    try:
        golden = Bundle(scratch).golden()
    except BundleError:
        return
    assert golden.images.shape[1:] == (4, 6, 3)


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

    def disk_full(path: Path, *args: Any) -> Any:
        if path.name == GOLDEN or path.name == MANIFEST or path.name.endswith(".partial"):
            raise OSError("disk full")
        return original(path, *args)

    monkeypatch.setattr(Path, method, disk_full)
    with pytest.raises(OSError, match="disk full"):
        write_bundle(part, replace(WISHED, name="other"), FILES)
    assert content_of(part.parent) == before
    assert list(part.parent.iterdir()) == ([part] if there else [])


def test_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.png").write_bytes(b"dear")
    with pytest.raises(BundleError, match="photos: is a folder but no bundle"):
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
