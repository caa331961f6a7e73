"""Bundles: a folder with a deployment graph and all that is needed to trust and to run it.

The format is specified in docs/format.md. Everything is checked before it is used: sizes before
reading, hashes before parsing, types and ranges of every field.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.calibration import Calibration
from stpm.runtime.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
GOLDEN = "golden.npz"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 2 << 30
MAX_GOLDEN_BYTES = 1 << 30
"""Of the golden arrays, decompressed."""
MAX_SIDE = 16384
"""Pixels."""
MAX_BATCH = 4096
MAX_TEXT = 1000
"""Characters."""
PRECISIONS = ("fp32", "fp16", "bf16")
RESIZES = ("host", "graph")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class InputContract:
    """What the graph takes: uint8 (N,height,width,3), RGB.

    Attributes:
        size: (height, width) in pixels of the graph's input.
        batch: smallest and largest N; equal for a graph of fixed batch.
        resize: "host" when the runtime resizes any image to `size`; "graph" when the graph itself
            does and only images of exactly `size`, the camera's, are accepted.
    """

    size: tuple[int, int]
    batch: tuple[int, int] = (1, 1)
    resize: str = "host"


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its sha256 in hexadecimal and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class EngineRecord:
    """One engine that was verified at export, and its thresholds.

    Attributes:
        calibration: thresholds from this engine's own scores of normal images.
        parity: largest differences to the FP32 reference, by name.
        built_with: versions and device.
    """

    calibration: Calibration
    parity: dict[str, float]
    built_with: dict[str, str]


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

    def to_json(self) -> str:
        """Return the manifest as it is written."""
        return json.dumps({"schema_version": SCHEMA_VERSION} | asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Golden:
    """Real inputs and what the FP32 reference makes of them.

    Attributes:
        images: uint8 (N,H,W,3), as the graph takes them.
        anomaly_maps: float32 (N,h,w).
        pred_scores: float32 (N,).
    """

    images: NDArray[np.uint8]
    anomaly_maps: NDArray[np.float32]
    pred_scores: NDArray[np.float32]


class Bundle:
    """An opened bundle: a validated manifest, and files that are hashed when they are read."""

    def __init__(self, path: str | Path) -> None:
        """Open a bundle.

        Raises:
            BundleError: it is missing, malformed, or of an unknown version.
        """
        self.path = Path(path)
        if not self.path.is_dir():
            raise BundleError(f"{self.path}: there is no such bundle; expected a folder NAME.stpm.")
        self.manifest = _manifest(self.path / MANIFEST)

    def read(self, name: str) -> bytes:
        """Read a file of the bundle; only bytes that match the manifest's hash are returned.

        Raises:
            BundleError: the file is not listed, missing, or altered.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: its manifest lists no {name}; export it again.")
        content = _read_bounded(self.path / name, entry.size_bytes)
        if len(content) != entry.size_bytes or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.path / name}: differs from the manifest's hash; it was altered or cut "
                "short, copy or export the bundle again."
            )
        return content

    def golden(self) -> Golden:
        """Read the golden images with their expected maps and scores.

        Raises:
            BundleError: they are malformed or do not fit the manifest.
        """
        arrays = _npz(self.path / GOLDEN, self.read(GOLDEN))
        count = len(arrays["images"]) if arrays["images"].ndim else 0
        expected = {
            "images": ((count, *self.manifest.input.size, 3), np.uint8),
            "anomaly_maps": ((count, *self.manifest.map_size), np.float32),
            "pred_scores": ((count,), np.float32),
        }
        for name, (shape, dtype) in expected.items():
            if not count or arrays[name].shape != shape or arrays[name].dtype != dtype:
                raise BundleError(
                    f"{self.path / GOLDEN}: got {name} {arrays[name].dtype}{arrays[name].shape}, "
                    f"expected {np.dtype(dtype)}{shape}; export the bundle again."
                )
        return Golden(**arrays)


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle in one step: a reader sees the old folder, none, or the whole new one.

    Args:
        path: the folder; replaced if it exists.
        manifest: its `files` are filled in here.
        files: content by name.

    Returns:
        The manifest as written.

    Raises:
        BundleError: the path is a folder of something else.
    """
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise BundleError(f"{path}: is a folder but no bundle; choose another name.")
    partial, old = (
        path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("partial", "old")
    )
    entries = {
        name: FileEntry(hashlib.sha256(content).hexdigest(), len(content))
        for name, content in files.items()
    }
    complete = replace(manifest, files=entries)
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            (partial / name).write_bytes(content)
        (partial / MANIFEST).write_text(complete.to_json())
        if path.is_dir():
            path.rename(old)
        partial.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)
    return complete


def golden_bytes(golden: Golden) -> bytes:
    """Return the content of golden.npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(golden))
    return buffer.getvalue()


def _read_bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"{path}: cannot be read ({reason}); copy the bundle again.") from error


def _npz(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    names = ("images", "anomaly_maps", "pred_scores")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        _require(size <= MAX_GOLDEN_BYTES, f"{size} bytes, expected at most {MAX_GOLDEN_BYTES}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in names}
    except Exception as error:
        # zipfile, zlib and numpy raise many kinds of error for damaged content.
        raise BundleError(f"{path}: malformed ({error}); export the bundle again.") from error


def _manifest(path: Path) -> Manifest:
    content = _read_bounded(path, MAX_MANIFEST_BYTES)
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path}: is larger than {MAX_MANIFEST_BYTES} bytes; not a manifest.")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is not JSON ({error}); export the bundle again.") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: got schema version {brief(version)}, expected {SCHEMA_VERSION}; use the stpm "
            "version that wrote it, or export again."
        )
    try:
        return _parse(values)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    except (KeyError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{path}: malformed ({_reason(error)}); export the bundle again."
        ) from error


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _parse(values: dict[str, Any]) -> Manifest:
    contract, files, engines = (_object(values, key) for key in ("input", "files", "engines"))
    batch = _pair(contract, "batch", MAX_BATCH)
    _require(batch[0] <= batch[1], f"batch is {batch}, expected the smallest first")
    return Manifest(
        name=_text(values, "name"),
        method=_text(values, "method"),
        precision=_choice(values, "precision", PRECISIONS),
        opset=_int("opset", values["opset"], 1, 1000),
        input=InputContract(
            _pair(contract, "size", MAX_SIDE), batch, _choice(contract, "resize", RESIZES)
        ),
        map_size=_pair(values, "map_size", MAX_SIDE),
        tolerance=_fraction(values, "tolerance"),
        files={_file_name(name): _file(_object(files, name)) for name in files},
        engines={name: _engine(_object(engines, name)) for name in engines},
        versions=_texts(values, "versions"),
        provenance=_object(values, "provenance"),
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


def _engine(entry: dict[str, Any]) -> EngineRecord:
    parity = _object(entry, "parity")
    calibration = Calibration.from_dict(entry["calibration"])
    numbers = {name: _number(parity, name) for name in parity}
    return EngineRecord(calibration, numbers, _texts(entry, "built_with"))


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
