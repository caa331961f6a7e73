"""The manifest of a bundle: its fields, and their types and ranges checked one by one."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, field
from reprlib import repr as brief
from typing import Any

from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.bundle.scoring import Scoring
from stpm.runtime.bundle.tiling import Tiling

SCHEMA_VERSION = 2
READ_VERSIONS = (1, 2)
"""Version 1 lacks what `stpm-calibrate` writes, and how maps are scored."""
MOST_FORMER = 20
"""Calibrations of an engine that are kept after they were replaced."""
MAX_FILE_BYTES = 2 << 30
MAX_SIDE = 16384
"""Pixels."""
MAX_BATCH = 4096
MAX_TEXT = 1000
"""Characters."""
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
RESIZES = ("host", "graph")
CHANNELS = (1, 3)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class InputContract:
    """What the graph takes: uint8 (N,height,width,channels).

    Attributes:
        size: (height, width) in pixels of the graph's input.
        batch: smallest and largest N; equal for a graph of fixed batch.
        resize: "host" when the runtime resizes any image to `size`; "graph" when the graph itself
            does and only images of exactly `size`, the camera's, are accepted.
        bit_depth: bits that the camera uses of images of 16 bits.
        channels: 3 for RGB, 1 for grey.
    """

    size: tuple[int, int]
    batch: tuple[int, int] = (1, 1)
    resize: str = "host"
    bit_depth: int = 16
    channels: int = 3


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its sha256 in hexadecimal and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class EngineRecord:
    """One engine that the bundle can be run with, and its thresholds.

    Attributes:
        calibration: thresholds from this engine's own scores of normal images; from those of the
            FP32 reference when it was not verified.
        parity: largest differences to the FP32 reference, by name; empty when not verified.
        built_with: versions and device; of a built engine also the graph's hash.
        verified: whether the engine ran at export and agreed with the reference.
        file: of the built engine in the bundle; None when engines are made from the graph.
        layer_precisions: of a built engine, each layer's type by its name in the graph.
        former: thresholds that were replaced, the last first, without their scores.
    """

    calibration: Calibration
    parity: dict[str, float]
    built_with: dict[str, str]
    verified: bool = True
    file: str | None = None
    layer_precisions: dict[str, str] = field(default_factory=dict)
    former: tuple[Calibration, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json; see docs/format.md."""

    name: str
    method: str
    precision: str
    opset: int
    input: InputContract
    map_size: tuple[int, int]
    tolerance: float
    files: dict[str, FileEntry]
    engines: dict[str, EngineRecord]
    versions: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    scoring: Scoring = field(default_factory=Scoring)
    tiles: Tiling | None = None

    @property
    def golden_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the golden images, and of their maps where tiles are cut."""
        size = self.input.size
        return size if self.tiles is None else self.tiles.golden_size(size)

    @property
    def golden_map_size(self) -> tuple[int, int]:
        """(height, width) of the golden maps."""
        return self.map_size if self.tiles is None else self.golden_size

    def to_json(self) -> str:
        """Return the manifest as it is written."""
        return json.dumps({"schema_version": SCHEMA_VERSION} | asdict(self), indent=2) + "\n"


def parse_manifest(values: dict[str, Any]) -> Manifest:
    """Check every field of a manifest's JSON.

    Raises:
        KeyError: a field is missing.
        ValueError: a field has a wrong type or is out of range.
        BundleError: a calibration is malformed.
    """
    contract, files, engines = (_object(values, key) for key in ("input", "files", "engines"))
    batch = _pair(contract, "batch", MAX_BATCH)
    _require(batch[0] <= batch[1], f"batch is {batch}, expected the smallest first")
    entries = {_file_name(name): _file(_object(files, name)) for name in files}
    scoring = Scoring.from_dict(values["scoring"]) if "scoring" in values else Scoring()
    records = {name: _engine(_object(engines, name), entries) for name in engines}
    size = _pair(contract, "size", MAX_SIDE)
    tiles = values.get("tiles")
    aligned = scoring.align is not None
    _require(tiles is None or not aligned, "got tiles and align, expected one of them")
    for name, record in records.items():
        given, needed = len(record.calibration.roi_weights), len(scoring.rois)
        _require(given == needed, f"{name} has {given} roi_weights, expected {needed}")
    return Manifest(
        name=_text(values, "name"),
        method=_text(values, "method"),
        precision=_choice(values, "precision", PRECISIONS),
        opset=_int("opset", values["opset"], 1, 1000),
        input=InputContract(
            size,
            batch,
            _choice(contract, "resize", RESIZES),
            _int("bit_depth", contract.get("bit_depth", 16), 8, 16),
            _channels(contract.get("channels", 3)),
        ),
        map_size=_pair(values, "map_size", MAX_SIDE),
        tolerance=_fraction(values, "tolerance"),
        files=entries,
        engines=records,
        versions=_texts(values, "versions"),
        provenance=_object(values, "provenance"),
        scoring=scoring,
        tiles=None if tiles is None else Tiling.from_dict(tiles, size),
    )


def _file_name(name: str) -> str:
    """Accept plain names only, so that nothing outside the folder can be named."""
    _require(_FILE_NAME.fullmatch(name) is not None, f"{brief(name)} is not a plain file name")
    return name


def _file(entry: dict[str, Any]) -> FileEntry:
    sha256 = _text(entry, "sha256")
    is_hash = _SHA256.fullmatch(sha256) is not None
    _require(is_hash, f"sha256 is {brief(sha256)}, expected 64 lower-case hex digits")
    return FileEntry(sha256, _int("size_bytes", entry["size_bytes"], 0, MAX_FILE_BYTES))


def _engine(entry: dict[str, Any], files: dict[str, FileEntry]) -> EngineRecord:
    parity = _object(entry, "parity")
    file = entry.get("file")
    listed = file is None or (isinstance(file, str) and file in files)
    _require(listed, f"file is {brief(file)}, expected a key of files or null")
    verified = entry.get("verified", True)
    _require(type(verified) is bool, f"verified is {brief(verified)}, expected true or false")
    return EngineRecord(
        Calibration.from_dict(entry["calibration"]),
        {name: _number(parity, name) for name in parity},
        _texts(entry, "built_with"),
        verified,
        file,
        _texts({"layer_precisions": {}} | entry, "layer_precisions"),
        _former(entry.get("former", [])),
    )


def _former(values: object) -> tuple[Calibration, ...]:
    if not isinstance(values, list):
        raise ValueError(f"former is {brief(values)}, expected a list")
    count = len(values)
    _require(count <= MOST_FORMER, f"former has {count} entries, expected at most {MOST_FORMER}")
    return tuple(map(Calibration.from_dict, values))


def _object(values: dict[str, Any], key: str) -> dict[str, Any]:
    value = values[key]
    _require(isinstance(value, dict), f"{key} is {brief(value)}, expected an object")
    return dict(value)


def _texts(values: dict[str, Any], key: str) -> dict[str, str]:
    texts = _object(values, key)
    return {name: _text(texts, name) for name in texts}


def _pair(values: dict[str, Any], key: str, high: int) -> tuple[int, int]:
    value = values[key]
    two = isinstance(value, list) and len(value) == 2
    _require(two, f"{key} is {brief(value)}, expected two integers")
    return _int(key, value[0], 1, high), _int(key, value[1], 1, high)


def _int(name: str, value: Any, low: int, high: int) -> int:
    fits = type(value) is int and low <= value <= high
    _require(fits, f"{name} is {brief(value)}, expected an integer in {low}..{high}")
    return int(value)


def _channels(value: Any) -> int:
    fits = type(value) is int and value in CHANNELS
    _require(fits, f"channels is {brief(value)}, expected {' or '.join(map(str, CHANNELS))}")
    return int(value)


def _number(values: dict[str, Any], key: str) -> float:
    value = values[key]
    # Comparing also refuses NaN, and integers too large for a float.
    fits = type(value) in (int, float) and abs(value) <= sys.float_info.max
    _require(fits, f"{key} is {brief(value)}, expected a finite number")
    return float(value)


def _fraction(values: dict[str, Any], key: str) -> float:
    value = _number(values, key)
    _require(0 < value <= 1, f"{key} is {value!r}, expected a number above 0 and at most 1")
    return value


def _text(values: dict[str, Any], key: str) -> str:
    value = values[key]
    fits = isinstance(value, str) and len(value) <= MAX_TEXT
    _require(fits, f"{key} is {brief(value)}, expected a text of at most {MAX_TEXT} characters")
    return str(value)


def _choice(values: dict[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = values[key]
    _require(value in known, f"{key} is {brief(value)}, expected one of {', '.join(known)}")
    return str(value)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
