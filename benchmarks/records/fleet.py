"""A fleet as it is kept: `stpm-fleet train`."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header


class Doubtful(TypedDict):
    """A test image that is nearest to the wrong verdict, or has it: kind of defect and name."""

    name: str
    score: float


class FleetModel(TypedDict):
    """A product, camera and seed; the figures of one that failed are absent, its reason is `error`.

    Attributes:
        camera, category: of its images; absent in files that were written before there were any,
            empty where it has none.
        seconds: that its last worker took.
        reused: whether it was done in an earlier run.
        threshold, false_alarm_rate: of the bundle's first engine, `engine`.
        figures: image_auroc, pixel_auroc and aupro; empty without labelled images.
        doubtful: good parts from the highest score down and defects from the lowest up, in turn.
    """

    name: str
    product: str
    seed: int
    camera: NotRequired[str]
    category: NotRequired[str]
    seconds: float
    reused: bool
    error: NotRequired[str]
    key: NotRequired[str]
    engine: NotRequired[str]
    threshold: NotRequired[float]
    false_alarm_rate: NotRequired[float]
    size_bytes: NotRequired[int]
    manifest_sha256: NotRequired[str]
    figures: NotRequired[dict[str, float | None]]
    doubtful: NotRequired[list[Doubtful]]


class FleetRecord(Header):
    """A result of kind "fleet"."""

    kind: Literal["fleet"]
    fleet: Annotated[list[FleetModel], NOT_EMPTY]


class ScoringRun(TypedDict):
    """Images that were scored once over.

    Attributes:
        contender: "one process", or "fleet".
        workers: engines at once, of one processor thread each.
        images, seconds: of a fleet from when each worker has done its first batch; the start and
            the opening of the engines are not in it.
        processor_ms: that a processor computed for an image, in the process or in the workers.
    """

    contender: Literal["one process", "fleet"]
    round: int
    workers: int
    images: int
    seconds: float
    processor_ms: float


class ScalingModel(TypedDict):
    """What so many workers would score, and what holds them back."""

    workers: int
    images_per_second: float
    limit: str


class FleetScalingRecord(Header):
    """A result of kind "fleet_scaling".

    Attributes:
        image_bytes: mean size of a file.
        decode_ms, score_ms: processor time of an image in one process, median over rounds.
        load_average: of the machine's last minute before and after, beside its cores.
        images_per_second, processor_ms: medians, by contender and workers.
        tasks_per_second: that Ray Data hands to workers which do nothing.
        store_gbit, store_requests: a second; stated, not measured.
        archive_images: that the model scores.
        model: from the figures above.
    """

    kind: Literal["fleet_scaling"]
    engine: str
    image_bytes: float
    decode_ms: float
    score_ms: float
    load_average: tuple[float, float]
    runs: Annotated[list[ScoringRun], NOT_EMPTY]
    images_per_second: dict[str, float]
    processor_ms: dict[str, float]
    tasks_per_second: float
    store_gbit: float
    store_requests: float
    archive_images: int
    model: Annotated[list[ScalingModel], NOT_EMPTY]
