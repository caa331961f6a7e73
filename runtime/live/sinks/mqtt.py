"""MQTT 5: a message a verdict, of quality of service 1, acknowledged before the next."""

from __future__ import annotations

import json
import threading
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from stpm.runtime.errors import DataError
from stpm.runtime.live.verdict import Event

TIMEOUT = 5.0
"""Seconds until an acknowledgement is given up, and the message sent again."""
PORT, TLS_PORT = 1883, 8883


class MqttSink:
    """Publishes to TOPIC/CAMERA. The broker may come later, and come back."""

    wants_images = False

    def __init__(
        self, host: str, port: int, topic: str, user: str, password: str, *, tls: bool
    ) -> None:
        self._topic = topic
        self._address = (host, port)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        if user:
            self._client.username_pw_set(user, password or None)
        if tls:
            self._client.tls_set()
        self._client.reconnect_delay_set(1, 10)
        self._started = False
        self._acknowledged = threading.Event()
        self._sending = threading.Lock()
        self._refusal = ""
        self._pending: tuple[Event, int] | None = None
        self._client.on_publish = self._on_publish

    def send(self, event: Event) -> None:
        """Publish an entry, and wait until the broker has it.

        Raises:
            ConnectionError: it has not acknowledged in time; sending the same event again waits on,
                since the client repeats it by itself once it is connected.
        """
        if not self._started:
            self._client.connect(*self._address)
            self._client.loop_start()
            self._started = True
        if self._pending is None or self._pending[0] is not event:
            topic = f"{self._topic}/{event.entry['camera']}"
            self._acknowledged.clear()
            with self._sending:
                message = self._client.publish(topic, json.dumps(event.entry), qos=1)
                self._pending = event, message.mid
        # Without a connection paho keeps the message until there is one.
        if not self._acknowledged.wait(TIMEOUT):
            raise ConnectionError(f"{self._address[0]}: no acknowledgement in {TIMEOUT:g} s")
        self._pending = None
        if self._refusal:
            raise ConnectionError(f"{self._address[0]}: refuses the message ({self._refusal})")

    def _on_publish(
        self, _client: object, _data: object, mid: int, reason: ReasonCode, *_: object
    ) -> None:
        with self._sending:  # so that `send` knows the number before it is acknowledged
            if self._pending is not None and self._pending[1] == mid:
                self._refusal = str(reason) if reason.is_failure else ""
                self._acknowledged.set()

    def close(self) -> None:
        """Disconnect."""
        if self._started:
            self._client.disconnect()
            self._client.loop_stop()


def open_sink(address: str) -> MqttSink:
    """Open "mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC"; mqtts and port 8883 are TLS.

    Raises:
        DataError: the address lacks a host or a topic.
    """
    parts = urlsplit(address)
    topic = parts.path.strip("/")
    if not parts.hostname or not topic or any(sign in address for sign in "+#"):
        raise DataError(
            f"got the sink {address!r}, expected mqtt://HOST[:PORT]/TOPIC such as "
            "mqtt://broker/line1/verdicts; correct it."
        )
    user, password = (unquote(text or "") for text in (parts.username, parts.password))
    is_secure = parts.scheme == "mqtts" or parts.port == TLS_PORT
    port = parts.port or (TLS_PORT if is_secure else PORT)
    return MqttSink(parts.hostname, port, topic, user, password, tls=is_secure)
