"""What the supervisor answers: commands on a Unix socket, metrics on a TCP port.

Whoever can open the socket commands the daemon, so it is its owner's alone (0600). The port serves
only `/metrics`.
"""

import contextlib
import json
import math
import socket
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from peer.config.settings import MetricsSettings
from peer.daemon.supervisor import Supervisor
from peer.errors import ConfigurationError
from peer.observe.metrics import CONTENT_TYPE

DEFAULT_METRICS_PORT = 8470

_LONGEST_PAUSE_S = 366 * 86400.0
_LARGEST_REQUEST_BYTES = 4096
_SHUTDOWN_TIMEOUT_S = 2.0


@contextlib.asynccontextmanager
async def serve_control(supervisor: Supervisor, path: Path) -> AsyncIterator[None]:
    """Serve commands on the Unix socket at `path`."""
    app = web.Application(client_max_size=_LARGEST_REQUEST_BYTES)
    control = _Control(supervisor)
    app.router.add_get("/commits", control.commits)
    app.router.add_get("/status", control.status)
    app.router.add_post("/pause", control.pause)
    app.router.add_post("/resume", control.resume)
    app.router.add_post("/finish", control.finish)
    app.router.add_post("/stop", control.stop)
    with _unix_listener(path) as listener:
        async with _serving(app, listener):
            yield


@contextlib.asynccontextmanager
async def serve_metrics(supervisor: Supervisor, settings: MetricsSettings) -> AsyncIterator[str]:
    """Serve `/metrics` and yield its address.

    Raises:
        ConfigurationError: The address cannot be had.
    """
    listener = _listen(settings)

    async def metrics(_request: web.Request) -> web.Response:
        body = supervisor.metrics.expose(supervisor.status(), supervisor.rss_bytes())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    app = web.Application(client_max_size=_LARGEST_REQUEST_BYTES)
    app.router.add_get("/metrics", metrics)
    host, port = listener.getsockname()[:2]
    async with _serving(app, listener):
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


class _Control:
    """The commands as requests; each is answered with the status that follows it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._supervisor.status())

    async def commits(self, _request: web.Request) -> web.Response:
        return web.json_response({"commits": self._supervisor.commits()})

    async def pause(self, request: web.Request) -> web.Response:
        try:
            for_s = _pause_seconds(await request.json() if request.can_read_body else {})
            self._supervisor.pause("paused by you", for_s)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=HTTPStatus.BAD_REQUEST)
        return await self.status(request)

    async def resume(self, request: web.Request) -> web.Response:
        self._supervisor.resume()
        return await self.status(request)

    async def finish(self, request: web.Request) -> web.Response:
        self._supervisor.finish()
        return await self.status(request)

    async def stop(self, request: web.Request) -> web.Response:
        self._supervisor.stop()
        return await self.status(request)


def _pause_seconds(body: Any) -> float | None:
    """Return how long to pause; None is until further notice."""
    if not isinstance(body, dict) or set(body) - {"for_s"}:
        raise ValueError(f"a pause takes for_s and nothing else, not {json.dumps(body)[:100]}")
    for_s = body.get("for_s")
    if for_s is None:
        return None
    if isinstance(for_s, bool) or not isinstance(for_s, int | float):
        raise ValueError("for_s is a number of seconds")  # noqa: TRY004 the request is at fault
    if not math.isfinite(for_s) or not 0.0 < for_s <= _LONGEST_PAUSE_S:
        raise ValueError(f"for_s lies between 0 and {_LONGEST_PAUSE_S:.0f} seconds")
    return float(for_s)


def _listen(settings: MetricsSettings) -> socket.socket:
    wanted = settings.port
    if wanted is None:
        with contextlib.suppress(OSError):
            return _bind(settings.host, DEFAULT_METRICS_PORT)
    try:
        return _bind(settings.host, wanted or 0)
    except OSError as error:
        raise ConfigurationError(
            f"/metrics cannot be served on {settings.host} port {wanted or 'any'}: "
            f"{error.strerror or error}; choose another address with "
            "--metrics-port, or host and port under [metrics] in peer.toml"
        ) from error


@contextlib.contextmanager
def _unix_listener(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)  # a killed daemon leaves its own behind
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        # Nobody can connect before it listens, so nobody can come in between.
        path.chmod(0o600)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)


@contextlib.asynccontextmanager
async def _serving(app: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
        listener.close()
