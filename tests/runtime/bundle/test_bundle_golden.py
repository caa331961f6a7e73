"""Golden images and outputs: what does not fit, or is no plain array, is refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import (
    EXPECTED,
    FILES,
    archive,
    npy,
    npz,
    put,
)
from numpy.typing import NDArray

from stpm.runtime.bundle import archive as bundle_module
from stpm.runtime.bundle.archive import (
    GOLDEN,
    Bundle,
)
from stpm.runtime.errors import BundleError


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
