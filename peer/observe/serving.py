"""HTTP at a TCP port, for all that is told over it: the port opened, or refused in words."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple

from aiohttp import web

from peer.errors import ConfigurationError

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LARGEST_REQUEST_BYTES = 4096
_SHUTDOWN_TIMEOUT_S = 2.0


class Address(NamedTuple):
    """Where to listen; port 0 is any free one."""

    host: str
    port: int


def listen(
    host: str, port: int | None, *, what: str, choice: str, default: int = 0
) -> socket.socket:
    """Return a listener.

    Args:
        host: A name or an IP address of this machine.
        port: The one that was asked for, 0 for any free one; None for `default` if it is free,
            else any free one.
        what: What it is for, and
        choice: how to choose another: for the person who reads that it cannot be had.
        default: The port where none was asked for.

    Raises:
        ConfigurationError: It cannot be had.
    """
    if port is None:
        with contextlib.suppress(OSError, UnicodeError):
            return _bind(host, default)
    try:
        return _bind(host, port or 0)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"{what} cannot be served on {host} port {port or 'any'}: {_words(error)}; "
            f"choose another address with {choice}"
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the address of what a TCP listener serves, without a path."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def application(middlewares: Iterable[Any] = ()) -> web.Application:
    """Return an application that takes small requests only."""
    return web.Application(client_max_size=_LARGEST_REQUEST_BYTES, middlewares=middlewares)


def add_metrics(app: web.Application, expose: Callable[[], bytes]) -> None:
    """Have `app` serve at `/metrics` what `expose` returns: metrics as Prometheus reads them."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=expose(), headers={"Content-Type": METRICS_TYPE})

    app.router.add_get("/metrics", metrics)


@contextlib.asynccontextmanager
async def serving(app: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    """Serve `app` on `listener`, and close both in the end."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
    with listener:
        try:
            await runner.setup()
            await web.SockSite(runner, listener).start()
            yield
        finally:
            await runner.cleanup()


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)


def _words(error: OSError | UnicodeError) -> str:
    """Return why there is no such listener, without the address, which is told already."""
    if isinstance(error, UnicodeError):
        return "this is no name of a host"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)
