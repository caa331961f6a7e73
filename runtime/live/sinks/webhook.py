"""An HTTP server that is sent each verdict as JSON."""

from __future__ import annotations

import json
import urllib.request

from stpm.runtime.live.verdict import Event

TIMEOUT = 5.0
"""Seconds."""


class WebhookSink:
    """Posts; an answer that is no success is tried again."""

    wants_images = False

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, event: Event) -> None:
        """Post an entry; urllib raises for an answer of 400 and above."""
        request = urllib.request.Request(
            self._url,
            json.dumps(event.entry).encode(),
            {"Content-Type": "application/json", "User-Agent": "stpm-live"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            answer.read()

    def close(self) -> None:
        """Do nothing."""


def open_sink(address: str) -> WebhookSink:
    """Open "https://...", an address as it stands."""
    return WebhookSink(address)
