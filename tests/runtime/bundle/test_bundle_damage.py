"""Any damage to a bundle is refused, or does no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundles import (
    FILES,
    GRAPH,
    REMOVED,
    WISHED,
    changed,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from stpm.runtime.bundle.archive import (
    GOLDEN,
    MANIFEST,
    MODEL,
    Bundle,
    write_bundle,
)
from stpm.runtime.errors import BundleError


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
