"""The model that Triton's Python backend runs: a `Detector`, for any engine and any image size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton's, inside its process
from numpy.typing import NDArray

from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, StpmError
from stpm.runtime.output.map_score import Views
from stpm.runtime.output.result import Result
from stpm.runtime.serve.answers import IMAGES, answers
from stpm.runtime.serve.options import BUNDLE


@dataclass(frozen=True)
class _Prepared:
    """A request's images: their sizes as sent, the graph's inputs, and how the camera sees them."""

    sizes: list[tuple[int, int]]
    inputs: NDArray[np.uint8]
    views: Views | None


class TritonPythonModel:
    """What Triton calls; see the README of its python_backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the version's bundle, which replays its golden images.

        Args:
            args: Triton's; `model_repository` is the model's folder.

        Raises:
            StpmError: the bundle cannot be trusted or run here; the model is then unavailable.
        """
        _check_arrays()
        version = args["model_version"]
        parameters = json.loads(args["model_config"])["parameters"]
        engine = parameters.get(f"{version}.engine", {}).get("string_value") or None
        self._detector = Detector(Path(args["model_repository"]) / version / BUNDLE, engine)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch; one that cannot be scored is refused alone.

        Args:
            requests: Triton's; each has `images` uint8 (n,H,W,C).

        Returns:
            A response a request, in order.
        """
        outcomes = self._score([self._prepare(request) for request in requests])
        return [_response(*pair) for pair in zip(requests, outcomes, strict=True)]

    def _prepare(self, request: Any) -> _Prepared | StpmError:
        images = pb_utils.get_input_tensor_by_name(request, IMAGES).as_numpy()
        try:
            inputs, views = self._detector.align(self._detector.prepare(images))
            return _Prepared([images.shape[1:3]] * len(images), inputs, views)
        except StpmError as error:
            return error

    def _score(
        self, prepared: Sequence[_Prepared | StpmError]
    ) -> list[Sequence[Result] | StpmError]:
        good = [entry for entry in prepared if isinstance(entry, _Prepared)]
        if not good:
            return [entry for entry in prepared if isinstance(entry, StpmError)]
        sizes = [size for entry in good for size in entry.sizes]
        try:
            outputs = self._detector.infer(np.concatenate([entry.inputs for entry in good]))
        except StpmError as error:
            return [error] * len(prepared)
        views = [view for entry in good for view in entry.views or ()]
        results = iter(self._detector.decide(sizes, outputs, views or None))
        return [
            entry if isinstance(entry, StpmError) else [next(results) for _ in entry.sizes]
            for entry in prepared
        ]


def _check_arrays() -> None:
    """Refuse a NumPy whose arrays this Triton misreads.

    A stub that was compiled before NumPy 2 takes the size of its items for 0: it shows the first
    byte of an image at every pixel, sends empty outputs, and says nothing.
    """
    array = np.arange(6, dtype=np.float32)
    # Through DLPack the stub makes a new array of its own, as it does of a request.
    seen = pb_utils.Tensor.from_dlpack("probe", pb_utils.Tensor("probe", array)).as_numpy()
    if not np.array_equal(seen, array):
        raise BackendError(
            f"this Triton misreads the arrays of NumPy {np.__version__}, expected an older NumPy "
            "or a newer Triton; put a folder with numpy<2 first on PYTHONPATH."
        )


def _response(request: Any, outcome: Sequence[Result] | StpmError) -> Any:
    if isinstance(outcome, StpmError):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(outcome)))
    arrays = answers(outcome, request.requested_output_names())
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, array) for name, array in arrays.items()]
    )
