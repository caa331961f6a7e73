"""TensorRT engines for a bundle; refused when a layer has another type than asked for."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from stpm.export.precision import check_network_types, check_scoring_types
from stpm.runtime.backends import BuiltEngine
from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.backends.tensorrt.build import BuildOptions, engine_from_onnx
from stpm.runtime.backends.tensorrt.library import load_library
from stpm.runtime.errors import BackendError


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
                f"{engine} supports only signed integers, got node {node.name} quantised to "
                "uint8; export in another precision for this engine."
            )
