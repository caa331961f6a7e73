"""The build line: a checkpoint in, a verified and calibrated bundle out."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from stpm.export.engine_records import engine_line, record_of, thresholds_of, verify_engine
from stpm.export.engines import engine_scorer, open_engines
from stpm.export.grey import check_grey, grey_network
from stpm.export.int8.distil import distil
from stpm.export.int8.gate import Gate, GateError
from stpm.export.int8.images import TrainingImages
from stpm.export.int8.quantize import quantize
from stpm.export.onnx import onnx_from_graph, opset
from stpm.export.options import ExportOptions
from stpm.export.precision import check_scoring_types
from stpm.export.scoring import GoodImages, good_images
from stpm.export.tiles import GraphPlan, plan_graph, tiled_options
from stpm.runtime.backends import (
    ENGINES,
    Outputs,
    check_engine,
)
from stpm.runtime.batches import fit_input
from stpm.runtime.bundle.archive import (
    GOLDEN,
    MAX_GOLDEN_BYTES,
    MAX_SIDE,
    MODEL,
    EngineRecord,
    Golden,
    Manifest,
    check_readable,
    npz_bytes,
    write_bundle,
)
from stpm.runtime.bundle.calibration import (
    check_image_count,
)
from stpm.runtime.bundle.parity import TOLERANCES
from stpm.runtime.errors import ExportError
from stpm.runtime.output.console import progress
from stpm.runtime.site.rule import Scored, scoring_files
from stpm.train.checkpoint import Checkpoint
from stpm.train.datasets import Sample, read_image
from stpm.train.evaluate import BATCH_SIZE, Scorer, score_files, torch_scorer
from stpm.train.methods import METHODS, Network, open_method

MOST_WHOLE = 3
"""Images that are verified where they are cut into tiles."""
MOST_CHOICES = 3
"""Choices of images that INT8 tries: near the gate's limits chance decides."""


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
    options = tiled_options(checkpoint, options, calibration)
    map_size = checkpoint.config.input_size
    if options.tile and options.camera_size is not None:
        # A whole image takes seconds and gigabytes in torch.
        map_size, verify = options.camera_size, verify[:MOST_WHOLE]
    _check_sizes(options, map_size)
    options = replace(options, bit_depth=checkpoint.bit_depth)
    if options.grey:
        labelled = [sample.path for sample in samples]
        check_grey([*verify, *calibration, *quantization, *labelled], options.bit_depth)
    model = checkpoint.model()
    good = good_images(checkpoint.config, options, calibration, map_size)
    if options.precision == "int8":
        _check_int8(checkpoint, quantization)
        built = _build_int8(model, options, verify, good, quantization, samples, report)
    else:
        built = _build(model, options, verify, good, None, report)
    manifest = Manifest(
        name=out.name.removesuffix(".stpm"),
        method=checkpoint.config.method,
        precision=options.precision,
        opset=built.opset,
        input=built.plan.contract,
        map_size=map_size,
        tolerance=TOLERANCES[options.precision],
        files={},
        engines=built.engines,
        versions=_versions(),
        provenance=_provenance(checkpoint, options, verify, calibration),
        scoring=good.rule.scoring,
        tiles=built.plan.tiling,
    )
    golden = _golden(verify, built.plan, built.reference)
    files = {MODEL: built.onnx, GOLDEN: npz_bytes(golden)} | built.files
    files |= scoring_files(good.rule, golden.anomaly_maps, built.plan.golden_size)
    return write_bundle(out, manifest, files, check_readable)


@dataclass(frozen=True)
class _Built:
    """What of a bundle depends on the graph.

    Attributes:
        onnx: the graph.
        opset: that it asks for.
        plan: what was built.
        reference: torch's outputs for the images to verify with.
        engines: what was found of each.
        files: that engines bring, by name.
    """

    onnx: bytes
    opset: int
    plan: GraphPlan
    reference: Outputs
    engines: dict[str, EngineRecord]
    files: dict[str, bytes]


def _build_int8(
    model: Network,
    options: ExportOptions,
    verify: Sequence[Path],
    good: GoodImages,
    quantization: Sequence[Path],
    samples: Sequence[Sample],
    report: Callable[[str], None],
) -> _Built:
    """Quantise on one choice of images after the other until the gate lets one pass."""
    report("INT8: measuring FP32, then quantising")
    scorer = plan_graph(model, replace(options, precision="fp32")).torch_scorer()
    with progress("FP32, torch", len(good.paths) + len(samples)) as on_images:
        gate = Gate.of(
            good.paths, samples, scorer, bit_depth=options.bit_depth, on_images=on_images
        )
    refusal: GateError | None = None
    exact = grey_network(model) if options.grey else model
    images = TrainingImages(
        *(quantization, model.input_size, options.bit_depth, exact.channels),
        are_cut=bool(options.tile),
    )
    for pixels in islice(images.choices(), MOST_CHOICES):
        if refusal is not None:
            report(f"{refusal.reason}; quantising with other images")
        try:
            quantized = quantize(exact, pixels)
            if options.distil:
                _distil(quantized, images.all(), options.distil)
            return _build(quantized, options, verify, good, gate, report)
        except GateError as error:
            refusal = error
    assert refusal is not None
    raise refusal


def _distil(model: Network, pixels: Tensor, epochs: int) -> None:
    with progress(f"distilling, {epochs} epochs", epochs * len(pixels)) as on_images:
        distil(model, pixels, epochs, on_images)


def _build(
    model: Network,
    options: ExportOptions,
    verify: Sequence[Path],
    good: GoodImages,
    gate: Gate | None,
    report: Callable[[str], None],
) -> _Built:
    """Export a network, and open, verify and calibrate the engines."""
    plan = plan_graph(model, options)
    graph, contract = plan.graph, plan.contract
    torch_reference = torch_scorer(plan.reference)
    with tempfile.TemporaryDirectory() as folder:
        onnx_path = Path(folder) / MODEL
        onnx_model = onnx_from_graph(graph, onnx_path, options.batch)
        onnx_bytes = onnx_path.read_bytes()
    size_mb = len(onnx_bytes) / 1e6
    report(f"exported {options.precision} ONNX, opset {opset(onnx_model)}, {size_mb:.1f} MB")

    with progress("reference, torch", len(verify)) as on_images:
        reference = score_files(torch_reference, verify, on_images, options.bit_depth)
    engines, built_files = {}, {}
    batch_size = 1 if options.tile else BATCH_SIZE

    def scored(name: str, scorer: Scorer, outputs: Outputs) -> Scored:
        if good.are(verify):
            return good.beside(outputs)
        with progress(f"{name}, thresholds", len(good.paths)) as on_images:
            return good.scored(good.aligned(scorer), on_images, options.bit_depth, batch_size)

    for name, (engine, built) in open_engines(
        onnx_bytes, (*graph.input_size, graph.channels), options, report
    ).items():
        if engine is None:
            parity, of_good = {}, scored("reference", torch_reference, reference)
        else:
            scorer = engine_scorer(plan.around(engine), contract)
            check_scoring_types(name, engine.layer_precisions())
            with progress(name, len(verify)) as on_images:
                outputs = score_files(scorer, verify, on_images, options.bit_depth)
            parity = verify_engine(name, reference, outputs, options.precision)
            of_good = scored(name, scorer, outputs)
            if gate is not None:
                parity |= gate.check(name, of_good.anomaly_maps, scorer)
        thresholds = thresholds_of(of_good, good, options.false_alarm_rate)
        engines[name] = record_of(name, thresholds, parity, engine, built)
        if built is not None and built.content is not None:
            built_files[ENGINES[name].file] = built.content
        report(engine_line(name, engines[name]))
    return _Built(onnx_bytes, opset(onnx_model), plan, reference, engines, built_files)


def _check_before_work(
    options: ExportOptions, verify: Sequence[Path], calibration: Sequence[Path]
) -> None:
    if not verify or not calibration:
        raise ExportError(
            "the checkpoint records no held-out images; name a folder of good images that "
            "were not used in training with --calibrate DIR."
        )
    if options.false_alarm_rate is not None:
        check_image_count(len(calibration), options.false_alarm_rate)
    for name in options.engines or ():
        check_engine(name, to_export=True)


def _check_sizes(options: ExportOptions, network_size: tuple[int, int]) -> None:
    """Refuse what a bundle's reader would refuse."""
    size = options.camera_size or network_size
    if max(*size, *network_size) > MAX_SIDE or not golden_count(size, network_size):
        raise ExportError(
            f"got images of {size[0]}x{size[1]} pixels and a network of "
            f"{network_size[0]}x{network_size[1]}, expected sides up to {MAX_SIDE} and a bundle's "
            f"golden image within {MAX_GOLDEN_BYTES >> 20} MB; train with a smaller --input-size."
        )


def _check_int8(checkpoint: Checkpoint, quantization: Sequence[Path]) -> None:
    method = checkpoint.config.method
    if not open_method(method).quantizes:
        able = ", ".join(name for name in METHODS if open_method(name).quantizes)
        raise ExportError(
            f"got INT8 with method {method}, expected one of {able}; export in another precision."
        )
    if not quantization:
        raise ExportError(
            "the checkpoint records no training images; name a folder of good images for "
            "quantisation with --quantize DIR."
        )


def _golden(paths: Sequence[Path], plan: GraphPlan, reference: Outputs) -> Golden:
    """Take the images of the highest, the median and the lowest score, as many as may be kept.

    Of images that are cut into tiles it is their top left corner.
    """
    contract, (height, width) = plan.contract, plan.golden_size
    anomaly_maps, pred_scores = reference
    order = np.argsort(pred_scores, kind="stable")
    wished = dict.fromkeys(map(int, (order[-1], order[len(order) // 2], order[0])))
    chosen = sorted(list(wished)[: golden_count(contract.size, anomaly_maps.shape[1:])])
    images = np.stack(
        [fit_input(read_image(paths[i], contract.bit_depth), contract) for i in chosen]
    )
    if (height, width) == contract.size:
        return Golden(images, anomaly_maps[chosen], pred_scores[chosen])
    corners = np.ascontiguousarray(images[:, :height, :width])
    return Golden(corners, *torch_scorer(plan.golden_reference)(list(corners)))


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
