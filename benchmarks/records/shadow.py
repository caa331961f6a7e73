"""Two bundles on one archive as they are kept: `stpm-bench shadow`."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from stpm.benchmarks.records.accuracy import Interval
from stpm.benchmarks.records.header import Header

Verdict = Literal["ok", "warn", "anomalous", "unaligned"]


class Judge(TypedDict):
    """A bundle, and what it decides by."""

    name: str
    engine: str
    threshold: float
    warn_threshold: float | None


class Opinion(TypedDict):
    """What a bundle says of an image."""

    score: float
    verdict: Verdict


class JudgedImage(TypedDict):
    """An image, and what both bundles say of it.

    Attributes:
        kind: "good", or of the defect; absent where the archive has no labels.
    """

    name: str
    old: Opinion
    new: Opinion
    kind: NotRequired[str]


class Unscored(TypedDict):
    """An image that could not be scored, and why."""

    name: str
    reason: str


class Change(TypedDict):
    """Images that were decided one way and would now be decided another.

    Attributes:
        old, new: verdicts.
        count: of images.
        interval: of their share of all, 95% by Clopper and Pearson.
    """

    old: Verdict
    new: Verdict
    count: int
    interval: Interval


class Contest(TypedDict):
    """A paired comparison, of which only the images that differ count.

    Attributes:
        group: "all", "good" or "defective" images.
        images: of the group.
        newly_rejected, newly_passed: that only the new bundle, and only the old one rejects.
        p_value: that their numbers differ so much by chance, by McNemar's exact test.
        interval: of the true share of newly rejected ones among those that differ.
    """

    group: str
    images: int
    newly_rejected: int
    newly_passed: int
    p_value: float
    interval: Interval


class ShadowPicture(TypedDict):
    """A picture of an image that is decided otherwise, by its path."""

    picture: str
    image: str
    caption: str


class ShadowRecord(Header):
    """A result of kind "shadow".

    Attributes:
        archive: what it was: a folder, a record, or a category's labelled test images.
        images: those that are decided otherwise first, the worst of them first.
        not_kept: images that a record names and that are not there any more.
        left_out: other files, and lines of a record without a score, by what they are.
        unscored: images that could not be scored.
        gallery: of what changed, the worst first.
    """

    kind: Literal["shadow"]
    archive: str
    old: Judge
    new: Judge
    images: list[JudgedImage]
    not_kept: int
    left_out: dict[str, int]
    unscored: list[Unscored]
    changes: list[Change]
    contests: list[Contest]
    gallery: list[ShadowPicture]
