"""TensorRT engines for a bundle; refused when a layer has another type than asked for."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto

from stpm.runtime.backends import BuiltEngine
from stpm.runtime.backends.tensorrt_build import BuildOptions, engine_from_onnx
from stpm.runtime.backends.tensorrt_library import load_library
from stpm.runtime.errors import BackendError, ParityError
from stpm.runtime.gpu import gpu_count
from stpm.runtime.precision import (
    NETWORK_TYPES,
    foreign_network_layers,
    reduced_scoring_layers,
)

NAMED_LAYERS = 3
"""Layers that an error names of those that it counts."""


def build_engine(
    name: str, model: bytes, precision: str, batch: tuple[int, int], options: BuildOptions
) -> BuiltEngine:
    """Build a TensorRT engine and check the types of its layers.

    Args:
        name: "tensorrt", for the GPU at hand, or "tensorrt-rtx", for `options.gpu_archs`.
        model: the ONNX file's content.
        precision: of teacher and student: "fp32", "fp16" or "bf16".
        batch: smallest and largest batch.
        options: how to build it.

    Raises:
        BackendError: the library is missing, or cannot build the graph as it is meant.
        ParityError: a layer has another type than the precision asks for.
    """
    library = load_library(name)
    device = ""
    if gpu_count() and not library.is_rtx:
        from stpm.runtime.backends.cuda import device_label

        device = device_label()
    built = engine_from_onnx(library, model, batch, options, device)
    check_signed(library.title, model)
    check_scoring_types(library.title, built.layer_precisions)
    check_network_types(library.title, built.layer_precisions, precision)
    return built


def check_signed(engine: str, model: bytes) -> None:
    """Refuse integers without sign: TensorRT would take 255 for 127, and not say so.

    Args:
        engine: how an error names it.
        model: the ONNX file's content.

    Raises:
        BackendError: with the name of the first node that has them.
    """
    graph = onnx.load_from_string(model).graph
    unsigned = {t.name for t in graph.initializer if t.data_type == TensorProto.UINT8}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and unsigned & {*node.input[2:]}:
            raise BackendError(
                f"{engine} quantises to signed integers alone, and node {node.name} to uint8; "
                "export in another precision for this engine."
            )


def check_scoring_types(engine: str, types: dict[str, str]) -> None:
    """Refuse a scoring part that is not FP32.

    Args:
        engine: how an error names it.
        types: each layer's type by its name in the graph.

    Raises:
        ParityError: with the names of the layers.
    """
    reduced = reduced_scoring_layers(types)
    if reduced:
        raise ParityError(
            f"{engine} computes {_some(reduced)} of the scoring part in reduced precision, "
            "expected FP32; export in FP32 or choose another engine."
        )


def check_network_types(engine: str, types: dict[str, str], precision: str) -> None:
    """Refuse teacher and student in another precision than asked for.

    Engines of the processor may compute in FP32 what their hardware has no arithmetic for.

    Args:
        engine: how an error names it.
        types: each layer's type by its name in the graph.
        precision: of teacher and student.

    Raises:
        ParityError: with the names of the layers.
    """
    foreign = foreign_network_layers(types, precision)
    if foreign:
        raise ParityError(
            f"{engine} computes {_some(foreign)} of teacher and student in "
            f"{types[foreign[0]]}, expected {NETWORK_TYPES[precision]}; choose another engine or "
            "precision."
        )


def _some(layers: Sequence[str]) -> str:
    names = ", ".join(layers[:NAMED_LAYERS])
    return f"{len(layers)} layers ({names}{', ...' if len(layers) > NAMED_LAYERS else ''})"
