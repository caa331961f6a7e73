"""Where verdicts go: one file a kind of sink, opened by its address."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.live.verdict import Event
from stpm.runtime.store import on_disk


class Sink(Protocol):
    """Somebody who is told of verdicts.

    Attributes:
        wants_images: whether an event has to bring its image and result.
    """

    wants_images: bool

    def send(self, event: Event) -> None:
        """Deliver one; whatever it raises is tried again."""
        ...

    def close(self) -> None:
        """Let go of what it holds; nothing may be lost that was sent."""
        ...


KINDS = {
    "csv": ("stpm.runtime.live.sinks.csv", None),
    "parquet": ("stpm.runtime.live.sinks.parquet", "pyarrow"),
    "mqtt": ("stpm.runtime.live.sinks.mqtt", "paho"),
    "mqtts": ("stpm.runtime.live.sinks.mqtt", "paho"),
    "http": ("stpm.runtime.live.sinks.webhook", None),
    "https": ("stpm.runtime.live.sinks.webhook", None),
    "opcua": ("stpm.runtime.live.sinks.opcua", "asyncua"),
    "pictures": ("stpm.runtime.live.sinks.pictures", None),
}
"""Module of each kind, with an `open_sink(address)`, and the package that it needs."""


def open_sink(address: str) -> Sink:
    """Open a sink.

    Args:
        address: csv:FILE, parquet:FOLDER, mqtt://HOST[:PORT]/TOPIC, https://..., opcua://HOST:PORT
            or pictures:FOLDER[?every=N&max-mb=N].

    Raises:
        DataError: there is no such kind, or the address is malformed.
        BackendError: what it needs is not installed.
    """
    kind = address.partition(":")[0]
    if kind not in KINDS or kind == address:
        raise DataError(
            f"got the sink {address!r}, expected {', '.join(f'{name}:...' for name in KINDS)}; "
            "choose one."
        )
    if kind in ("csv", "parquet", "pictures"):
        on_disk(Path(address.partition(":")[2]))
    module, package = KINDS[kind]
    if package is not None and importlib.util.find_spec(package) is None:
        raise BackendError(f"the sink {kind} needs {package}; run pip install 'stpm[live]'.")
    opener: Callable[[str], Sink] = importlib.import_module(module).open_sink
    try:
        return opener(address)
    except OSError as error:
        raise DataError(
            f"the sink {address!r} cannot be opened ({error.strerror}); check the address."
        ) from None
