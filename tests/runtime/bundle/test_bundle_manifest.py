"""Manifests: whatever is malformed, missing or of the wrong kind is refused by name."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import (
    CALIBRATION,
    ENGINE,
    RECORD,
    REMOVED,
    REQUIRED,
    WRONG,
    change_manifest,
    changed,
    read_manifest,
)

from stpm.runtime.bundle.archive import (
    GOLDEN,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Bundle,
)
from stpm.runtime.errors import BundleError


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


@pytest.mark.parametrize("version", [0, 3, -1, 1.0, "1", True, None, [1], {"major": 1}])
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
