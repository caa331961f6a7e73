"""SPADE (arXiv 2005.02357): nearest neighbours among the features of normal images.

An image's score is its mean squared distance to its K nearest normal images, by the features that
the backbone pools at its end; a pixel's is the squared distance to the nearest feature vector at
any pixel of those K, by all levels concatenated, smoothed by a Gaussian. Nothing is trained: what a
checkpoint keeps as the student is the gallery. The reference searches with FAISS. The deployment
graph holds the gallery and searches with matrix products, so that a bundle runs on every engine,
and in C, as STPM's does, and export compares the two. Both are exact, and hold one normal image at
a time.

Compared with byungjae89/SPADE-pytorch (commit 077c67b) and rvorias/ind_knn_ad (commit 05f4617),
which agree with the above on what is pooled, the mean over K, the one nearest vector, bilinear
upsampling before the smoothing, and its 4 pixels. Both deviate: K is 5, they search each level by
itself and add the levels' distances, and they take roots of all distances.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.runtime.errors import CheckpointError, StpmError
from stpm.train.backbones import (
    BACKBONES,
    FeaturePyramid,
    StateDict,
    check_levels,
    levels_of,
    load_state,
    load_teacher,
    pyramid,
)
from stpm.train.epochs import EpochRecord
from stpm.train.methods.contract import Method, Network, TeacherSource, Upsample, interpolate_to
from stpm.train.methods.smoothing import Smoothing
from stpm.train.options import FitOptions
from stpm.train.run_state import RunState

MAX_GALLERY_BYTES = 1 << 30
"""A graph is one ONNX file, and those end at 2 GiB."""


@dataclass(frozen=True)
class SpadeConfig:
    """What fixes the search; see `Config`.

    Attributes:
        input_size: (height, width) in pixels of the image that the backbone sees.
        backbone: a key of `BACKBONES`. The paper's is wide_resnet50_2.
        levels: whose features a pixel is described by, the largest first.
        image_level: whose features, averaged over the image, describe the image.
        neighbours: K.
    """

    input_size: tuple[int, int] = (256, 256)
    backbone: str = "resnet18"
    levels: tuple[str, ...] = ("layer1", "layer2", "layer3")
    image_level: str = "layer4"
    neighbours: int = 50
    method: str = "spade"

    def check(self) -> None:
        """Refuse what cannot be built."""
        check_levels(self.backbone, self.levels)
        known = levels_of(self.backbone)
        if self.image_level not in known:
            raise CheckpointError(
                f"got image-level {self.image_level}, expected one of {', '.join(known)} for "
                f"{self.backbone}; change it with --set."
            )
        if list(self.levels) != sorted(self.levels):
            raise CheckpointError(
                f"got levels {','.join(self.levels)}, expected the largest maps first; "
                "reorder them."
            )
        if self.neighbours < 1:
            raise CheckpointError(
                f"got {self.neighbours} neighbours, expected at least 1; raise it."
            )

    @property
    def taps(self) -> tuple[str, ...]:
        """The levels that the backbone gives: those of pixels, and the one of the image."""
        return tuple(dict.fromkeys((*self.levels, self.image_level)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or `torch.save`."""
        return asdict(self)


class Gallery(nn.Module):
    """The features of the normal images in FP16, which both searches then take for exact.

    Levels are kept at their own size, a quarter of what they would take upsampled to the largest.
    """

    pooled: Tensor

    def __init__(self, pooled: Tensor, levels: Sequence[Tensor]) -> None:
        super().__init__()
        self.count = len(levels)
        self.register_buffer("pooled", pooled)
        for i, level in enumerate(levels):
            self.register_buffer(f"level{i}", level)

    def levels(self) -> list[Tensor]:
        """Return the features float16 (images,C,h,w) a level."""
        return [self.get_buffer(f"level{i}") for i in range(self.count)]


class Spade(Network):
    """A pre-trained backbone and a gallery."""

    networks = ("teacher",)
    teacher: FeaturePyramid
    student: Gallery

    def __init__(self, config: SpadeConfig, teacher: FeaturePyramid, gallery: Gallery) -> None:
        spec = BACKBONES[config.backbone]
        super().__init__(teacher, gallery, spec.mean, spec.std)
        self.config = config
        self.smoothing = Smoothing(config.input_size)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.config.input_size

    def score(
        self, features: Sequence[Sequence[Tensor]], upsample: Upsample
    ) -> tuple[Tensor, Tensor]:
        """Search with matrix products: what engines run; see `Network.score`.

        |q - g|^2 from |g|^2 - 2 q g loses the digits that both terms share, so it only says which
        vector is nearest; the distance to that one is then summed up from differences.
        """
        levels, pooled = self._split(features[0])
        scores, nearest = self.nearest_images(pooled)
        query = pixel_features(levels)
        centre = query.mean(dim=(2, 3), keepdim=True)  # shorter vectors lose fewer digits
        height, width = query.shape[2:]
        queries = (query - centre).flatten(2).transpose(1, 2)
        best: Tensor | None = None
        for k in range(nearest.shape[1]):
            chosen = [level[nearest[:, k]].float() for level in self.student.levels()]
            gallery = (pixel_features(chosen) - centre).flatten(2)
            partial = gallery.square().sum(dim=1, keepdim=True) - 2 * (queries @ gallery)
            # Not argmin, for which OpenVINO takes half as long again as for the product.
            index = partial.topk(1, dim=2, largest=False).indices
            vectors = torch.take_along_dim(gallery.transpose(1, 2), index, dim=1)
            distances = (queries - vectors).square().sum(dim=2)
            best = distances if best is None else torch.minimum(best, distances)
        assert best is not None, "there is at least one neighbour"
        return self._smoothed(best.reshape(-1, 1, height, width), upsample), scores

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Search with FAISS; see `Network.forward`."""
        levels, pooled = self.describe(images)
        scores, nearest = self.nearest_images(pooled)
        queries = pixel_features(levels)
        distances = [
            self._search(query, chosen) for query, chosen in zip(queries, nearest, strict=True)
        ]
        maps = self._smoothed(torch.stack(distances), interpolate_to(self.input_size))
        return maps, scores

    def nearest_images(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared distance to the K nearest images (N,), and their index (N,K)."""
        difference = pooled[:, None] - self.student.pooled.float()
        distances = difference.square().sum(dim=2)
        count = min(self.config.neighbours, len(self.student.pooled))
        nearest, index = distances.topk(count, dim=1, largest=False)
        return nearest.mean(dim=1), index

    def describe(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the levels that describe pixels, and the pooled vector that describes an image."""
        return self._split(self.teacher(self.normalise(images)))

    def _search(self, query: Tensor, chosen: Tensor) -> Tensor:
        faiss = _faiss()
        centre = query.mean(dim=(1, 2), keepdim=True)  # as in `score`, and so is what follows
        queries = np.ascontiguousarray((query - centre).flatten(1).T.numpy())
        best = np.full(len(queries), np.inf, np.float32)
        for image in chosen:
            levels = [level[image][None].float() for level in self.student.levels()]
            gallery = np.ascontiguousarray(
                (pixel_features(levels)[0] - centre).flatten(1).T.numpy()
            )
            _, index = faiss.knn(queries, gallery, 1)
            distances = np.square(queries - gallery[index[:, 0]]).sum(axis=1)
            best = np.minimum(best, distances)
        return torch.from_numpy(best).view(1, *query.shape[1:])

    def _split(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Separate the backbone's levels into those of pixels and the pooled one, float32 (N,C)."""
        by_name = dict(zip(self.config.taps, features, strict=True))
        pooled = by_name[self.config.image_level].float().mean(dim=(2, 3))
        return [by_name[name] for name in self.config.levels], pooled

    def _smoothed(self, distances: Tensor, upsample: Upsample) -> Tensor:
        smoothed: Tensor = self.smoothing(upsample(distances))
        return smoothed


def pixel_features(levels: Sequence[Tensor]) -> Tensor:
    """Describe each position of the largest level by all levels, float32 (N,C,h,w)."""
    height, width = levels[0].shape[2:]
    return torch.cat([_resized(level.float(), height, width) for level in levels], dim=1)


def _resized(level: Tensor, height: int, width: int) -> Tensor:
    """Upsample bilinearly as products with constant matrices, which every engine computes alike."""
    if level.shape[2:] == (height, width):
        return level
    rows = _bilinear(level.shape[2], height).to(level.device)
    columns = _bilinear(level.shape[3], width).to(level.device)
    return rows @ level @ columns.T


def _bilinear(size: int, target: int) -> Tensor:
    identity = torch.eye(size)[None, None]
    return F.interpolate(identity, (target, size), mode="bilinear", align_corners=False)[0, 0]


class SpadeTrainer(RunState):
    """Fills the gallery in one epoch; see `Trainer`."""

    def __init__(
        self,
        network: Spade,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> None:
        super().__init__(options)
        self.network = network.to(self.device)
        self._train, self._held_out = train_images, held_out_images

    @property
    def image_counts(self) -> tuple[int, int]:
        """Numbers of images in the gallery, and held out."""
        return len(self._train), len(self._held_out)

    def prepare(self, on_images: Callable[[int], None]) -> str:
        """Check that the gallery will fit; returns a line about it."""
        one = [level[0].numel() * 2 for level in self._describe(self._train[:1])[0]]
        size = sum(one) * len(self._train)
        if size > MAX_GALLERY_BYTES:
            fitting = MAX_GALLERY_BYTES // sum(one)
            raise StpmError(
                f"the gallery of {len(self._train)} images takes {size / 1e6:.0f} MB, "
                f"expected at most {MAX_GALLERY_BYTES / 1e6:.0f} MB; train on "
                f"{fitting} images or with a smaller --input-size."
            )
        on_images(sum(self.image_counts))
        return f"gallery of {len(self._train)} images, {size / 1e6:.0f} MB"

    @torch.no_grad()
    def run_epoch(self, on_step: Callable[[int], None] = lambda _: None) -> EpochRecord:
        """Fill the gallery; the held-out value is the mean image score."""
        start = time.perf_counter()
        levels: list[list[Tensor]] = []
        pooled: list[Tensor] = []
        for first in range(0, len(self._train), self.options.batch_size):
            features, image = self._describe(self._train[first : first + self.options.batch_size])
            levels.append([level.half().cpu() for level in features])
            pooled.append(image.half())
            on_step(len(image))
        whole = [torch.cat(parts) for parts in zip(*levels, strict=True)]
        self.network.student = Gallery(torch.cat(pooled), whole).to(self.device)
        scores = [
            self.network.nearest_images(self._describe(image[None])[1])[0]
            for image in self._held_out
        ]
        held_out = float(torch.cat(scores).mean())
        is_best = self.finish_epoch(held_out, self.network.student)
        return EpochRecord(1, 0.0, held_out, is_best, time.perf_counter() - start, {})

    @torch.no_grad()
    def _describe(self, images: NDArray[np.uint8]) -> tuple[list[Tensor], Tensor]:
        return self.network.describe(torch.from_numpy(images).to(self.device))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise StpmError(
            "SPADE's reference searches with FAISS, which is not installed; run "
            "pip install 'stpm[spade]'."
        ) from None
    return faiss


class SpadeMethod(Method):
    """See `stpm.train.methods.Method`."""

    config = SpadeConfig
    recipes: ClassVar = {"paper": FitOptions(epochs=1, batch_size=8)}
    ignores = frozenset(
        {
            "--augment",
            "--learning-rate",
            "--cooldown",
            "--share-to",
            "--from",
            "--precision",
            "--cache-gb",
            "--compile",
        }
        | {"--teacher-images", "--teacher-folder", "--tile"}
    )

    def blank(
        self,
        config: SpadeConfig,
        options: FitOptions,  # noqa: ARG002, nothing is drawn at random
        source: TeacherSource,
    ) -> tuple[Spade, dict[str, str]]:
        """Put an empty gallery beside the pre-trained backbone."""
        try:
            teacher, teacher_id = load_teacher(config.backbone, config.taps, source.weights)
        except CheckpointError as error:
            if config.image_level in config.levels:
                raise
            raise CheckpointError(
                f"{error} Or, if the file ends before {config.image_level}, choose a level "
                f"that it contains: --set image-level={config.levels[-1]}."
            ) from error
        return Spade(config, teacher, Gallery(torch.empty(0), [])), teacher_id

    def network(self, config: SpadeConfig, teacher: StateDict, student: StateDict) -> Spade:
        """Build the backbone with these weights, and the gallery as it was kept."""
        built = pyramid(config.backbone, config.taps)
        load_state(built, teacher, "the checkpoint's teacher")
        try:
            levels = [student[f"level{i}"] for i in range(len(config.levels))]
            return Spade(config, built, Gallery(student["pooled"], levels))
        except KeyError as error:
            raise CheckpointError(
                f"the checkpoint's gallery lacks {error}; train again."
            ) from error

    def trainer(
        self,
        network: Spade,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> SpadeTrainer:
        """Fill the gallery with the training images."""
        return SpadeTrainer(network, train_images, held_out_images, options)


METHOD = SpadeMethod()
