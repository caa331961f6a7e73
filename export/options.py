"""What to build: the options of an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stpm.runtime.backends.tensorrt.build import BuildOptions
from stpm.runtime.images.preprocess import FULL_DEPTH
from stpm.runtime.site.align import LIMIT


@dataclass(frozen=True)
class ExportOptions:
    """What to build.

    Attributes:
        precision: of teacher and student: "fp32", "fp16", "bf16" or "int8".
        distil: in INT8, epochs of fine-tuning the student; see `stpm.export.int8.distil`.
        camera_size: (height, width) to resize from inside the graph; None resizes on the host.
        tile: side in pixels of the tiles that large images are cut into; 0 takes them whole.
        grey: whether images have one plane, for grey cameras.
        batch: smallest and largest batch, with `tile` of tiles.
        false_alarm_rate: wished; None takes 1 %, or the smallest that the images support.
        engines: to verify and calibrate; None takes all that are installed and can run the graph.
        rois: regions of interest, "[NAME=]FILE"; see `stpm.runtime.site.rois`.
        ignored: files of what does not count.
        min_area: smallest defect that counts, in pixels of the image; 0 for any.
        align: image of a good part that others are brought to; None takes images as they are.
        align_limit: how far they may lie from it; see `stpm.runtime.site.align.Limit`.
        bit_depth: of deep images; the checkpoint's, whatever is given.
        build: how TensorRT engines are built.
    """

    precision: str = "fp32"
    distil: int = 0
    camera_size: tuple[int, int] | None = None
    tile: int = 0
    grey: bool = False
    batch: tuple[int, int] = (1, 1)
    false_alarm_rate: float | None = None
    engines: tuple[str, ...] | None = None
    rois: tuple[str, ...] = ()
    ignored: tuple[Path, ...] = ()
    min_area: int = 0
    align: Path | None = None
    align_limit: str = LIMIT
    bit_depth: int = FULL_DEPTH
    build: BuildOptions = field(default_factory=BuildOptions)
