"""The build line: a checkpoint in, a verified and calibrated bundle out."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stpm.export.distil import distil
from stpm.export.gate import Gate, GateError
from stpm.export.graph import DeploymentGraph
from stpm.export.onnx import onnx_from_graph, opset
from stpm.export.quantization_images import quantization_choices
from stpm.export.quantize import quantize
from stpm.export.tensorrt import build_engine, check_scoring_types
from stpm.runtime.backends import (
    ENGINES,
    BuiltEngine,
    Engine,
    Outputs,
    check_engine,
    installed_engines,
    open_engine,
)
from stpm.runtime.backends.probe import check_in_child
from stpm.runtime.backends.tensorrt_build import BuildOptions
from stpm.runtime.bundle import (
    GOLDEN,
    MAX_GOLDEN_BYTES,
    MAX_SIDE,
    MODEL,
    EngineRecord,
    Golden,
    InputContract,
    Manifest,
    check_readable,
    golden_bytes,
    write_bundle,
)
from stpm.runtime.calibration import (
    Calibration,
    calibrate,
    check_image_count,
    smallest_false_alarm_rate,
)
from stpm.runtime.console import progress
from stpm.runtime.detector import fit_input, run_in_batches
from stpm.runtime.errors import BackendError, ExportError, ParityError
from stpm.runtime.gpu import gpu_count
from stpm.runtime.parity import TOLERANCES, compare
from stpm.train.checkpoint import Checkpoint
from stpm.train.datasets import Sample, read_image, read_images
from stpm.train.evaluate import Scorer, score_files, torch_scorer
from stpm.train.methods import Network

DEFAULT_FALSE_ALARM_RATE = 0.01
MOST_CHOICES = 3
"""Of images that INT8 tries: near the gate's limits chance decides."""


@dataclass(frozen=True)
class ExportOptions:
    """What to build.

    Attributes:
        precision: of teacher and student: "fp32", "fp16", "bf16" or "int8".
        distil: in INT8, epochs of fine-tuning the student; see `stpm.export.distil`.
        camera_size: (height, width) to resize from inside the graph; None resizes on the host.
        batch: smallest and largest batch.
        false_alarm_rate: wished; None takes 1 %, or the smallest that the images support.
        engines: to verify and calibrate; None takes all that are installed and can run the graph.
        build: how TensorRT engines are built.
    """

    precision: str = "fp32"
    distil: int = 0
    camera_size: tuple[int, int] | None = None
    batch: tuple[int, int] = (1, 1)
    false_alarm_rate: float | None = None
    engines: tuple[str, ...] | None = None
    build: BuildOptions = field(default_factory=BuildOptions)


def export_bundle(
    checkpoint: Checkpoint,
    out: Path,
    options: ExportOptions,
    *,
    verify: Sequence[Path],
    calibration: Sequence[Path],
    quantization: Sequence[Path] = (),
    samples: Sequence[Sample] = (),
    report: Callable[[str], None],
) -> Manifest:
    """Export, verify every engine against the torch model, calibrate, and write the bundle.

    Args:
        checkpoint: the trained network.
        out: the bundle's folder.
        options: what to build.
        verify: real images to compare engines and reference on.
        calibration: good images that were not trained on.
        quantization: for INT8, good images to quantise on: those that were trained on.
        samples: for INT8, labelled test images that it must be as accurate on as FP32.
        report: called with a line about each step.

    Returns:
        The manifest as written.

    Raises:
        ExportError: the network cannot be exported, or there is no image to verify with.
        BackendError: a chosen engine, or every installed one, cannot run the graph.
        ParityError: an engine differs from the reference by more than the tolerance, or INT8 is
            less accurate than FP32.
        DataError: an image cannot be used, or there are too few for the false-alarm rate.
    """
    _check_before_work(options, verify, calibration)
    _check_sizes(options.camera_size, checkpoint.config.input_size)
    model = checkpoint.model()
    if options.precision == "int8":
        _check_int8(checkpoint, quantization)
        built = _build_int8(model, options, verify, calibration, quantization, samples, report)
    else:
        built = _build(model, options, verify, calibration, None, report)
    manifest = Manifest(
        name=out.name.removesuffix(".stpm"),
        method=checkpoint.config.method,
        precision=options.precision,
        opset=built.opset,
        input=built.contract,
        map_size=model.input_size,
        tolerance=TOLERANCES[options.precision],
        files={},
        engines=built.engines,
        versions=_versions(),
        provenance=_provenance(checkpoint, options, verify, calibration),
    )
    golden = _golden(verify, built.contract, built.reference)
    files = {MODEL: built.onnx, GOLDEN: golden_bytes(golden)} | built.files
    return write_bundle(out, manifest, files, check_readable)


@dataclass(frozen=True)
class _Built:
    """What of a bundle depends on the graph.

    Attributes:
        onnx: the graph.
        opset: that it asks for.
        contract: what it takes.
        reference: torch's outputs for the images to verify with.
        engines: what was found of each.
        files: that engines bring, by name.
    """

    onnx: bytes
    opset: int
    contract: InputContract
    reference: Outputs
    engines: dict[str, EngineRecord]
    files: dict[str, bytes]


def _build_int8(
    model: Network,
    options: ExportOptions,
    verify: Sequence[Path],
    calibration: Sequence[Path],
    quantization: Sequence[Path],
    samples: Sequence[Sample],
    report: Callable[[str], None],
) -> _Built:
    """Quantise on one choice of images after the other until the gate lets one pass."""
    report("INT8: measuring FP32, then quantising")
    gate = Gate.of(model, calibration, samples)
    refusal: GateError | None = None
    for pixels in islice(quantization_choices(quantization, model.input_size), MOST_CHOICES):
        if refusal is not None:
            report(f"{refusal.reason}; quantising on other images")
        try:
            quantized = quantize(model, pixels)
            if options.distil:
                _distil(quantized, quantization, options.distil)
            return _build(quantized, options, verify, calibration, gate, report)
        except GateError as error:
            refusal = error
    assert refusal is not None
    raise refusal


def _distil(model: Network, paths: Sequence[Path], epochs: int) -> None:
    _, pixels = read_images(paths, model.input_size)
    with progress(f"distilling, {epochs} epochs", epochs * len(pixels)) as on_images:
        distil(model, torch.from_numpy(pixels), epochs, on_images)


def _build(
    model: Network,
    options: ExportOptions,
    verify: Sequence[Path],
    calibration: Sequence[Path],
    gate: Gate | None,
    report: Callable[[str], None],
) -> _Built:
    """Export a network, and open, verify and calibrate the engines."""
    graph = DeploymentGraph(model, options.precision, options.camera_size)
    contract = InputContract(
        graph.input_size, options.batch, "host" if options.camera_size is None else "graph"
    )
    with tempfile.TemporaryDirectory() as folder:
        onnx_path = Path(folder) / MODEL
        onnx_model = onnx_from_graph(graph, onnx_path, options.batch)
        onnx_bytes = onnx_path.read_bytes()
    size_mb = len(onnx_bytes) / 1e6
    report(f"exported {options.precision} ONNX, opset {opset(onnx_model)}, {size_mb:.1f} MB")

    with progress("reference, torch", len(verify)) as on_images:
        reference = score_files(torch_scorer(model), verify, on_images)
    engines, built_files = {}, {}
    for name, (engine, built) in _open_engines(onnx_bytes, contract.size, options, report).items():
        if engine is None:
            parity, outputs = {}, reference
            if calibration != verify:
                with progress("reference, thresholds", len(calibration)) as on_images:
                    outputs = score_files(torch_scorer(model), calibration, on_images)
        else:
            scorer = engine_scorer(engine, contract)
            check_scoring_types(name, engine.layer_precisions())
            with progress(name, len(verify)) as on_images:
                outputs = score_files(scorer, verify, on_images)
            parity = _verify(name, reference, outputs, options.precision)
            if calibration != verify:
                with progress(f"{name}, thresholds", len(calibration)) as on_images:
                    outputs = score_files(scorer, calibration, on_images)
            if gate is not None:
                parity |= gate.check(name, outputs, scorer)
        thresholds = _calibrate(outputs, options.false_alarm_rate)
        engines[name] = _record(name, thresholds, parity, engine, built)
        if built is not None and built.content is not None:
            built_files[ENGINES[name].file] = built.content
        report(_engine_line(name, engines[name]))
    return _Built(onnx_bytes, opset(onnx_model), contract, reference, engines, built_files)


def _check_before_work(
    options: ExportOptions, verify: Sequence[Path], calibration: Sequence[Path]
) -> None:
    if not verify or not calibration:
        raise ExportError(
            "the checkpoint records no held-out images; name a folder of good images that were "
            "not trained on with --calibrate DIR."
        )
    if options.false_alarm_rate is not None:
        check_image_count(len(calibration), options.false_alarm_rate)
    for name in options.engines or ():
        check_engine(name, to_export=True)


def _check_sizes(camera_size: tuple[int, int] | None, network_size: tuple[int, int]) -> None:
    """Refuse what a bundle's reader would refuse."""
    size = camera_size or network_size
    if max(*size, *network_size) > MAX_SIDE or not golden_count(size, network_size):
        raise ExportError(
            f"got images of {size[0]}x{size[1]} pixels and a network of "
            f"{network_size[0]}x{network_size[1]}, expected sides up to {MAX_SIDE} and a bundle's "
            f"golden image within {MAX_GOLDEN_BYTES >> 20} MB; train with a smaller --input-size."
        )


def _check_int8(checkpoint: Checkpoint, quantization: Sequence[Path]) -> None:
    if checkpoint.config.method != "stpm":
        raise ExportError(
            f"INT8 is for the method stpm alone, got {checkpoint.config.method}; export in another "
            "precision."
        )
    if not quantization:
        raise ExportError(
            "the checkpoint records no images that were trained on; name a folder of good images "
            "to quantise on with --quantize DIR."
        )


def _open_engines(
    model: bytes,
    image_size: tuple[int, int],
    options: ExportOptions,
    report: Callable[[str], None],
) -> dict[str, tuple[Engine | None, BuiltEngine | None]]:
    """Open each engine, or, where it cannot run, build it at least."""
    engines = {}
    refusals = []
    for name in options.engines or installed_engines():
        try:
            engines[name] = _open(name, model, image_size, options)
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
    name: str, model: bytes, image_size: tuple[int, int], options: ExportOptions
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
        check_in_child(name, model, image_size=image_size, batch=options.batch, built=built)
    return open_engine(name, model, batch=options.batch, built=built), built


def engine_scorer(engine: Engine, contract: InputContract) -> Scorer:
    """Return a function that fits images to the graph's input and scores them."""

    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        inputs = np.stack([fit_input(image, contract) for image in images])
        return run_in_batches(engine, inputs, contract)

    return score


def _verify(name: str, reference: Outputs, outputs: Outputs, precision: str) -> dict[str, float]:
    parity = compare(*reference, *outputs)
    tolerance = TOLERANCES[precision]
    if not parity.holds(tolerance):
        raise ParityError(
            f"{name} differs from the reference in torch by {parity.map_difference:.2g} of a map's "
            f"maximum and {parity.score_difference:.2g} of a score, expected at most "
            f"{tolerance:.2g} in {precision}; no bundle was written, export in another precision."
        )
    return asdict(parity)


def _calibrate(outputs: Outputs, rate: float | None) -> Calibration:
    anomaly_maps, pred_scores = outputs
    supported = smallest_false_alarm_rate(len(pred_scores))
    wished = max(DEFAULT_FALSE_ALARM_RATE, supported) if rate is None else rate
    return calibrate(pred_scores, anomaly_maps, wished)


def _record(
    name: str,
    thresholds: Calibration,
    parity: dict[str, float],
    engine: Engine | None,
    built: BuiltEngine | None,
) -> EngineRecord:
    built_with = (engine.built_with() if engine else {}) | (built.built_with if built else {})
    return EngineRecord(
        thresholds,
        parity,
        built_with,
        verified=engine is not None,
        file=ENGINES[name].file if built else None,
        layer_precisions=built.layer_precisions if built else {},
    )


def _engine_line(name: str, record: EngineRecord) -> str:
    low, high = record.calibration.false_alarm_interval
    agreement = (
        f"largest difference {record.parity['map_difference']:.1e} of a map's maximum, "
        f"{record.parity['score_difference']:.1e} of a score"
        if record.verified
        else f"{_built_for(record)}not verified: there is no GPU here; it is checked with the "
        "golden images where it is opened, with the FP32 reference's thresholds"
    )
    if "good_map_ratio" in record.parity:
        agreement += f"; good images' maps {record.parity['good_map_ratio']:.2f} times FP32's"
    lost = {n: v for n, v in record.parity.items() if n.endswith("_loss")}
    agreement += "".join(f", {n.removesuffix('_loss')} {-v:+z.4f}" for n, v in lost.items())
    return (
        f"{name}: {agreement}; threshold "
        f"{record.calibration.image_threshold:.4g} for {record.calibration.false_alarm_rate:.2%} "
        f"false alarms (95% interval {low:.2%} to {high:.2%}, "
        f"{record.calibration.image_count} images)"
    )


def _built_for(record: EngineRecord) -> str:
    return f"built ({record.built_with['device']}), " if record.built_with else ""


def _golden(paths: Sequence[Path], contract: InputContract, reference: Outputs) -> Golden:
    """Take the images of the highest, the median and the lowest score, as many as may be kept."""
    anomaly_maps, pred_scores = reference
    order = np.argsort(pred_scores, kind="stable")
    wished = dict.fromkeys(map(int, (order[-1], order[len(order) // 2], order[0])))
    chosen = sorted(list(wished)[: golden_count(contract.size, anomaly_maps.shape[1:])])
    images = np.stack([fit_input(read_image(paths[i]), contract) for i in chosen])
    return Golden(images, anomaly_maps[chosen], pred_scores[chosen])


def golden_count(input_size: Sequence[int], map_size: Sequence[int]) -> int:
    """Return how many images and maps of these sizes a bundle may hold."""
    image_bytes = 3 * input_size[0] * input_size[1]
    return MAX_GOLDEN_BYTES // (image_bytes + 4 * map_size[0] * map_size[1] + 4)


def _versions() -> dict[str, str]:
    packages = ("stpm", "torch", "onnx", "numpy", "pillow")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def _provenance(
    checkpoint: Checkpoint,
    options: ExportOptions,
    verify: Sequence[Path],
    calibration: Sequence[Path],
) -> dict[str, object]:
    training = checkpoint.training
    return {
        "config": checkpoint.config.to_dict(),
        "teacher": checkpoint.teacher_id,
        "training": {
            key: training[key]
            for key in ("data_sha256", "options", "best_epoch", "epochs_done", "versions")
            if key in training
        },
        "distilled_epochs": options.distil,
        "verified_on": len(verify),
        "calibrated_on": len(calibration),
    }
