"""From ONNX to a TensorRT engine, with the types of the graph and no others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from stpm.runtime.backends import BuiltEngine
from stpm.runtime.backends.cache import cache_key, read_cache, write_cache
from stpm.runtime.backends.tensorrt.library import Library
from stpm.runtime.errors import BackendError

AUXILIARY_STREAMS = 1
"""Besides the main one: teacher and student do not depend on each other."""
TYPE_NAMES = {"FLOAT": "f32", "HALF": "f16", "BF16": "bf16", "INT8": "i8"}
"""As `stpm.export.precision` names them; others keep the library's name in small letters."""


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        workspace_mb: GPU memory that a layer may use for scratch.
        optimization_level: 0 builds fastest, 5 searches longest.
        best_batch: the batch to tune for; None is the largest.
        gpu_archs: of TensorRT-RTX, such as ("sm86", "sm89"); empty is the library's own choice,
            all that it knows from Ampere on.
    """

    workspace_mb: int = 1024
    optimization_level: int = 3
    best_batch: int | None = None
    gpu_archs: tuple[str, ...] = ()

    def to_texts(self) -> dict[str, str]:
        """Return the options as they stand in a manifest's `built_with`."""
        texts = {
            "workspace_mb": str(self.workspace_mb),
            "optimization_level": str(self.optimization_level),
        }
        return texts | ({"best_batch": str(self.best_batch)} if self.best_batch else {})

    @classmethod
    def from_texts(cls, texts: dict[str, str]) -> BuildOptions:
        """Read what `to_texts` wrote, for the GPU at hand; what is missing takes the default."""
        names = ("workspace_mb", "optimization_level", "best_batch")
        found = {name: int(texts[name]) for name in names if texts.get(name, "").isdecimal()}
        return cls(**found)  # type: ignore[arg-type]


def engine_from_onnx(
    library: Library,
    model: bytes,
    batch: tuple[int, int],
    options: BuildOptions,
    device: str,
) -> BuiltEngine:
    """Build an engine.

    Args:
        library: that builds it.
        model: the ONNX file's content.
        batch: smallest and largest batch; equal for a graph of fixed batch.
        options: how to build it.
        device: the GPU at hand; "" where there is none.

    Returns:
        The engine, with the types of the network's layers. The network is strongly typed: the
        library has to compute each layer in its type.

    Raises:
        BackendError: the library cannot take a node, or cannot build the engine.
    """
    with library.lock:
        library.errors.clear()
        builder = library.create("Builder")
        network = _network(library, builder, model)
        graph_sha256 = hashlib.sha256(model).hexdigest()
        config = _config(library, builder, options)
        _add_profile(builder, config, network, batch, options)
        timings = cache_key("timings", library.name, library.version, device, graph_sha256)
        library.use_timings(config, read_cache(timings))
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BackendError(
                f"{library.title} cannot build an engine ({library.reason()}); choose another "
                "engine, precision or GPU architecture."
            )
        measured = library.timings(config)
        if measured is not None:
            write_cache(timings, measured)
        built_for = ",".join(options.gpu_archs) or device or "portable"
        built_with = {
            library.name: library.version,
            "device": built_for,
            "model_sha256": graph_sha256,
        }
        return BuiltEngine(bytes(plan), built_with | options.to_texts(), _layer_types(network))


def _network(library: Library, builder: Any, model: bytes) -> Any:
    flags = library.api.NetworkDefinitionCreationFlag
    # TensorRT 11 and RTX have no other networks; 10 is asked for the same.
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED))
    parser = library.api.OnnxParser(network, library.logger)
    if not parser.parse(model):
        error = parser.get_error(0) if parser.num_errors else None
        # Content that is no ONNX at all has no node.
        at = (
            f" node {error.node_name()} ({error.node_operator()})"
            if error is not None and error.node_name()
            else ""
        )
        reason = " ".join(error.desc().split()) if error is not None else library.reason()
        library.errors.clear()
        raise BackendError(
            f"{library.title} cannot read the graph's{at or ' file'}: {reason}; choose "
            "another engine or another version of the library."
        )
    return network


def _config(library: Library, builder: Any, options: BuildOptions) -> Any:
    api = library.api
    config = builder.create_builder_config()
    # TF32 is on by default; it would round the factors of every FP32 product to 10 bits.
    config.clear_flag(api.BuilderFlag.TF32)
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.builder_optimization_level = options.optimization_level
    config.max_aux_streams = AUXILIARY_STREAMS
    known = library.gpu_archs()
    unknown = [arch for arch in options.gpu_archs if arch not in known]
    if unknown:
        raise BackendError(
            f"{library.title} builds for no GPU architecture {unknown[0]}, expected "
            f"{', '.join(known) or 'none: it builds for the GPU at hand'}; change --gpu-arch."
        )
    if options.gpu_archs:
        config.num_compute_capabilities = len(options.gpu_archs)
        for index, arch in enumerate(options.gpu_archs):
            config.set_compute_capability(known[arch], index)
    return config


def _add_profile(
    builder: Any, config: Any, network: Any, batch: tuple[int, int], options: BuildOptions
) -> None:
    smallest, largest = batch
    if smallest == largest:
        return
    images = network.get_input(0)
    size = tuple(images.shape)[1:]
    best = min(max(options.best_batch or largest, smallest), largest)
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, (smallest, *size), (best, *size), (largest, *size))
    config.add_optimization_profile(profile)


def _layer_types(network: Any) -> dict[str, str]:
    """Read each layer's type from its first output; layers without any have none.

    A convolution whose input and weights come from INT8 is fused with what converts them.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    from_int8 = {
        layer.get_output(0).name
        for layer in layers
        if layer.type.name == "DEQUANTIZE" and layer.get_input(0).dtype.name == "INT8"
    }
    types = {layer.name: layer.get_output(0).dtype.name for layer in layers if layer.num_outputs}
    for layer in layers:
        if layer.type.name == "CONVOLUTION" and layer.num_inputs > 1:
            factors = {layer.get_input(index).name for index in range(2)}
            types[layer.name] = "INT8" if factors <= from_int8 else types[layer.name]
    return {name: TYPE_NAMES.get(kind, kind.lower()) for name, kind in types.items()}
