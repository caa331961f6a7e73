"""The engines of a bundle: opened where they can run, built where they cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stpm.export.options import ExportOptions
from stpm.export.tensorrt import build_engine
from stpm.runtime.backends import (
    ENGINES,
    BuiltEngine,
    Engine,
    Outputs,
    installed_engines,
    open_engine,
)
from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.backends.probe import check_in_child
from stpm.runtime.batches import fit_input, run_in_batches
from stpm.runtime.bundle.archive import InputContract
from stpm.runtime.errors import BackendError, ExportError
from stpm.train.evaluate import Scorer


def open_engines(
    model: bytes,
    image_shape: tuple[int, int, int],
    options: ExportOptions,
    report: Callable[[str], None],
) -> dict[str, tuple[Engine | None, BuiltEngine | None]]:
    """Open each engine that is wanted, or, where it cannot run, build it at least.

    Args:
        model: the ONNX file's content.
        image_shape: (height, width, channels) that the graph takes.
        options: of the export.
        report: called with a line about each engine that is left out.

    Raises:
        BackendError, ExportError: an engine that was asked for, or every one, cannot be had.
    """
    engines = {}
    refusals = []
    for name in options.engines or installed_engines():
        try:
            engines[name] = _open(name, model, image_shape, options)
        except (BackendError, ExportError) as error:
            if options.engines:
                raise
            refusals.append(str(error))
            report(f"{name}: left out: {error}")
    if not engines:
        raise BackendError(
            f"no installed engine can run the {options.precision} graph "
            f"({' '.join(refusals)}); install another with pip install 'stpm[openvino]'."
        )
    return engines


def _open(
    name: str, model: bytes, image_shape: tuple[int, int, int], options: ExportOptions
) -> tuple[Engine | None, BuiltEngine | None]:
    built = None
    if ENGINES[name].file:
        built = build_engine(name, model, options.precision, options.batch, options.build)
    if ENGINES[name].needs_gpu and not gpu_count():
        if name == "torch-cuda":
            from stpm.runtime.backends.torch_cuda import check_graph

            check_graph(model)
        return None, built
    if ENGINES[name].needs_gpu:
        check_in_child(name, model, image_shape=image_shape, batch=options.batch, built=built)
    return open_engine(name, model, batch=options.batch, built=built), built


def engine_scorer(engine: Engine, contract: InputContract) -> Scorer:
    """Return a function that fits images to the graph's input and scores them."""

    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        inputs = np.stack([fit_input(image, contract) for image in images])
        return run_in_batches(engine, inputs, contract)

    return score
