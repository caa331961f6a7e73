"""Bundles: a folder with a deployment graph and all that is needed to trust and to run it.

The format is specified in docs/format.md. Everything is checked before it is used: sizes before
reading, hashes before parsing, types and ranges of every field.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.manifest import (
    MAX_BATCH,
    MAX_SIDE,
    READ_VERSIONS,
    SCHEMA_VERSION,
    EngineRecord,
    FileEntry,
    InputContract,
    Manifest,
    parse_manifest,
)
from stpm.runtime.errors import BundleError
from stpm.runtime.partial import leftovers, partial_path

__all__ = [
    "ALIGN",
    "GOLDEN",
    "MANIFEST",
    "MAX_BATCH",
    "MAX_GOLDEN_BYTES",
    "MAX_MANIFEST_BYTES",
    "MAX_SIDE",
    "MODEL",
    "SCHEMA_VERSION",
    "SCORING",
    "Bundle",
    "EngineRecord",
    "FileEntry",
    "Golden",
    "InputContract",
    "Manifest",
    "Reference",
    "ScoringMap",
    "check_readable",
    "npz_bytes",
    "write_bundle",
]

MANIFEST = "manifest.json"
MODEL = "model.onnx"
GOLDEN = "golden.npz"
SCORING = "scoring.npz"
ALIGN = "align.npz"
MAX_MANIFEST_BYTES = 1 << 20
MAX_GOLDEN_BYTES = 1 << 30
"""Largest size of the golden arrays, decompressed."""
_Array = tuple[tuple[int, ...], type[np.uint8] | type[np.float32]]
"""An array's shape and type."""


@dataclass(frozen=True)
class Golden:
    """Real inputs and what the FP32 reference makes of them.

    Attributes:
        images: uint8 (N,H,W,C), as the graph takes them.
        anomaly_maps: float32 (N,h,w).
        pred_scores: float32 (N,).
    """

    images: NDArray[np.uint8]
    anomaly_maps: NDArray[np.float32]
    pred_scores: NDArray[np.float32]


@dataclass(frozen=True)
class ScoringMap:
    """Where maps are scored, and what the golden maps then score.

    Attributes:
        labels: uint8 (h,w): 0 for a pixel that does not count, else 1 plus the index of its
            region of interest.
        golden_scores: float32 (N,R), of the golden images' maps, with weights of 1.
    """

    labels: NDArray[np.uint8]
    golden_scores: NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """The part that others are brought to, and parts that were, to check an aligner with.

    Attributes:
        reference: uint8 (h,w), grey, of `Alignment.working_size`.
        golden_images: uint8 (K,h,w), grey, as the camera saw them.
        golden_aligned: uint8 (K,h,w), as they were brought to the reference.
        golden_correlations: float32 (K,), of these with it.
    """

    reference: NDArray[np.uint8]
    golden_images: NDArray[np.uint8]
    golden_aligned: NDArray[np.uint8]
    golden_correlations: NDArray[np.float32]


class Bundle:
    """An opened bundle: a validated manifest, and files that are hashed when they are read.

    Attributes:
        path: of the folder.
        manifest: what it says.
        manifest_sha256: of the file, which has the hashes of all others in it.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a bundle.

        Raises:
            BundleError: it is missing, malformed, or of an unknown version.
        """
        self.path = Path(path)
        self._folder = self.path.absolute()  # a forked worker may have changed its folder
        if not self.path.is_dir():
            raise BundleError(f"{self.path}: there is no such bundle; expected a folder NAME.stpm.")
        content = _read_bounded(self.path / MANIFEST, MAX_MANIFEST_BYTES)
        self.manifest = _manifest(self.path / MANIFEST, content)
        self.manifest_sha256 = hashlib.sha256(content).hexdigest()

    def read(self, name: str) -> bytes:
        """Read a file of the bundle; only bytes that match the manifest's hash are returned.

        Raises:
            BundleError: the file is not listed, missing, or altered.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: its manifest does not list {name}; export it again.")
        content = _read_bounded(self._folder / name, entry.size_bytes)
        if len(content) != entry.size_bytes or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.path / name}: differs from the manifest's hash, so it was modified "
                "or truncated; copy or export the bundle again."
            )
        return content

    def golden(self) -> Golden:
        """Read the golden images with their expected maps and scores.

        Raises:
            BundleError: they are malformed or do not fit the manifest.
        """
        names = ("images", "anomaly_maps", "pred_scores")
        arrays = _npz(self.path / GOLDEN, self.read(GOLDEN), names)
        count = max(1, len(arrays["images"]) if arrays["images"].ndim else 0)
        expected: dict[str, _Array] = {
            "images": ((count, *self.manifest.golden_size, self.manifest.input.channels), np.uint8),
            "anomaly_maps": ((count, *self.manifest.golden_map_size), np.float32),
            "pred_scores": ((count,), np.float32),
        }
        self._check_arrays(GOLDEN, arrays, expected)
        return Golden(**arrays)

    def scoring_map(self) -> ScoringMap:
        """Read where maps are scored; for a manifest whose `scoring` is not the graph's own.

        Raises:
            BundleError: it is malformed or does not fit the manifest.
        """
        arrays = _npz(self.path / SCORING, self.read(SCORING), ("labels", "golden_scores"))
        count = max(1, len(self.manifest.scoring.rois))
        scores = arrays["golden_scores"]
        images = max(1, len(scores) if scores.ndim else 0)
        expected: dict[str, _Array] = {
            "labels": (self.manifest.map_size, np.uint8),
            "golden_scores": ((images, count), np.float32),
        }
        self._check_arrays(SCORING, arrays, expected)
        found = set(np.unique(arrays["labels"]).tolist()) - {0}
        if found != set(range(1, count + 1)):
            raise BundleError(
                f"{self.path / SCORING}: labels contains the regions {sorted(found)}, "
                f"expected all of 1 to {count}; calibrate or export the bundle again."
            )
        return ScoringMap(**arrays)

    def reference(self) -> Reference:
        """Read what parts are brought to; for a manifest whose `scoring` has `align`.

        Raises:
            BundleError: it is malformed or does not fit the manifest.
        """
        align = self.manifest.scoring.align
        assert align is not None
        names = tuple(field.name for field in fields(Reference))
        arrays = _npz(self.path / ALIGN, self.read(ALIGN), names)
        goldens = arrays["golden_images"]
        count = max(1, len(goldens) if goldens.ndim else 0)
        expected: dict[str, _Array] = {
            "reference": (align.working_size, np.uint8),
            "golden_images": ((count, *align.working_size), np.uint8),
            "golden_aligned": ((count, *align.working_size), np.uint8),
            "golden_correlations": ((count,), np.float32),
        }
        self._check_arrays(ALIGN, arrays, expected)
        return Reference(**arrays)

    def _check_arrays(
        self, file: str, arrays: Mapping[str, NDArray[Any]], expected: Mapping[str, _Array]
    ) -> None:
        for name, (shape, dtype) in expected.items():
            if arrays[name].shape != shape or arrays[name].dtype != dtype:
                raise BundleError(
                    f"{self.path / file}: got {name} {arrays[name].dtype}{arrays[name].shape}, "
                    f"expected {np.dtype(dtype)}{shape}; export the bundle again."
                )


def write_bundle(
    path: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    check: Callable[[Path], None] = lambda _: None,
) -> Manifest:
    """Write a bundle in one step: a reader sees the old folder, none, or the whole new one.

    Args:
        path: the folder; replaced if it exists.
        manifest: its `files` are filled in here.
        files: content by name.
        check: called with the whole folder before it takes the place of the old one; what it
            raises leaves that as it is.

    Returns:
        The manifest as written.

    Raises:
        BundleError: the path is a folder of something else.
    """
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise BundleError(f"{path}: is a folder but not a bundle; choose another name.")
    for leftover in leftovers(path, "old"):
        if not path.exists():
            leftover.rename(path)  # a process was killed between two steps of replacing it
    partial, old = (partial_path(path, kind) for kind in ("partial", "old"))
    entries = {
        name: FileEntry(hashlib.sha256(content).hexdigest(), len(content))
        for name, content in files.items()
    }
    complete = replace(manifest, files=entries)
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            (partial / name).write_bytes(content)
        (partial / MANIFEST).write_text(complete.to_json(), encoding="utf-8")
        check(partial)
        if path.is_dir():
            path.rename(old)
        partial.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)
    return complete


def check_readable(path: Path) -> None:
    """Open a bundle whole, as a reader will; BundleError where one would refuse it."""
    bundle = Bundle(path)
    bundle.golden()
    if not bundle.manifest.scoring.is_graphs:
        bundle.scoring_map()
    if bundle.manifest.scoring.align is not None:
        bundle.reference()
    for name in bundle.manifest.files:
        bundle.read(name)


def npz_bytes(arrays: Golden | ScoringMap | Reference) -> bytes:
    """Return the content of golden.npz, scoring.npz or align.npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(arrays))
    return buffer.getvalue()


def _read_bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"{path}: cannot be read ({reason}); copy the bundle again.") from error


def _npz(path: Path, content: bytes, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_GOLDEN_BYTES:
            raise ValueError(f"{size} bytes, expected at most {MAX_GOLDEN_BYTES}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in names}
    except Exception as error:
        # zipfile, zlib and numpy raise many kinds of error for damaged content.
        raise BundleError(f"{path}: malformed ({error}); export the bundle again.") from error


def _manifest(path: Path, content: bytes) -> Manifest:
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{path}: is larger than {MAX_MANIFEST_BYTES} bytes, so it is not a manifest; export "
            "the bundle again."
        )
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is not JSON ({error}); export the bundle again.") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if type(version) is not int or version not in READ_VERSIONS:
        raise BundleError(
            f"{path}: got schema version {brief(version)}, expected "
            f"{' or '.join(map(str, READ_VERSIONS))}; use the stpm version that wrote it, or "
            "export again."
        )
    try:
        return parse_manifest(values)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    except (KeyError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{path}: malformed ({_reason(error)}); export the bundle again."
        ) from error


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
