"""ShanghaiTech Campus: videos of 13 scenes as frames, with a mask for each test frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from stpm.runtime.errors import DataError
from stpm.runtime.images.listing import folders_in, list_images
from stpm.train.datasets.images import open_array
from stpm.train.datasets.samples import ANOMALY, GOOD, Sample

ALL = "all"
"""The category of all scenes together."""


@dataclass(frozen=True)
class ShanghaiTechCategory:
    """A scene of ShanghaiTech Campus (`01`), or all of them (`all`). See `Category`.

    A frame's label is that of `test_frame_mask`, its mask that of `test_pixel_mask`, also where
    the two disagree.
    """

    LAYOUT: ClassVar[str] = "ShanghaiTech Campus: training/frames and testing/frames"

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / "training" / "frames"

    @staticmethod
    def recognises(root: Path) -> bool:
        training = root / "training"
        return (root / "testing" / "frames").is_dir() or any(
            (training / name).is_dir() for name in ("frames", "videos")
        )

    @staticmethod
    def names(root: Path) -> list[str]:
        parts = [root / part / "frames" for part in ("training", "testing")]
        videos = [video for part in parts if part.is_dir() for video in folders_in(part)]
        scenes = {video.name.partition("_")[0] for video in videos if "_" in video.name}
        return [*sorted(scenes), ALL]

    def good_images(self) -> list[Path]:
        if not self.folder.is_dir() and (self.root / "training" / "videos").is_dir():
            raise DataError(
                f"{self.folder}: there is no such folder, only training/videos; extract the "
                "frames of each video with: ffmpeg -i videos/01_001.avi -q:v 2 -start_number 0 "
                "frames/01_001/%03d.jpg"
            )
        return [frame for video in self._videos(self.folder) for frame in _frames(video)]

    def test_samples(self) -> list[Sample]:
        testing = self.root / "testing"
        samples = []
        for video in self._videos(testing / "frames"):
            frames = _frames(video)
            labels = _per_frame(testing / "test_frame_mask" / f"{video.name}.npy", len(frames), 1)
            masks = testing / "test_pixel_mask" / f"{video.name}.npy"
            _per_frame(masks, len(frames), 3)
            samples += [
                Sample(frame, ANOMALY if label else GOOD, masks / str(i), True, video.name)
                for i, (frame, label) in enumerate(zip(frames, labels, strict=True))
            ]
        return samples

    def _videos(self, folder: Path) -> Iterator[Path]:
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder; extract the data set again.")
        videos = folders_in(folder)
        chosen = [p for p in videos if self.name in (ALL, p.name.partition("_")[0])]
        if not chosen:
            raise DataError(f"{folder}: contains no videos of scene {self.name}; extract it again.")
        yield from chosen


def _frames(video: Path) -> list[Path]:
    # Numbers have at least three digits: 1000 comes after 999.
    return sorted(list_images(video), key=lambda path: (len(path.stem), path.stem))


def _per_frame(path: Path, frame_count: int, dimensions: int) -> NDArray[Any]:
    array = open_array(path)
    if array.ndim != dimensions or len(array) != frame_count:
        raise DataError(
            f"{path}: has shape {array.shape}, expected {dimensions} dimensions of which the first "
            f"counts {frame_count} frames; extract it again."
        )
    return array
