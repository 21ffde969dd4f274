"""What the supervisor answers: commands on a Unix socket, metrics on a TCP port.

Whoever can open the socket commands the daemon, so it is its owner's alone (0600). The port serves
only `/metrics`: it may be open to others, whom Prometheus finds by any name or address.
"""

import contextlib
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from peer.config.settings import MetricsSettings
from peer.daemon.supervisor import Supervisor
from peer.observe.serving import add_metrics, application, listen, serving, url_of

DEFAULT_METRICS_PORT = 8470

_LONGEST_PAUSE_S = 366 * 86400.0

Command = Callable[[web.Request], Awaitable[web.Response]]


@contextlib.asynccontextmanager
async def serve_control(supervisor: Supervisor, path: Path) -> AsyncIterator[None]:
    """Serve commands on the Unix socket at `path`."""
    app = application()
    control = Control(supervisor)
    app.router.add_get("/commits", control.commits)
    app.router.add_get("/status", control.status)
    for name, command in control.commands.items():
        app.router.add_post(f"/{name}", command)
    with _unix_listener(path) as listener:
        async with serving(app, listener):
            yield


@contextlib.asynccontextmanager
async def serve_metrics(supervisor: Supervisor, settings: MetricsSettings) -> AsyncIterator[str]:
    """Serve `/metrics` and yield its address.

    Raises:
        ConfigurationError: The address cannot be had.
    """
    listener = listen(
        settings.host,
        settings.port,
        what="/metrics",
        choice="--metrics-port, or host and port under [metrics] in peer.toml",
        default=DEFAULT_METRICS_PORT,
    )
    app = application()
    add_metrics(app, lambda: supervisor.metrics.expose(supervisor.status(), supervisor.rss_bytes()))
    async with serving(app, listener):
        yield f"{url_of(listener)}/metrics"


class Control:
    """The commands as requests; each is answered with the status that follows it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @property
    def commands(self) -> dict[str, Command]:
        """What can be asked for with POST, by name."""
        return {
            "pause": self.pause,
            "resume": self.resume,
            "finish": self.finish,
            "stop": self.stop,
        }

    async def status(self, _request: web.Request) -> web.Response:
        """Answer with the status."""
        return web.json_response(self._supervisor.status())

    async def commits(self, _request: web.Request) -> web.Response:
        """Answer with the last certificates."""
        return web.json_response({"commits": self._supervisor.commits()})

    async def pause(self, request: web.Request) -> web.Response:
        """Pause, for `for_s` seconds if the request says so."""
        try:
            for_s = _pause_seconds(await request.json() if request.can_read_body else {})
            self._supervisor.pause("paused by you", for_s)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=HTTPStatus.BAD_REQUEST)
        return await self.status(request)

    async def resume(self, request: web.Request) -> web.Response:
        """Undo a pause."""
        self._supervisor.resume()
        return await self.status(request)

    async def finish(self, request: web.Request) -> web.Response:
        """Let the epoch under way be the last."""
        self._supervisor.finish()
        return await self.status(request)

    async def stop(self, request: web.Request) -> web.Response:
        """End now."""
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
