"""STAD's teachers: patch networks that learn to describe the patches of any folder of images.

Losses of arXiv 1911.02357, section 3.1. Lk is that of denguir/student-teacher-anomaly-detection
(commit fc279ef) and LuyaooChen/uninformed-students-pytorch (commit 3c5661e). Their Lc is another:
squared correlations between the descriptors of a batch, where the paper's sums the correlations
between components; neither has Lm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.runtime.errors import CheckpointError
from stpm.train.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LEVELS,
    FeaturePyramid,
    load_teacher,
    state_hash,
)
from stpm.train.datasets import read_image
from stpm.train.methods.contract import Progress
from stpm.train.methods.stad.patch_networks import DESCRIPTOR_SIZE, PatchNetwork
from stpm.train.options import FitOptions
from stpm.train.run_state import autocast_to, resolve_device, resolve_precision

BACKBONE = "resnet18"
ZOOMS = (4, 16)
"""Images are zoomed to a side drawn between these multiples of p."""
GREY_SHARE = 0.1
NOISE_DEVIATION = 0.1
"""Standard deviation of a positive's noise, for pixels in [0, 1]."""
LUMINANCE_RANGE = (0.8, 1.2)
"""Range of the factor on a positive's pixels; the paper does not print one."""
MARGIN = 1.0
"""Margin of the triplet loss; the paper does not print it."""
CACHED_IMAGES = 512
FORMAT_VERSION = 1


@dataclass(frozen=True)
class TeacherOptions:
    """How a patch network is trained; the defaults are the paper's for MVTec AD."""

    steps: int = 50_000
    batch_size: int = 64
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    distillation: float = 1.0
    metric: float = 0.0
    compactness: float = 1.0


class Patches:
    """Draws training patches from images."""

    def __init__(self, paths: Sequence[Path], patch_size: int, seed: int) -> None:
        self._paths = paths
        self._size = patch_size
        self._rng = np.random.default_rng(seed)
        self._image = functools.lru_cache(CACHED_IMAGES)(
            lambda index: Image.fromarray(read_image(paths[index]))
        )

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return anchors, positives and negatives, float32 (count,3,p,p) in [0, 1], RGB.

        A positive is the anchor shifted by up to (p-1)/4, in other light, with noise; a negative
        comes from another image, where there is another.
        """
        triplets = [self._triplet() for _ in range(count)]
        anchors, positives, negatives = (torch.stack(part) for part in zip(*triplets, strict=True))
        return anchors, positives, negatives

    def _triplet(self) -> tuple[Tensor, Tensor, Tensor]:
        rng = self._rng
        chosen = int(rng.integers(len(self._paths)))
        step = int(rng.integers(1, len(self._paths))) if len(self._paths) > 1 else 0
        zoom = self._zoom()
        corner = rng.integers(0, zoom - self._size, 2, endpoint=True)
        reach = (self._size - 1) // 4
        shifted = corner + rng.integers(-reach, reach, 2, endpoint=True)
        grey = rng.random() < GREY_SHARE
        anchor = self._crop(chosen, zoom, corner, grey)
        positive = self._crop(chosen, zoom, shifted.clip(0, zoom - self._size), grey)
        positive = positive * float(rng.uniform(*LUMINANCE_RANGE))
        noise = rng.normal(0, NOISE_DEVIATION, positive.shape).astype(np.float32)
        other = self._zoom()
        place = rng.integers(0, other - self._size, 2, endpoint=True)
        negative = self._crop((chosen + step) % len(self._paths), other, place, grey)
        return anchor, (positive + torch.from_numpy(noise)).clamp(0, 1), negative

    def _zoom(self) -> int:
        low, high = (zoom * self._size for zoom in ZOOMS)
        return int(self._rng.integers(low, high, endpoint=True))

    def _crop(self, index: int, zoom: int, corner: Any, grey: bool) -> Tensor:
        """Cut a patch out of the image zoomed to (zoom, zoom), resizing no more than the patch."""
        image = self._image(index)
        height, width = image.height / zoom, image.width / zoom
        top, left = float(corner[0]) * height, float(corner[1]) * width
        box = (
            *(left, top),
            min(left + self._size * width, image.width),
            min(top + self._size * height, image.height),
        )
        patch = image.resize((self._size, self._size), Image.Resampling.BILINEAR, box)
        if grey:
            patch = patch.convert("L").convert("RGB")
        return torch.from_numpy(np.array(patch)).permute(2, 0, 1).float() / 255


def normalise(patches: Tensor) -> Tensor:
    """Bring patches (N,3,p,p) in [0, 1] to the range of the networks."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (patches * 255 - mean) / std


def distillation_loss(decoded: Tensor, features: Tensor) -> Tensor:
    """Lk: squared distance of decoded descriptors (N,C) to the backbone's features (N,C)."""
    return (decoded - features).square().sum(dim=1).mean()


def metric_loss(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Lm: triplets with anchor swap, of descriptors (N,D)."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(dim=1)

    near = distance(anchors, positives)
    far = torch.minimum(distance(anchors, negatives), distance(positives, negatives))
    return (MARGIN + near - far).clamp_min(0).mean()


def compactness_loss(descriptors: Tensor) -> Tensor:
    """Lc: the sum of the off-diagonal correlations of the descriptors' components (N,D)."""
    centred = descriptors - descriptors.mean(dim=0)
    unit = F.normalize(centred, dim=0)
    correlation = unit.T @ unit
    return correlation.sum() - correlation.diagonal().sum()


def train_teacher(
    patch_size: int,
    images: Sequence[Path],
    weights: Path | None,
    options: TeacherOptions,
    fit: FitOptions,
    on_step: Callable[[int], None] = lambda _: None,
) -> tuple[PatchNetwork, dict[str, str]]:
    """Train a patch network.

    The paper distils ResNet-18's pooled output of 512 features on ImageNet. Here it is the pooled
    output of the deepest level that the weights hold (layer4's 512, or layer3's 256), of patches as
    they are, on the images at hand: on few images of one kind the teacher learns to tell apart only
    what occurs in them, so that students imitate it on defects too.

    Args:
        patch_size: key of `ARCHITECTURES`.
        images: any images.
        weights: of ResNet-18; None takes ImageNet's.
        options: steps, losses, optimiser.
        fit: device, precision, and the seed of initial weights and patches.
        on_step: called with 1 after each step.

    Returns:
        The network, frozen, and the identity of ResNet-18.
    """
    device = resolve_device(fit.device)
    dtype = resolve_precision(fit.precision, device)
    autocast = autocast_to(dtype, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    backbone, identity = _deepest(weights)
    source = Patches(images, patch_size, fit.seed)
    with torch.random.fork_rng():
        torch.manual_seed(fit.seed)
        network = PatchNetwork(patch_size)
        with torch.no_grad():
            width = backbone(torch.zeros(1, 3, patch_size, patch_size))[0].shape[1]
        decoder = nn.Linear(DESCRIPTOR_SIZE, width)
    for module in (backbone, network, decoder):
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(
        [*network.parameters(), *decoder.parameters()],
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
    )
    for _ in range(options.steps):
        anchors, positives, negatives = (
            normalise(patches).to(device) for patches in source.draw(options.batch_size)
        )
        with autocast:
            descriptors = network.patches(anchors)
            decoded = decoder(descriptors).float()
            others = [network.patches(x).float() for x in (positives, negatives) if options.metric]
        descriptors = descriptors.float()
        loss = options.compactness * compactness_loss(descriptors)
        if options.distillation:
            with torch.no_grad(), autocast:
                features = backbone(anchors)[0].mean(dim=(2, 3)).float()
            loss = loss + options.distillation * distillation_loss(decoded, features)
        if options.metric:
            loss = loss + options.metric * metric_loss(descriptors, *others)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimiser)
        scaler.update()
        on_step(1)
    return network.requires_grad_(False).eval().cpu(), identity


def _deepest(weights: Path | None) -> tuple[FeaturePyramid, dict[str, str]]:
    """Load ResNet-18 up to the deepest level that the weights hold."""
    try:
        return load_teacher(BACKBONE, LEVELS[3:], weights)
    except CheckpointError:
        return load_teacher(BACKBONE, LEVELS[2:3], weights)


def teacher_path(folder: Path, patch_size: int) -> Path:
    """Return where a folder keeps the teacher of a patch size."""
    return folder / f"stad_teacher_p{patch_size}.pt"


def keep_teacher(
    path: Path,
    patch_size: int,
    options: TeacherOptions,
    *,
    weights: Path | None,
    images: Sequence[Path],
    fit: FitOptions,
    progress: Progress,
) -> None:
    """Train a teacher and write it to a file, for this category and others.

    Args:
        path: see `teacher_path`; its folder is made.
        patch_size, options, weights, images, fit: see `train_teacher`.
        progress: is told of each step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    label = f"{path}, trained on {len(images)} images"
    with progress(label, options.steps, "steps") as on_step:
        network, identity = train_teacher(patch_size, images, weights, options, fit, on_step)
    content = {
        "format_version": FORMAT_VERSION,
        "options": asdict(options),
        "backbone": identity,
        "state": network.state_dict(),
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def kept_teacher(path: Path, patch_size: int, options: TeacherOptions) -> tuple[PatchNetwork, str]:
    """Read a teacher that `keep_teacher` wrote.

    Returns:
        The network, frozen, and the file's name with the hash of its weights.

    Raises:
        CheckpointError: the file is missing or malformed, or was trained otherwise.
    """
    network = PatchNetwork(patch_size)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        trained = TeacherOptions(**content["options"])
        network.load_state_dict(content["state"])
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: there is no such teacher; train it first (`Method.prepare_teacher`)."
        ) from None
    except Exception as error:
        # Truncated files and foreign pickles each raise something else in torch.
        raise CheckpointError(
            f"{path}: is not a STAD teacher; remove it, or name another --teacher-folder."
        ) from error
    if trained != options:
        raise CheckpointError(
            f"{path}: was trained with {trained}, got {options}; repeat the same settings, or name "
            "another --teacher-folder."
        )
    state = dict(network.state_dict())
    return network.requires_grad_(False).eval(), f"{path.name} {state_hash(state)[:12]}"
