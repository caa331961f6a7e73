"""Triton's `config.pbtxt` of a bundle, as its protobuf `ModelConfig`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from stpm.runtime.backends import ENGINES
from stpm.runtime.bundle.archive import GOLDEN, MODEL, Bundle, InputContract
from stpm.runtime.errors import BundleError
from stpm.runtime.serve.answers import ANOMALY_MAP, IMAGES, PER_IMAGE
from stpm.runtime.serve.options import TritonBackend, TritonOptions

WARMUP = "warmup"
"""The folder where Triton looks for files of its warm-up."""
VARIABLE = -1
"""A side of any length."""


@dataclass(frozen=True)
class ServedModel:
    """A model of the repository as it is written.

    Attributes:
        config: its `ModelConfig`.
        files: of a version's folder, by name.
        warmup: files of its warm-up.
    """

    config: Any
    files: Mapping[str, bytes]
    warmup: Mapping[str, bytes] = field(default_factory=dict)


def model_config(bundle: Bundle, name: str, version: int, options: TritonOptions) -> Any:
    """Describe a bundle to Triton.

    Args:
        bundle: to be served.
        name: of the model.
        version: the folder of its files.
        options: how it is served.

    Returns:
        A `ModelConfig`; its warm-up reads what `warmup_files` gives.

    Raises:
        BundleError: the graph takes batches that Triton cannot be held to.
    """
    contract = bundle.manifest.input
    batched = contract.batch[0] < contract.batch[1] or options.backend is TritonBackend.PYTHON
    if contract.batch[0] > 1 and options.backend is not TritonBackend.PYTHON and batched:
        raise BundleError(
            f"{bundle.path}: takes batches of {contract.batch[0]} to {contract.batch[1]} "
            "images, expected a minimum of 1, because Triton also sends single images; use "
            "--backend python, or export with --batch 1..N."
        )
    lead = [] if batched else [contract.batch[1]]
    any_size = options.backend is TritonBackend.PYTHON and contract.resize == "host"
    sides = [VARIABLE, VARIABLE] if any_size else list(contract.size)
    config = pb.ModelConfig(
        name=name,
        backend=str(options.backend),
        max_batch_size=contract.batch[1] if batched else 0,
        input=[
            pb.ModelInput(
                name=IMAGES, data_type=pb.TYPE_UINT8, dims=[*lead, *sides, contract.channels]
            ),
        ],
        output=[
            pb.ModelOutput(
                name=ANOMALY_MAP, data_type=pb.TYPE_FP32, dims=[*lead, *bundle.manifest.map_size]
            ),
            *(
                pb.ModelOutput(name=output, data_type=_type_of(dtype), dims=[*lead, 1])
                for output, dtype in PER_IMAGE.items()
            ),
        ],
        version_policy=pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All()),
        instance_group=[_instances(options)],
        dynamic_batching=_batching(options),
        model_warmup=[_warmup(file, lead, contract) for file in warmup_files(bundle)],
    )
    for key, value in parameters(bundle, version, options).items():
        config.parameters[key].string_value = value
    return config


def parameters(bundle: Bundle, version: int, options: TritonOptions) -> dict[str, str]:
    """Return what tells a version's model and thresholds apart; keys begin with its number."""
    manifest = bundle.manifest
    values = {
        "engine": options.engine or "",
        "precision": manifest.precision,
        "tolerance": repr(manifest.tolerance),
        "model_sha256": manifest.files[MODEL].sha256,
        "golden_sha256": manifest.files[GOLDEN].sha256,
    }
    if options.engine:
        record = manifest.engines[options.engine]
        values |= {
            "image_threshold": repr(record.calibration.image_threshold),
            "pixel_threshold": repr(record.calibration.pixel_threshold),
        }
        if record.file is not None:
            built_for = {key: record.built_with.get(key, "") for key in (options.engine, "device")}
            values |= {"engine_sha256": manifest.files[record.file].sha256} | built_for
    return {f"{version}.{key}": value for key, value in values.items()}


def warmup_files(bundle: Bundle) -> Mapping[str, bytes]:
    """Return the golden images' pixels by file name; the names tell their content."""
    images = bundle.golden().images
    pixels = [image.tobytes() for image in images]
    return {f"golden-{hashlib.sha256(content).hexdigest()[:16]}": content for content in pixels}


def config_text(config: Any) -> str:
    """Return a `ModelConfig` as the content of config.pbtxt."""
    return str(text_format.MessageToString(config)).rstrip() + "\n"


def config_from_text(text: str) -> Any:
    """Inverse of `config_text`; ValueError for text that Triton would refuse."""
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error


def interface(config: Any) -> str:
    """Return what all versions of a model must have in common, as text."""
    kept = pb.ModelConfig(
        backend=config.backend,
        platform=config.platform,
        max_batch_size=config.max_batch_size,
        input=config.input,
        output=config.output,
    )
    return config_text(kept)


def _type_of(dtype: type[np.generic]) -> int:
    return int(pb.TYPE_BOOL if dtype is np.bool_ else pb.TYPE_FP32)


def _instances(options: TritonOptions) -> Any:
    on_gpu = options.engine is not None and ENGINES[options.engine].needs_gpu
    if on_gpu:
        # The runtime's engines run on the first GPU.
        group = pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_GPU, gpus=[0])
    else:
        group = pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU)
    group.count = options.instances
    return group


def _batching(options: TritonOptions) -> Any:
    policy = pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=options.timeout_ms * 1000,
        max_queue_size=options.max_queue,
    )
    return pb.ModelDynamicBatching(
        max_queue_delay_microseconds=options.queue_delay_us, default_queue_policy=policy
    )


def _warmup(file: str, lead: list[int], contract: InputContract) -> Any:
    value = pb.ModelWarmup.Input(
        data_type=pb.TYPE_UINT8,
        dims=[*lead, *contract.size, contract.channels],
        input_data_file=file,
    )
    return pb.ModelWarmup(name=file, batch_size=1, inputs={IMAGES: value})
