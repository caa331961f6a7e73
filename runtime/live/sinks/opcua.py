"""An OPC UA server with the last verdict and the counts of each camera as variables."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlsplit

from asyncua.sync import Server
from asyncua.ua import VariantType

from stpm.runtime.errors import DataError
from stpm.runtime.live.verdict import Event

NAMESPACE = "https://github.com/stpm/stpm"
PORT = 4840
_LAST = {
    "time": ("", VariantType.String),
    "image": ("", VariantType.String),
    "verdict": ("", VariantType.String),
    "score": (0.0, VariantType.Double),
    "threshold": (0.0, VariantType.Double),
}
_COUNTED = ("ok", "warn", "anomalous", "unaligned", "error", "dropped")


class OpcUaSink:
    """Serves `Objects/stpm/CAMERA/{time,image,verdict,score,threshold,count_*}`."""

    wants_images = False

    def __init__(self, host: str, port: int) -> None:
        self._server = Server()
        self._server.set_endpoint(f"opc.tcp://{host}:{port}/stpm")
        self._server.set_server_name("stpm-live")
        self._index = self._server.register_namespace(NAMESPACE)
        self._server.start()
        self._root = self._server.nodes.objects.add_object(self._index, "stpm")
        self._cameras: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def send(self, event: Event) -> None:
        """Write an entry's values."""
        entry = event.entry
        camera = entry["camera"]
        if camera not in self._cameras:
            self._cameras[camera] = self._variables(camera)
            self._counts[camera] = dict.fromkeys(_COUNTED, 0)
        variables, counts = self._cameras[camera], self._counts[camera]
        for name, (_, kind) in _LAST.items():
            # Without a score, not that of the part before.
            missing = math.nan if kind is VariantType.Double else ""
            variables[name].write_value(entry.get(name, missing), kind)
        counts[entry["verdict"]] += 1
        name = f"count_{entry['verdict']}"
        variables[name].write_value(counts[entry["verdict"]], VariantType.UInt64)

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _variables(self, camera: str) -> dict[str, Any]:
        parent = self._root.add_object(self._index, camera)
        variables = {
            name: parent.add_variable(self._index, name, value, kind)
            for name, (value, kind) in _LAST.items()
        }
        return variables | {
            f"count_{verdict}": parent.add_variable(
                self._index, f"count_{verdict}", 0, VariantType.UInt64
            )
            for verdict in _COUNTED
        }


def open_sink(address: str) -> OpcUaSink:
    """Open "opcua://HOST[:PORT]", the address to serve at.

    Raises:
        DataError: the address lacks a host.
    """
    parts = urlsplit(address)
    if not parts.hostname:
        raise DataError(f"got the sink {address!r}, expected opcua://HOST[:PORT]; correct it.")
    return OpcUaSink(parts.hostname, parts.port or PORT)
