"""Serves the live page: to this machine alone, or to whoever has the token."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from stpm.runtime.errors import DataError
from stpm.runtime.live.delivery import Delivery
from stpm.runtime.live.page.metrics import metrics
from stpm.runtime.live.page.state import PageState
from stpm.runtime.live.station import Station

FILES = {"": "page.html", "page.css": "page.css", "page.js": "page.js"}
COOKIE = "stpm-token"
TICK = 0.25
"""Seconds between two looks for news."""
LONGEST_SILENCE = 2.0
"""Seconds after which the page is told all the same: a camera may be lost."""
START = 10.0
"""Seconds that the server has to start."""


@contextmanager
def serve_page(address: str, token: str | None, station: Station) -> Iterator[str]:
    """Serve a station's page while the block runs; yields its address.

    Args:
        address: HOST:PORT; port 0 takes a free one.
        token: that a browser must show once as ?token=..., or as a bearer token.
        station: to show; gains a delivery.

    Raises:
        DataError: the address is malformed, taken, or beyond this machine without a token.
    """
    host, port = _split(address)
    if token is None and not _is_loopback(host):
        raise DataError(
            f"got --page {address}, which other machines can reach, without --page-token; "
            "choose a secret, or serve at 127.0.0.1."
        )
    state = PageState(station)
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        _app(state, station, token), log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    started = time.monotonic()
    while not server.started and thread.is_alive() and time.monotonic() - started < START:
        time.sleep(0.01)
    station.add_delivery(Delivery("page", state))
    try:
        yield f"http://{shown}:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(START)


def _app(state: PageState, station: Station, token: str | None) -> Starlette:
    folder = Path(__file__).parent / "files"

    async def file(request: Request) -> Response:
        name = FILES.get(request.path_params.get("name", ""))
        return Response("none", status_code=404) if name is None else FileResponse(folder / name)

    async def current(_: Request) -> Response:
        return JSONResponse(state.to_dict())

    async def events(request: Request) -> Response:
        return StreamingResponse(
            _events(state, request), media_type="text/event-stream", headers=_UNCACHED
        )

    async def picture(request: Request) -> Response:
        content = state.picture(request.path_params["number"])
        if content is None:
            return Response("gone", status_code=404)
        return Response(content, media_type="image/jpeg")

    async def prometheus(_: Request) -> Response:
        return Response(metrics(station), media_type="text/plain; version=0.0.4")

    routes = [
        Route("/", file),
        Route("/files/{name}", file),
        Route("/state", current),
        Route("/events", events),
        Route("/pictures/{number:int}.jpg", picture),
        Route("/metrics", prometheus),
    ]
    # A name that someone else's page resolves to this machine is none of ours.
    hosts = ["localhost", "127.0.0.1", "[::1]"] if token is None else ["*"]
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]
    if token is not None:
        guards.append(Middleware(BaseHTTPMiddleware, dispatch=_guard(token)))
    return Starlette(routes=routes, middleware=guards)


_UNCACHED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_Next = Callable[[Request], Awaitable[Response]]


def _guard(token: str) -> Callable[[Request, _Next], Awaitable[Response]]:
    """Let in who shows the token; a browser keeps it as a cookie."""

    async def check(request: Request, call_next: _Next) -> Response:
        shown = request.query_params.get("token")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        offered = (shown, bearer, request.cookies.get(COOKIE))
        if not any(one and secrets.compare_digest(one.encode(), token.encode()) for one in offered):
            return Response("the token is missing or wrong; open /?token=...", status_code=401)
        response = await call_next(request)
        if shown:
            response.set_cookie(COOKIE, shown, httponly=True, samesite="strict")
        return response

    return check


async def _events(state: PageState, request: Request) -> AsyncIterator[str]:
    """Tell the page all whenever there is news."""
    told, told_at = -1, 0.0
    while not await request.is_disconnected():
        is_new = state.version != told
        if is_new or time.monotonic() - told_at > LONGEST_SILENCE:
            told, told_at = state.version, time.monotonic()
            yield f"data: {json.dumps(state.to_dict())}\n\n"
        await asyncio.sleep(TICK)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise DataError(
            f"got --page {address!r}, expected HOST:PORT such as 127.0.0.1:8080; correct it."
        )
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise DataError(
            f"the page cannot be served at {host}:{port} ({error.strerror}); choose another port."
        ) from None
