"""Sinks against what they talk to: a broker, a server, a client, files."""

from __future__ import annotations

import csv
import getpass
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stations import entry, wait_until

from stpm.runtime import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.live.delivery import Delivery
from stpm.runtime.live.sinks import open_sink
from stpm.runtime.live.verdict import Event

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def send(address: str, count: int) -> None:
    sink = open_sink(address)
    for number in range(count):
        sink.send(Event(entry(number)))
    sink.close()


def test_csv_grows(tmp_path: Path) -> None:
    path = tmp_path / "a" / "verdicts.csv"
    send(f"csv:{path}", 2)
    send(f"csv:{path}", 1)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["part0.png", "part1.png", "part0.png"]
    assert [float(row["score"]) for row in rows] == [0.25, 1.25, 0.25]


def test_a_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "parts.csv"
    path.write_bytes(b"part;weight\r\n1;2\r\n")
    with pytest.raises(DataError, match="begins with 'part;weight', expected a new file"):
        open_sink(f"csv:{path}")
    assert path.read_bytes() == b"part;weight\r\n1;2\r\n"


def test_a_row_that_the_disk_refuses_is_written_once(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "verdicts.csv"
    sink = open_sink(f"csv:{path}")
    sink.send(Event(entry(0)))
    whole, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, limits[1]))
    try:
        for _ in range(3):
            with pytest.raises(OSError, match=r"No space left|File too large"):
                sink.send(Event(entry(1)))
            assert path.read_bytes() == whole
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    sink.send(Event(entry(1)))
    sink.close()
    with path.open(newline="") as file:
        rows = [row["image"] for row in csv.DictReader(file)]
    assert rows == ["part0.png", "part1.png"]


def test_rows_of_a_table_that_the_disk_refuses_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stpm.runtime.live.sinks import parquet

    monkeypatch.setattr(parquet, "ROWS", 2)
    folder = tmp_path / "tables"
    sink = open_sink(f"parquet:{folder}")
    sink.send(Event(entry(0)))
    folder.rmdir()
    second = Event(entry(1))
    for _ in range(3):
        with pytest.raises(OSError, match="No such file"):
            sink.send(second)
    folder.mkdir()
    sink.send(second)
    sink.send(Event(entry(2)))
    sink.close()
    rows = pq.read_table(folder).to_pylist()
    assert [row["image"] for row in rows] == ["part0.png", "part1.png", "part2.png"]
    assert [row["latency_ms"] for row in rows] == [1.5] * 3


def test_parquet_has_types_and_errors(tmp_path: Path) -> None:
    sink = open_sink(f"parquet:{tmp_path}")
    sink.send(Event(entry(1)))
    bad = {k: v for k, v in entry(2, "error").items() if k not in ("score", "sha256")}
    sink.send(Event(bad | {"error": "cut", "latency_ms": {}}))
    sink.close()
    rows = pq.read_table(tmp_path).to_pylist()
    assert [row["score"] for row in rows] == [1.25, None]
    assert [row["error"] for row in rows] == [None, "cut"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".parquet"]


class Server:
    """An HTTP server that answers with an error at first."""

    def __init__(self, failures: int) -> None:
        self.bodies: list[dict[str, object]] = []
        outer, left = self, [failures]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                left[0] -= 1
                if left[0] < 0:
                    outer.bodies.append(json.loads(body))
                self.send_response(200 if left[0] < 0 else 503)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/verdicts"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_a_webhook_that_fails_is_asked_again() -> None:
    server = Server(failures=2)
    delivery = Delivery(server.url, open_sink(server.url))
    for number in range(3):
        delivery.put(Event(entry(number)))
    wait_until(lambda: delivery.sent == 3)
    delivery.close(5)
    server.server.shutdown()
    assert server.bodies == [entry(number) for number in range(3)]


class Broker:
    """A mosquitto of its own, that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nuser {getpass.getuser()}\n"
        )
        self.start()

    def start(self) -> None:
        assert MOSQUITTO
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def answers() -> bool:
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(answers)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    running = Broker(tmp_path)
    yield running
    running.stop()


def test_a_broker_that_comes_back_has_every_verdict(broker: Broker) -> None:
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    received: list[tuple[str, int, dict[str, object]]] = []
    # A session that the broker keeps: what comes before it is back waits for it.
    listener = mqtt.Client(
        CallbackAPIVersion.VERSION2, "listener", clean_session=False, protocol=mqtt.MQTTv311
    )
    listener.reconnect_delay_set(1, 1)
    subscribed = threading.Event()
    listener.on_connect = lambda client, *_: client.subscribe("line/#", qos=1)
    listener.on_subscribe = lambda *_: subscribed.set()
    listener.on_message = lambda _c, _u, message: received.append(
        (message.topic, message.qos, json.loads(message.payload))
    )
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    assert subscribed.wait(10)
    address = f"mqtt://127.0.0.1:{broker.port}/line"
    delivery = Delivery(address, open_sink(address))
    for number in range(5):
        delivery.put(Event(entry(number)))
    wait_until(lambda: delivery.sent == 5)
    broker.stop()
    for number in range(5, 10):
        delivery.put(Event(entry(number)))
    wait_until(lambda: bool(delivery.state))
    subscribed.clear()
    broker.start()
    assert subscribed.wait(20)
    wait_until(lambda: delivery.sent == 10, 60)
    wanted = {f"part{number}.png" for number in range(10)}
    wait_until(lambda: {body["image"] for *_, body in received} == wanted)
    delivery.close(5)
    listener.loop_stop()
    assert {topic for topic, *_ in received} == {"line/top"}
    assert {quality for _, quality, _ in received} == {1}
    assert delivery.lost == 0


def test_a_broker_that_refuses_has_not_got_it(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic read line/#\ntopic write other/#\n")
    config = tmp_path / "mosquitto.conf"
    config.write_text(config.read_text() + f"acl_file {tmp_path / 'acl'}\n")
    broker.stop()
    broker.start()
    for topic, arrives in (("line", False), ("other", True)):
        sink = open_sink(f"mqtt://127.0.0.1:{broker.port}/{topic}")
        if arrives:
            sink.send(Event(entry()))
        else:
            with pytest.raises(ConnectionError, match="refuses the message"):
                sink.send(Event(entry()))
        sink.close()


def test_opc_ua_serves_the_last_verdict_and_counts() -> None:
    from asyncua.sync import Client

    port = free_port()
    sink = open_sink(f"opcua://127.0.0.1:{port}")
    try:
        for number, verdict in enumerate(("ok", "anomalous", "ok")):
            sink.send(Event(entry(number, verdict)))
        with Client(f"opc.tcp://127.0.0.1:{port}/stpm") as client:
            index = client.get_namespace_index("https://github.com/stpm/stpm")
            camera = client.nodes.objects.get_child([f"{index}:stpm", f"{index}:top"])

            def value(name: str) -> object:
                return camera.get_child([f"{index}:{name}"]).read_value()

            assert value("verdict") == "ok"
            assert value("score") == 2.25
            assert value("image") == "part2.png"
            assert [value(f"count_{name}") for name in ("ok", "anomalous", "warn")] == [2, 1, 0]
    finally:
        sink.close()


def test_pictures_of_rejected_and_of_every_second_good(
    detector: Detector, good: list[Path], bad: list[Path], tmp_path: Path
) -> None:
    sink = open_sink(f"pictures:{tmp_path}?every=2&max-mb=1")
    for number, path in enumerate([*good[:4], bad[0]]):
        image = load_image(path)
        result = detector(image)
        verdict = "anomalous" if path in bad else "ok"
        sink.send(Event(entry(number, verdict), image, result))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name.split("-", 1)[1] for name in names] == [
        *("top-ok-overlay.png", "top-ok.png") * 2,
        *("top-anomalous-overlay.png", "top-anomalous.png"),
    ]
    kept = [name for name in names if name.endswith("anomalous.png")]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / kept[0])), load_image(bad[0]))


def test_a_picture_that_the_disk_refuses_is_kept_later(
    detector: Detector, good: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    sink = open_sink(f"pictures:{folder}?every=2")
    first, second, third = (
        Event(entry(number), image, detector(image))
        for number, image in enumerate(map(load_image, good[:3]))
    )
    sink.send(first)
    folder.rmdir()  # as a disk that is full or gone
    for _ in range(2):
        with pytest.raises(OSError, match="No such file"):
            sink.send(second)
    folder.mkdir()
    sink.send(second)
    sink.send(third)
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [
        "20260504T063001000000Z-top-ok-overlay.png",
        "20260504T063001000000Z-top-ok.png",
    ]


def test_pictures_keep_to_their_room(detector: Detector, good: list[Path], tmp_path: Path) -> None:
    image = load_image(good[0])
    sink = open_sink(f"pictures:{tmp_path}?max-mb=0.05")
    for number in range(12):
        sink.send(Event(entry(number, "anomalous"), image, detector(image)))
    files = sorted(tmp_path.iterdir())
    assert 0 < sum(path.stat().st_size for path in files) <= 50_000
    assert "T063011" in files[-1].name  # the newest stay
    assert "T063000" not in files[0].name


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("kafka://host/topic", "expected csv:..., parquet:..."),
        ("csv", "expected csv:..."),
        ("mqtt://host", "expected mqtt://HOST[:PORT]/TOPIC"),
        ("mqtt://host/a/#", "expected mqtt://HOST[:PORT]/TOPIC"),
        ("opcua://", "expected opcua://HOST[:PORT]"),
        ("pictures:kept?often=1", "expected pictures:FOLDER?every=N&max-mb=N"),
        ("pictures:kept?every=x", "with whole numbers N"),
        ("csv:/", "cannot be opened (Is a directory)"),
        ("pictures:/dev/null", "cannot be opened (File exists)"),
    ],
)
def test_addresses_that_are_none(address: str, says: str) -> None:
    with pytest.raises(DataError) as error:
        open_sink(address)
    assert says in str(error.value)
