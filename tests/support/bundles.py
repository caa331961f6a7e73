"""A small bundle that no engine can run, and ways to change what is in it."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.archive import (
    GOLDEN,
    MANIFEST,
    MODEL,
    EngineRecord,
    Golden,
    InputContract,
    Manifest,
    npz_bytes,
)
from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.bundle.scoring import Scoring

REMOVED = object()
RECORD = EngineRecord(
    calibration=Calibration(
        *(1.5, 0.5, 0.1, 9, (0.003, 0.3)),
        *(0.3, 1.25, (0.25, 0.5, 1.25, 1.5), "2026-05-04T06:30:00+00:00"),
    ),
    parity={"map_difference": 1e-6, "score_difference": 0.0},
    built_with={"onnxruntime": "1.20.0", "device": "CPU"},
    former=(Calibration(1.75, 0.5, 0.1, 9, (0.003, 0.3)),),
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
    scoring=Scoring("max"),
)
GRAPH = b"a graph"
RANDOM = np.random.default_rng(0)
EXPECTED = Golden(
    images=RANDOM.integers(0, 256, (3, 4, 6, 3), np.uint8),
    anomaly_maps=RANDOM.random((3, 2, 3), np.float32),
    pred_scores=RANDOM.random(3, np.float32),
)
FILES = {MODEL: GRAPH, GOLDEN: npz_bytes(EXPECTED)}

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
CALIBRATED = Calibration(1.5, 0.5, 0.1, 9, (0.003, 0.3)).to_dict()
NO_TEXTS = (None, 1, ["a"], "a" * 1001)
NO_OBJECTS = (None, 1, "text", [], [["a", "b"]])
NO_NUMBERS = (None, "1", True, [1.0], float("nan"), float("inf"), -float("inf"), 10**400)
NO_SIZES = (None, 7, "77", [], [7], [7, 7, 7], [7, 7.0], [7, "7"], [0, 7], [-7, 7], [7, 16385])
NO_COUNTS = (None, "1", 1.0, True, -1)
ALIGN = {"size": [4, 6], "shift": 0.1, "degrees": 15, "correlation": 0.7}
WRONG: dict[tuple[str, ...], tuple[object, ...]] = {
    ("name",): NO_TEXTS,
    ("method",): NO_TEXTS,
    ("precision",): (None, "int4", "FP32", ["fp32"], {}),
    ("opset",): (*NO_COUNTS, 0, 1001),
    ("input",): NO_OBJECTS,
    ("input", "size"): NO_SIZES,
    ("input", "batch"): (*NO_SIZES, [2, 1], [1, 4097]),
    ("input", "channels"): (None, 0, 2, 4, -1, 3.0, "3", True, [3], {}),
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
    (*CALIBRATION, "warn_threshold"): (*NO_NUMBERS, 1.51),
    (*CALIBRATION, "warn_rate"): (*NO_NUMBERS, 0.09, 1),
    (*CALIBRATION, "scores"): (None, 1, "1", [1, 0.5], [None], [[1]], [0.5] * 10),
    (*CALIBRATION, "calibrated"): (None, 1, ["a"], "a" * 41),
    (*CALIBRATION, "roi_weights"): (None, 1, "1", [0], [-1.0], [1e30], [None], [1.0]),
    (*CALIBRATION, "image_statistics"): (*NO_OBJECTS, {"a": None}, {"a": [2, 1]}, {"a": [1] * 201}),
    (*ENGINE, "parity"): NO_OBJECTS,
    (*ENGINE, "parity", "map_difference"): NO_NUMBERS,
    (*ENGINE, "built_with"): NO_OBJECTS,
    (*ENGINE, "built_with", "device"): NO_TEXTS,
    (*ENGINE, "verified"): (None, 1, "true", [True]),
    (*ENGINE, "file"): (1, "absent", "", ["model.onnx"], {}),
    (*ENGINE, "former"): (None, 1, {}, [CALIBRATED] * 21),
    (*ENGINE, "layer_precisions"): NO_OBJECTS,
    (*ENGINE, "layer_precisions", "fp32/node"): NO_TEXTS,
    ("versions",): NO_OBJECTS,
    ("versions", "stpm"): NO_TEXTS,
    ("provenance",): NO_OBJECTS,
    ("tiles",): NO_OBJECTS[1:],
    ("scoring",): NO_OBJECTS,
    ("scoring", "kind"): (
        None,
        1,
        "",
        "min",
        "top%",
        "top0%",
        "top101%",
        "top1",
        "top 1%",
        "top.5%",
    ),
    ("scoring", "min_area"): (*NO_COUNTS, (1 << 28) + 1),
    ("scoring", "align"): (
        *(True, 1, "a", [], {}),
        *(ALIGN | {"size": size} for size in (None, 4, [4], [4, 0], [4, 16385], [4.0, 6])),
        *(ALIGN | {"shift": shift} for shift in (None, "1", True, 0, -0.1, 0.51)),
        *(ALIGN | {"degrees": degrees} for degrees in (None, -1, 181)),
        *(ALIGN | {"correlation": correlation} for correlation in (None, -0.1, 1.1)),
    ),
    ("scoring", "rois"): (None, 1, "a", [1], [""], ["a b"], ["-a"], ["a", "a"], ["a" * 65]),
}


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
