"""What would another bundle have decided? Two bundles on the images of an archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from stpm.benchmarks.measure.archive import Archive, Kept, open_archive
from stpm.benchmarks.measure.detection import Share
from stpm.benchmarks.measure.intervals import mcnemar
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.benchmarks.records.shadow import (
    Change,
    Contest,
    Judge,
    JudgedImage,
    Opinion,
    ShadowPicture,
    ShadowRecord,
    Unscored,
    Verdict,
)
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError, about
from stpm.runtime.live.verdict import pixels_hash
from stpm.runtime.output.console import note, progress
from stpm.runtime.output.overlay import side_by_side
from stpm.runtime.output.picture_names import picture_stems
from stpm.runtime.output.result import Result
from stpm.train.datasets import GOOD, read_image, read_mask

VERDICTS: tuple[Verdict, ...] = ("ok", "warn", "anomalous", "unaligned")
"""From the best to the worst."""
MOST_PICTURES = 100


def shadow_result(
    old: Path,
    new: Path,
    archive: Path,
    *,
    category: str | None = None,
    engine: str | None = None,
    gallery: Path | None = None,
) -> ShadowRecord:
    """Score an archive with two bundles, and return the content of a result file.

    Args:
        old, new: bundles.
        archive: see `open_archive`.
        category: of a labelled archive; None takes the one that the new bundle's name begins with.
        engine: of both; None takes the fastest of each.
        gallery: folder for pictures of what changed; None makes none.

    Raises:
        DataError: there is no archive, or none of its images can be scored.
    """
    kept = open_archive(archive, new, category, without=gallery)
    detectors = Detector(old, engine), Detector(new, engine)
    images: list[JudgedImage] = []
    unscored: list[Unscored] = []
    by_name = {image.name: image for image in kept.images}
    with progress("scoring", len(kept.images)) as on_images:
        for image in kept.images:
            try:
                images.append(_judged(image, *_both(detectors, image)))
            except DataError as error:
                unscored.append({"name": image.name, "reason": str(error)})
            on_images(1)
    if not images:
        raise DataError(
            f"{archive}: none of its {len(unscored)} images can be scored; the first: "
            f"{unscored[0]['reason']}"
        )
    judges = [_judge(detector) for detector in detectors]
    changed, same = (
        [i for i in images if (i["old"]["verdict"] != i["new"]["verdict"]) is differs]
        for differs in (True, False)
    )
    changed = worst_first(changed, judges)
    pictures = _pictures(detectors, [by_name[i["name"]] for i in changed], gallery)
    return _record(kept, [old, new], judges, [*changed, *same], unscored, pictures)


def _record(
    kept: Archive,
    bundles: Sequence[Path],
    judges: Sequence[Judge],
    images: Sequence[JudgedImage],
    unscored: Sequence[Unscored],
    pictures: Sequence[ShadowPicture],
) -> ShadowRecord:
    content = header("shadow", bundles) | {
        "archive": kept.title,
        "old": judges[0],
        "new": judges[1],
        "images": images,
        "not_kept": kept.not_kept,
        "left_out": dict(kept.left_out),
        "unscored": unscored,
        "changes": changes(images),
        "contests": contests(images),
        "gallery": pictures,
    }
    record: ShadowRecord = checked(content)
    return record


def _both(detectors: Sequence[Detector], image: Kept) -> list[tuple[Any, Result]]:
    """Read an image as each bundle wants it, and score it; DataError where one cannot."""
    depths = [detector.bundle.manifest.input.bit_depth for detector in detectors]
    read = {depth: read_image(image.path, depth) for depth in dict.fromkeys(depths)}
    if image.pixels and image.pixels not in map(pixels_hash, read.values()):
        raise DataError(f"{image.path}: has other pixels than were recorded; restore it.")
    with about(image.path):
        return [
            (read[depth], detector(read[depth]))
            for depth, detector in zip(depths, detectors, strict=True)
        ]


def _judged(image: Kept, old: tuple[Any, Result], new: tuple[Any, Result]) -> JudgedImage:
    judged: JudgedImage = {
        "name": image.name,
        "old": _opinion(old[1]),
        "new": _opinion(new[1]),
    }
    return judged if image.sample is None else {**judged, "kind": image.sample.kind}


def _told(result: Result) -> str:
    return (
        result.verdict
        if result.verdict == "unaligned"
        else f"{result.verdict} with {result.score:.4g}"
    )


def _opinion(result: Result) -> Opinion:
    return {"score": result.score, "verdict": result.verdict}


def _judge(detector: Detector) -> Judge:
    return {
        "name": detector.bundle.path.name,
        "engine": detector.engine_name,
        "threshold": detector.calibration.image_threshold,
        "warn_threshold": detector.calibration.warn_threshold,
    }


def changes(images: Sequence[JudgedImage]) -> list[Change]:
    """Count what is decided otherwise, by both verdicts, with exact intervals of the shares."""
    found = Counter((image["old"]["verdict"], image["new"]["verdict"]) for image in images)
    return [
        {
            "old": old,
            "new": new,
            "count": found[old, new],
            "interval": Share(found[old, new], len(images)).interval,
        }
        for old in VERDICTS
        for new in VERDICTS
        if old != new and found[old, new]
    ]


def contests(images: Sequence[JudgedImage]) -> list[Contest]:
    """Compare what the two reject, over all images, and apart over good and defective ones."""
    labelled = [image for image in images if "kind" in image]
    good = [image for image in labelled if image["kind"] == GOOD]
    defective = [image for image in labelled if image["kind"] != GOOD]
    groups = {"all": images, "good": good, "defective": defective}
    return [_contest(name, group) for name, group in groups.items() if group or name == "all"]


def _contest(group: str, images: Sequence[JudgedImage]) -> Contest:
    newly = Counter((_rejects(image["old"]), _rejects(image["new"])) for image in images)
    rejected, passed = newly[False, True], newly[True, False]
    return {
        "group": group,
        "images": len(images),
        "newly_rejected": rejected,
        "newly_passed": passed,
        "p_value": mcnemar(rejected, passed),
        "interval": Share(rejected, rejected + passed).interval,
    }


def _rejects(opinion: Opinion) -> bool:
    return opinion["verdict"] in ("anomalous", "unaligned")


def worst_first(images: Iterable[JudgedImage], judges: Sequence[Judge]) -> list[JudgedImage]:
    """Order images by how bad it would be if the new bundle were wrong, and how far it moved.

    Those it is known to be wrong about come first, missed defects before false alarms; then those
    that it passes and the old one does not. The move is that of the score beside its threshold.
    """

    def key(image: JudgedImage) -> tuple[int, float, str]:
        passes = VERDICTS.index(image["new"]["verdict"]) < VERDICTS.index(image["old"]["verdict"])
        is_right = "kind" in image and passes == (image["kind"] == GOOD)
        before, after = (
            _excess(opinion["score"], judge["threshold"])
            for opinion, judge in zip((image["old"], image["new"]), judges, strict=True)
        )
        return 2 * is_right + (not passes), -abs(after - before), image["name"]

    return sorted(images, key=key)


def _excess(score: float, threshold: float) -> float:
    return (score - threshold) / (abs(threshold) or 1.0)


def _pictures(
    detectors: Sequence[Detector], images: Sequence[Kept], folder: Path | None
) -> list[ShadowPicture]:
    """Write input and maps of both bundles, the old one's above, a picture an image."""
    if folder is None:
        return []
    shown = images[:MOST_PICTURES]
    stems = picture_stems([image.path for image in shown])
    pictures: list[ShadowPicture] = []
    for image in shown:
        (before, old), (after, new) = _both(detectors, image)
        path = folder / f"{stems[image.path]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sheets = [
            _sheet(name, pixels, result, image)
            for name, pixels, result in (("old", before, old), ("new", after, new))
        ]
        _above_each_other(sheets).save(path)
        kind = f", {image.sample.kind}" if image.sample else ""
        caption = f"{_told(old)}, now {_told(new)}{kind}"
        pictures.append({"picture": str(path), "image": image.name, "caption": caption})
    of = f"the worst {len(shown)} of {len(images)}" if len(shown) < len(images) else len(shown)
    note(f"{folder}: {of} pictures")
    return pictures


def _sheet(name: str, pixels: Any, result: Result, image: Kept) -> Image.Image:
    defect = image.sample if image.sample and image.sample.is_anomalous else None
    mask = read_mask(defect, result.image_size) if defect else None
    return side_by_side(pixels, result, mask, title=name)


def _above_each_other(sheets: Sequence[Image.Image]) -> Image.Image:
    canvas = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)))
    top = 0
    for sheet in sheets:
        canvas.paste(sheet, (0, top))
        top += sheet.height
    return canvas
