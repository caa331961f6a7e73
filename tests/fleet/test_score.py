"""`stpm-fleet score`: a row an image, each once, from the disk and over HTTP."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stpm.fleet.store import list_images, local_bundle
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, DataError

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")
ENGINE = "onnxruntime"
TIMEOUT_S = 300
COPIES = 5


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """The tiny data set's images several times, and a file that is none."""
    root = tmp_path_factory.mktemp("archive")
    for copy in range(COPIES):
        shutil.copytree(data_root / "weave/train/good", root / f"day{copy}")
    (root / "day0/broken.png").write_text("no image")
    (root / "notes.txt").write_text("left out")
    return root


@pytest.fixture(scope="module", params=["http", "s3"])
def store(request: pytest.FixtureRequest, archive: Path, bundle_path: Path) -> Iterator[str]:
    """A store on the loopback: the address of a folder with images and bundle."""
    with (_http if request.param == "http" else _s3)(archive, bundle_path) as address:
        yield address


@contextmanager
def _http(archive: Path, bundle: Path) -> Iterator[str]:
    (archive / "weave.stpm").symlink_to(bundle)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    (archive / "weave.stpm").unlink()


@contextmanager
def _s3(archive: Path, bundle: Path) -> Iterator[str]:
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(settings)  # the fleet's workers inherit it
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    system.put(f"{archive / 'day0'}/", "bucket/archive/day0/", recursive=True)
    system.put(f"{bundle}/", "bucket/archive/weave.stpm/", recursive=True)
    yield "s3://bucket/archive"
    for name in settings.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    server.stop()


def command(*words: object) -> list[str]:
    flags = ["--engine", ENGINE, "--workers", "1"]
    return [sys.executable, "-m", "stpm.fleet", "score", *map(str, words), *flags]


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for file in out.glob("*.parquet") for row in pq.read_table(file).to_pylist()]


def test_a_row_an_image_also_after_a_kill(archive: Path, bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    words = command(bundle_path, archive, "--out", out)
    killed = subprocess.Popen(words, start_new_session=True)
    time.sleep(12)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    subprocess.run(words, check=True, timeout=TIMEOUT_S)
    rows = rows_of(out)
    paths = sorted(str(path) for path in archive.glob("day*/*.png"))
    assert sorted(row["path"] for row in rows) == paths
    detector = Detector(bundle_path, ENGINE, threads=1)
    for row in rows:
        if row["path"].endswith("broken.png"):
            assert "not an image" in row["error"]
            assert row["score"] is row["is_anomalous"] is None
            continue
        result = detector(row["path"])
        assert (row["score"], row["is_anomalous"]) == (result.score, result.is_anomalous)
        assert row["threshold"] == result.threshold
        boxes = [[r["top"], r["left"], r["bottom"], r["right"]] for r in row["regions"]]
        assert boxes == [list(region.box) for region in result.regions]

    half, *_ = sorted(out.glob("*.parquet"))
    half.write_bytes(half.read_bytes()[:-9])
    again = subprocess.run(words, check=True, timeout=TIMEOUT_S, capture_output=True, text=True)
    assert "Traceback" not in again.stderr
    assert sorted(row["path"] for row in rows_of(out)) == paths
    done = subprocess.run(words, check=True, timeout=TIMEOUT_S, capture_output=True, text=True)
    assert f"{len(paths)} images, {len(paths)} scored before" in done.stderr


def test_bundle_and_images_may_lie_in_a_store(
    store: str, archive: Path, bundle_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    words = command(f"{store}/weave.stpm", f"{store}/day0", "--out", out)
    subprocess.run(words, check=True, timeout=TIMEOUT_S)
    detector = Detector(bundle_path, ENGINE, threads=1)
    rows = {row["path"].rpartition("/")[2]: row for row in rows_of(out)}
    assert sorted(rows) == sorted(path.name for path in (archive / "day0").glob("*.png"))
    assert rows["broken.png"]["path"] == f"{store}/day0/broken.png"
    assert "not an image" in rows.pop("broken.png")["error"]
    for name, row in rows.items():
        assert row["score"] == detector(archive / "day0" / name).score


def test_a_bundle_in_a_store_is_copied_for_a_while(store: str, bundle_path: Path) -> None:
    with local_bundle(f"{store}/weave.stpm") as folder:
        assert Bundle(folder).manifest == Bundle(bundle_path).manifest
    assert not folder.exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nosuch://bucket/images", "cannot be opened"),
        ("http://127.0.0.1:9/images", "cannot be listed"),
    ],
)
def test_a_store_that_cannot_be_had_is_one_sentence(path: str, said: str) -> None:
    with pytest.raises(BackendError, match=said):
        list_images(path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no images"):
        list_images(str(tmp_path))
