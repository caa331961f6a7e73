"""A TensorRT plan for Triton: the plan, the verdict behind it, and the ensemble that clients ask.

A built plan can be given no further outputs, so that its thresholds are a model of their own.
"""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from stpm.runtime.bundle.archive import MODEL, Bundle
from stpm.runtime.serve.answers import ANOMALY_MAP, IMAGES, PER_IMAGE
from stpm.runtime.serve.options import PLAN_ENGINE, TritonOptions
from stpm.runtime.serve.triton_config import ServedModel, model_config, warmup_files
from stpm.runtime.serve.verdict_graph import SCORE, verdict_alone

PLAN_FILE = "model.plan"
NOTE = {"ensemble.txt": b"What this version does stands in ../config.pbtxt.\n"}
"""Triton wants a folder for the version, and stores keep no empty one."""
DECIDED = tuple(name for name in PER_IMAGE if name != SCORE)


def part_names(name: str) -> tuple[str, str]:
    """Return what the plan and the verdict of an ensemble are called."""
    return f"{name}-plan", f"{name}-verdict"


def ensemble_models(
    bundle: Bundle, name: str, version: int, options: TritonOptions
) -> list[ServedModel]:
    """Describe the three models of a bundle's plan, those first that the last one needs.

    Args:
        bundle: that brings a TensorRT engine.
        name: of the ensemble, which takes pixels and gives the verdict.
        version: of all three.
        options: how the plan is served.

    Raises:
        BundleError: the graph takes batches that Triton cannot be held to, or a file was altered.
    """
    plan_name, verdict_name = part_names(name)
    record = bundle.manifest.engines[PLAN_ENGINE]
    assert record.file is not None
    asked = model_config(bundle, name, version, options)
    plan, verdict, ensemble = (_copy(asked) for _ in range(3))
    outputs = {tensor.name: tensor for tensor in asked.output}

    plan.name, plan.platform, plan.backend = plan_name, "tensorrt_plan", ""
    # The plan's own score is (N,); in a batch that Triton forms, N is not among the dims.
    outputs[SCORE].reshape.shape[:] = outputs[SCORE].dims[:-1]
    _set(plan.output, [outputs[ANOMALY_MAP], outputs[SCORE]])

    verdict.name, verdict.backend = verdict_name, "onnxruntime"
    score = pb.ModelInput(name=SCORE, data_type=pb.TYPE_FP32, dims=outputs[SCORE].dims)
    _set(verdict.input, [score])
    _set(verdict.output, [outputs[output] for output in DECIDED])
    on_host = pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)
    _set(verdict.instance_group, [on_host])

    ensemble.platform, ensemble.backend = "ensemble", ""
    ensemble.ClearField("instance_group")
    _tie(ensemble, plan_name, verdict_name, version)
    for part in (plan, verdict):
        # That which the ensemble leaves, and that which it goes on to.
        part.version_policy.latest.num_versions = 2
    for config in (verdict, ensemble):
        config.ClearField("model_warmup")
        config.ClearField("dynamic_batching")
    return [
        ServedModel(plan, {PLAN_FILE: bundle.read(record.file)}, warmup_files(bundle)),
        ServedModel(verdict, {MODEL: verdict_alone(record.calibration)}),
        ServedModel(ensemble, NOTE),
    ]


def _tie(ensemble: Any, plan: str, verdict: str, version: int) -> None:
    """Send pixels to a version of the plan, and its score to the same version of the verdict."""
    # One config for all versions names the parts' versions: only one can be right.
    ensemble.version_policy.latest.num_versions = 1
    ensemble.ensemble_scheduling.step.extend(
        [
            _step(plan, version, [IMAGES], [ANOMALY_MAP, SCORE]),
            _step(verdict, version, [SCORE], DECIDED),
        ]
    )


def _copy(config: Any) -> Any:
    copied = pb.ModelConfig()
    copied.CopyFrom(config)
    return copied


def _set(field: Any, values: list[Any]) -> None:
    del field[:]
    field.extend(values)


def _step(model: str, version: int, inputs: list[str], outputs: tuple[str, ...] | list[str]) -> Any:
    """Return a step whose tensors are called in the ensemble as in the model."""
    return pb.ModelEnsembling.Step(
        model_name=model,
        model_version=version,
        input_map={name: name for name in inputs},
        output_map={name: name for name in outputs},
    )
