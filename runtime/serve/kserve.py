"""KServe's `InferenceService` for a repository of models that lies in a store."""

from __future__ import annotations

import json
import re

from stpm.runtime.errors import DataError

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A name in Kubernetes (RFC 1123)."""


def inference_service(name: str, storage_uri: str, *, gpus: int = 0) -> str:
    """Return the YAML of an `InferenceService` of protocol v2 on KServe's Triton.

    Args:
        name: of the service.
        storage_uri: of the repository that `stpm-serve triton` wrote, such as s3://bucket/models.
        gpus: NVIDIA GPUs of a replica.

    Raises:
        DataError: Kubernetes takes no such name, or the address is none of a store.
    """
    if _LABEL.fullmatch(name) is None:
        raise DataError(
            f"got the service name {name!r}, expected at most 63 of a-z, 0-9 and '-' as Kubernetes "
            "does; choose one with --name."
        )
    if re.fullmatch(r"[a-z0-9+.-]+://[^\s/]\S*", storage_uri) is None:
        raise DataError(
            f"got {storage_uri!r}, expected the address of the models, such as "
            "s3://bucket/models or pvc://claim/models; copy them there and give that "
            "address."
        )
    limits = f'      resources:\n        limits:\n          nvidia.com/gpu: "{gpus}"\n'
    return f"""apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {json.dumps(name)}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      protocolVersion: v2
      runtime: kserve-tritonserver
      storageUri: {json.dumps(storage_uri)}
{limits if gpus else ""}"""
