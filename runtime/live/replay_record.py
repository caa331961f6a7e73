"""Score the images of a record again, and say what differs: `stpm-run --replay`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.live.read_record import LAST, PATTERN, read_record, record_files
from stpm.runtime.live.verdict import Entry, pixels_hash
from stpm.runtime.output.map_score import UNALIGNED_SCORE

DECIDED = ("ok", "warn", "anomalous", "unaligned")
"""Verdicts that a bundle comes to."""


@dataclass
class Replayed:
    """How a record stood against a bundle.

    Attributes:
        same: verdicts that came out as recorded, with scores within the bundle's tolerance.
        different: those that did not, or whose image is another now.
        missing: images that were not kept.
        unscored: entries without a score: dropped frames, unreadable files.
        problem: what is wrong with the record itself; "" for a sound one.
    """

    same: int = 0
    different: int = 0
    missing: int = 0
    unscored: int = 0
    problem: str = ""

    @property
    def holds(self) -> bool:
        """Whether the record is sound, and nothing of it came out otherwise."""
        return not self.problem and not self.different


def replay(detector: Detector, path: Path, say: Callable[[str], None]) -> Replayed:
    """Score a record's images again.

    Args:
        detector: with the bundle of the record, or the one to try.
        path: of the record; see `read_record`.
        say: told of every line that differs.

    Raises:
        DataError: there is no record.
    """
    if path.is_dir() and not record_files(path) and not (path / LAST).exists():
        raise DataError(
            f"{path}: contains no record, expected {PATTERN} as stpm-live writes them; check the "
            "path."
        )
    found = Replayed()
    for line in read_record(path):
        if line.problem:
            found.problem = f"{line.place} {line.problem}"
            say(found.problem)
        elif line.entry["verdict"] not in DECIDED:
            found.unscored += 1
        elif not (image := kept_image(path, line.entry)).is_file():
            found.missing += 1
        else:
            difference = _difference(detector, image, line.entry)
            found.same += not difference
            found.different += bool(difference)
            if difference:
                say(f"{line.place} {line.entry['image']}: {difference}")
    return found


def kept_image(record: Path, entry: Entry) -> Path:
    """Return the file of an image: the frame that was kept, or the file that was scored."""
    folder = record if record.is_dir() else record.parent
    return folder / entry["kept"] if "kept" in entry else Path(entry["image"])


def _difference(detector: Detector, path: Path, entry: Entry) -> str:
    contract = detector.bundle.manifest.input
    try:
        image = load_image(path, contract.bit_depth, contract.channels)
    except DataError as error:
        return str(error)
    if pixels_hash(image) != entry["sha256"]:
        return "the image has other pixels than it had"
    result = detector(image)
    tolerance = detector.bundle.manifest.tolerance
    recorded = entry.get("score", UNALIGNED_SCORE)
    differs = abs(result.score - recorded) > tolerance * abs(recorded)
    if result.verdict == entry["verdict"] and not differs:
        return ""
    return (
        f"{result.verdict} with {result.score:.6g}, recorded {entry['verdict']} with {recorded:.6g}"
    )
