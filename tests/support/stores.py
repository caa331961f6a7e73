"""Stores on the loopback that hold a folder's files: a web server, and moto's S3."""

from __future__ import annotations

import functools
import http.server
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_store(folder: Path) -> Iterator[str]:
    """Serve a folder as it is at each request; yields its address."""
    pytest.importorskip("fsspec.implementations.http")
    handler = functools.partial(_Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@contextmanager
def s3_store(folder: Path) -> Iterator[str]:
    """Serve a copy of a folder, with the variables of AWS set to it; yields its address."""
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
    os.environ.update(settings)  # processes that are started inherit it
    try:
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        bucket = f"bucket-{uuid.uuid4().hex}"  # all of moto's servers in a process have the same
        system.mkdir(bucket)
        system.put(f"{folder}/", f"{bucket}/archive/", recursive=True)
        yield f"s3://{bucket}/archive"
    finally:
        for name in settings.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


STORES = {"http": http_store, "s3": s3_store}
