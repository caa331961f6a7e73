"""Result files: JSON of a known kind, checked and written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stpm.benchmarks.records.accuracy import AccuracyRecord
from stpm.benchmarks.records.device import DeviceRecord
from stpm.benchmarks.records.drift import DriftRecord
from stpm.benchmarks.records.fleet import FleetRecord, FleetScalingRecord
from stpm.benchmarks.records.header import SCHEMA_VERSION
from stpm.benchmarks.records.live import LiveRecord
from stpm.benchmarks.records.plan import PlanRecord
from stpm.benchmarks.records.serving import ServingRecord
from stpm.benchmarks.records.shadow import ShadowRecord
from stpm.benchmarks.records.speed import LatencyRecord, PeersRecord
from stpm.benchmarks.records.studies import (
    AblationLine,
    AlignmentRecord,
    GraphAblationRecord,
    ImageScoresRecord,
    LibstpmRecord,
    LowPrecisionRecord,
    TrainingSpeedRecord,
)
from stpm.benchmarks.records.tiles import TilesRecord
from stpm.runtime.errors import DataError
from stpm.runtime.partial import partial_path
from stpm.runtime.store import on_disk

Record = (
    AccuracyRecord
    | LatencyRecord
    | PeersRecord
    | TilesRecord
    | DeviceRecord
    | LowPrecisionRecord
    | GraphAblationRecord
    | ImageScoresRecord
    | LibstpmRecord
    | TrainingSpeedRecord
    | ServingRecord
    | FleetRecord
    | LiveRecord
    | PlanRecord
    | ShadowRecord
    | DriftRecord
    | FleetScalingRecord
    | AlignmentRecord
)
KINDS: dict[str, Any] = {
    "accuracy": AccuracyRecord,
    "latency": LatencyRecord,
    "peers": PeersRecord,
    "tiles": TilesRecord,
    "device": DeviceRecord,
    "low_precision": LowPrecisionRecord,
    "graph_ablation": GraphAblationRecord,
    "image_scores": ImageScoresRecord,
    "libstpm": LibstpmRecord,
    "training_speed": TrainingSpeedRecord,
    "serving": ServingRecord,
    "fleet": FleetRecord,
    "live": LiveRecord,
    "plan": PlanRecord,
    "shadow": ShadowRecord,
    "drift": DriftRecord,
    "fleet_scaling": FleetScalingRecord,
    "alignment": AlignmentRecord,
}
"""Every kind of result file, in the order of the report."""


class OtherKindError(DataError):
    """A file that is no result file of a known kind."""


def check_out(path: Path | None) -> None:
    """Refuse a file that could not be written, before any work.

    Raises:
        DataError: its folder is missing, or in a store.
    """
    on_disk(path)
    if path is not None and not path.absolute().parent.is_dir():
        raise DataError(f"{path.parent}: there is no such folder; create it first.")


def checked(content: Mapping[str, Any]) -> Any:
    """Return a new result as a record of its kind.

    Args:
        content: `header` and what its kind holds.

    Raises:
        msgspec.ValidationError: it is not what its kind holds.
    """
    return msgspec.convert(content, KINDS[content["kind"]])


def write_result(path: Path, content: Mapping[str, Any] | Record) -> None:
    """Write a result file in one step; see `checked`."""
    write_whole(path, json.dumps(checked(content), indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    partial = partial_path(path)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_result(path: Path) -> Record:
    """Read a result file.

    Raises:
        DataError: it is missing, no JSON, or lacks what its kind holds.
        OtherKindError: it is of another kind or version than those of `KINDS`.
    """
    content = _json(path)
    found = content if isinstance(content, dict) else {}
    version, kind = found.get("schema_version"), found.get("kind")
    if version != SCHEMA_VERSION or kind not in KINDS:
        raise OtherKindError(
            f"{path}: got a file of kind {kind!r} and version {version!r}, expected "
            f"{', '.join(KINDS)} of version {SCHEMA_VERSION}; write it again with stpm-bench."
        )
    try:
        record: Record = msgspec.convert(found, KINDS[kind])
    except msgspec.ValidationError as error:
        raise DataError(
            f"{path}: is not a result of kind {kind!r} ({error}); write it again."
        ) from error
    return record


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise DataError(
            f"{path}: is not JSON ({error}), expected a file written by --out; name another."
        ) from error


def read_lines(path: Path) -> list[AblationLine]:
    """Read a file of ablations, which has a JSON object a line.

    Raises:
        DataError: it cannot be read, or a line is no result of an ablation.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise DataError(
            f"{path}: is not text ({error}), expected lines of JSON; name another."
        ) from error
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(msgspec.json.decode(text, type=AblationLine))
        except msgspec.DecodeError as error:
            raise DataError(
                f"{path}: line {number} is not a result of an ablation ({error}); remove that line."
            ) from error
    return lines
