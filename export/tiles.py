"""The graph of tiles, whose maps put together are that of a whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.export.engines import engine_scorer
from stpm.export.graph import DeploymentGraph, level_sizes
from stpm.export.grey import grey_network
from stpm.export.options import ExportOptions
from stpm.runtime.backends import Engine, Outputs
from stpm.runtime.bundle.archive import InputContract
from stpm.runtime.bundle.tiling import Tiling
from stpm.runtime.errors import ExportError
from stpm.runtime.tiled import TiledEngine
from stpm.train.checkpoint import Checkpoint
from stpm.train.datasets import read_image
from stpm.train.evaluate import Scorer, torch_scorer
from stpm.train.methods import Network
from stpm.train.methods.stpm.network import Stpm


class TileGraph(DeploymentGraph):
    """A network that gives its levels' distances, for `stpm.runtime.tiled.TiledEngine`."""

    model: Stpm

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compare teacher and student.

        Args:
            images: tiles uint8 (N,H,W,`channels`).

        Returns:
            The levels' distances one after the other, float32 (N,1,L), and the largest, (N,).
        """
        distances = self.model.distances(self.model.features(self.prepare(images)))
        packed = torch.cat([level.flatten(1) for level in distances], dim=1)
        return packed[:, None], packed.amax(dim=1)


class TorchEngine:
    """A graph run by torch as the engines run it."""

    def __init__(self, graph: DeploymentGraph) -> None:
        self._graph = graph

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See `Engine.run`."""
        with torch.inference_mode():
            anomaly_maps, pred_scores = self._graph(torch.from_numpy(images))
        return anomaly_maps.numpy(), pred_scores.numpy()

    def layer_precisions(self) -> dict[str, str]:
        """See `Engine.layer_precisions`."""
        return {}

    def built_with(self) -> dict[str, str]:
        """See `Engine.built_with`."""
        return {"torch": torch.__version__, "device": "cpu"}


@dataclass(frozen=True)
class GraphPlan:
    """What is built of a network, and what it is held against.

    Attributes:
        graph: to export.
        batch: smallest and largest number of images, or tiles, that the graph takes.
        contract: of the bundle: what an image is.
        reference: the network in FP32, for images as the contract has them.
        tiling: how images are cut; None where the graph takes them whole.
    """

    graph: DeploymentGraph
    batch: tuple[int, int]
    contract: InputContract
    reference: Network
    tiling: Tiling | None = None

    @property
    def golden_size(self) -> tuple[int, int]:
        """(height, width) in pixels of golden images."""
        size = self.contract.size
        return size if self.tiling is None else self.tiling.golden_size(size)

    @property
    def golden_reference(self) -> Network:
        """The network in FP32 for golden images."""
        if self.tiling is None:
            return self.reference
        assert isinstance(self.reference, Stpm)
        return self.reference.at_size(self.golden_size)

    def around(self, engine: Engine) -> Engine:
        """Make an engine of the graph take whole images."""
        return engine if self.tiling is None else TiledEngine(engine, self.tiling)

    def torch_scorer(self) -> Scorer:
        """Return the network in torch as a scorer of many images: large ones by tiles."""
        if self.tiling is None:
            return torch_scorer(self.reference)
        return engine_scorer(self.around(TorchEngine(self.graph)), self.contract)


def plan_graph(model: Network, options: ExportOptions) -> GraphPlan:
    """Choose what is built of a network.

    Args:
        model: the network; in INT8 a quantised one, which takes what the graph is to take.
        options: of the export; with `tile`, `camera_size` is the images'.

    Raises:
        ExportError: the network cannot be run on tiles.
    """
    built = grey_network(model) if options.grey and model.channels > 1 else model
    depth, channels = options.bit_depth, built.channels
    if not options.tile:
        graph = DeploymentGraph(built, options.precision, options.camera_size)
        resize = "host" if options.camera_size is None else "graph"
        contract = InputContract(graph.input_size, options.batch, resize, depth, channels)
        return GraphPlan(graph, options.batch, contract, model)
    assert isinstance(model, Stpm)
    assert isinstance(built, Stpm)
    assert options.camera_size is not None
    tiling = tiling_of(model, options.camera_size, options.tile, options.batch)
    graph = TileGraph(built.at_size(tiling.size), options.precision)
    contract = InputContract(options.camera_size, (1, 1), "graph", depth, channels)
    return GraphPlan(graph, options.batch, contract, model.at_size(options.camera_size), tiling)


def tiled_options(
    checkpoint: Checkpoint, options: ExportOptions, calibration: Sequence[Path]
) -> ExportOptions:
    """Fill in the size of the images of an export with tiles, and refuse what it cannot do.

    Raises:
        ExportError: the checkpoint was not trained on tiles, or only on tiles.
    """
    if not options.tile and not checkpoint.tile:
        return options
    if not checkpoint.tile or not options.tile:
        trained = f"tiles of {checkpoint.tile} pixels" if checkpoint.tile else "whole images"
        flag = "with --tile, too" if checkpoint.tile else "without --tile, or train with it"
        raise ExportError(f"the checkpoint was trained on {trained}; export it {flag}.")
    if options.camera_size is not None:
        return options
    image = read_image(calibration[0], checkpoint.bit_depth)
    return replace(options, camera_size=(image.shape[0], image.shape[1]))


def tiling_of(
    model: Stpm, image_size: tuple[int, int], side: int, batch: tuple[int, int]
) -> Tiling:
    """Cut images of a size into tiles for a network.

    Args:
        model: the network.
        image_size: (height, width) in pixels of the camera's images.
        side: of a tile, at least; up to a stride more, so that the tiles end with the image.
        batch: smallest and largest number of tiles that the graph is to take.

    Raises:
        ExportError: the tiles are too small for what the network sees.
    """
    probe = (1024, 1024)
    strides = tuple(probe[0] // height for height, _ in level_sizes(model.at_size(probe)))
    stride = strides[-1]
    margin = -(-receptive_radius(model.teacher) // stride) * stride
    height, width = (
        length if length <= side else side + (length - side) % stride for length in image_size
    )
    tiling = Tiling((height, width), batch, margin, strides)
    try:
        tiling.check(image_size)
    except ValueError as error:
        smallest = 2 * margin + stride
        raise ExportError(
            f"{error}, expected tiles of at least {smallest} pixels, better twice as many; "
            "choose a larger --tile."
        ) from None
    return tiling


def receptive_radius(network: nn.Module) -> int:
    """Return how many pixels away an input may lie that a feature of the last level sees."""
    radius, jump = 0, 1
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name:
            side, stride = _first(module.kernel_size), _first(module.stride)
            radius += (side - 1) // 2 * jump
            jump *= stride
    return radius


def _first(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else value[0]
