"""Asks a server by the open inference protocol (v2), over HTTP or gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from stpm.runtime.errors import BackendError, one_line
from stpm.runtime.serve.answers import ANOMALY_MAP, IMAGES, PER_IMAGE

OUTPUTS = (ANOMALY_MAP, *PER_IMAGE)
CLIENTS = {"http": tritonclient.http, "grpc": tritonclient.grpc}
"""By what a server's address begins with."""


class Client(Protocol):
    """What sends one request and waits for its answer; one thread at a time."""

    def ask(
        self, model: str, version: str, images: NDArray[np.uint8], outputs: Sequence[str] = OUTPUTS
    ) -> dict[str, NDArray[Any]]:
        """Send images and return the outputs asked for.

        Args:
            model: its name on the server.
            version: a number as text; "" takes the server's choice, the latest.
            images: uint8 (N,H,W,C).
            outputs: names.

        Raises:
            BackendError: the server cannot be reached, or refuses.
        """
        ...


class TritonClient:
    """A connection that `tritonclient` keeps."""

    def __init__(self, protocol: str, address: str, timeout_s: float) -> None:
        """Prepare a connection; nothing is sent.

        Args:
            protocol: "http" or "grpc".
            address: HOST:PORT.
            timeout_s: after so many seconds a request has failed.
        """
        self._library = CLIENTS[protocol]
        self._url = f"{protocol}://{address}"
        self._timeout_s = timeout_s
        timeouts = (
            {"connection_timeout": timeout_s, "network_timeout": timeout_s}
            if protocol == "http"
            else {}
        )
        self._per_request = {} if protocol == "http" else {"client_timeout": timeout_s}
        self._client = self._library.InferenceServerClient(address, **timeouts)

    def ask(
        self, model: str, version: str, images: NDArray[np.uint8], outputs: Sequence[str] = OUTPUTS
    ) -> dict[str, NDArray[Any]]:
        """Send images and return the outputs asked for; see `Client`."""
        tensor = self._library.InferInput(IMAGES, list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        wanted = [self._library.InferRequestedOutput(name) for name in outputs]
        try:
            answer = self._client.infer(
                model, [tensor], model_version=version, outputs=wanted, **self._per_request
            )
            arrays = {name: answer.as_numpy(name) for name in outputs}
        except InferenceServerException as error:
            raise BackendError(f"{self._url}: refused the request ({one_line(error)}).") from error
        except Exception as error:
            # gevent, its HTTP client and sockets raise errors without a common base.
            raise BackendError(f"{self._url}: cannot be reached ({one_line(error)}).") from error
        missing = [name for name, array in arrays.items() if array is None]
        if missing:
            raise BackendError(
                f"{self._url}: does not return {', '.join(missing)}; serve the bundle."
            )
        return arrays

    def close(self) -> None:
        """End the connection."""
        self._client.close()
