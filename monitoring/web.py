"""What the exporter serves over HTTP: what is known, at once, whatever the crawl is doing.

It only reads. A request that names another host than this machine is refused, or a page in
somebody's browser could read it under a name of its own that leads here (DNS rebinding).
"""

import ipaddress
import json
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from prometheus_client import generate_latest

from monitoring import board
from monitoring.expose import make_registry
from monitoring.watcher import Picture, Watcher
from peer.observe.page.site import Handler
from peer.observe.page.swarm import add_swarm_page
from peer.observe.serving import add_metrics, application

_STALE_CRAWLS = 3
_STALE_S = 60.0
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Site:
    """The pages of one watched swarm.

    Args:
        watcher: What it shows.
        names: Host names under which it may be asked, beside IP addresses and localhost.
    """

    def __init__(self, watcher: Watcher, names: Iterable[str] = ()) -> None:
        self._watcher = watcher
        self._names = {"localhost", *(name.lower() for name in names)}
        self._registry = make_registry(watcher)

    def app(self) -> web.Application:
        """Return the application that serves them."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = application([guard])
        add_metrics(app, lambda: generate_latest(self._registry))
        app.router.add_get("/sd", self._targets)
        app.router.add_get("/swarm", self._swarm)
        app.router.add_get("/leaderboard", self._leaderboard)
        app.router.add_get("/verdicts", self._verdicts)
        app.router.add_get("/healthz", self._health)
        add_swarm_page(app, self._look)
        return app

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_own_host(request.headers.get("Host", ""), self._names):
            raise web.HTTPForbidden(
                text="this host name is not served here; name it with --allow-host\n"
            )
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            _harden(refusal)
            raise
        _harden(response)
        return response

    async def _targets(self, _request: web.Request) -> web.Response:
        # Who answered where is proven by each crawl anew: an address may be somebody else's by now.
        picture = self._watcher.picture if problem_of(self._watcher) is None else None
        return _json(service_discovery(self._watcher.watched.run_id, picture))

    async def _swarm(self, _request: web.Request) -> web.Response:
        self._picture()
        return _json(self._look())

    def _look(self) -> dict[str, Any] | None:
        """Return what is known of the swarm; None before the first crawl is complete."""
        picture = self._watcher.picture
        if picture is None:
            return None
        run_id, totals = self._watcher.watched.run_id, self._watcher.totals
        return board.swarm(run_id, picture.found, picture.view, totals)

    async def _leaderboard(self, _request: web.Request) -> web.Response:
        picture = self._picture()
        run_id = self._watcher.watched.run_id
        return _json(board.leaderboard(run_id, picture.found, picture.view))

    async def _verdicts(self, _request: web.Request) -> web.Response:
        return _json(board.verdicts(self._watcher.watched.run_id, self._picture().found))

    async def _health(self, _request: web.Request) -> web.Response:
        problem = problem_of(self._watcher)
        status = HTTPStatus.OK if problem is None else HTTPStatus.SERVICE_UNAVAILABLE
        return _json({"ok": problem is None, "problem": problem}, status)

    def _picture(self) -> Picture:
        picture = self._watcher.picture
        if picture is None:
            text = json.dumps({"error": "the first crawl is not complete; ask again soon"})
            raise web.HTTPServiceUnavailable(text=text, content_type="application/json")
        return picture


def _harden(response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


def is_own_host(header: str, names: Iterable[str]) -> bool:
    """Return whether a Host header names this machine: by an IP address, or one of `names`.

    An address cannot be pointed elsewhere by whoever made the page that asks.
    """
    bracket = header.startswith("[")
    host = header[1:].partition("]")[0] if bracket else header.partition(":")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return not bracket and host.lower() in set(names)
    return bracket == (ip.version == 6)  # noqa: PLR2004 a version, not a number


def service_discovery(run_id: str, picture: Picture | None) -> list[dict[str, Any]]:
    """Return the targets as http_sd takes them; an empty list where there is none.

    https://prometheus.io/docs/prometheus/latest/http_sd/
    """
    offered = picture.targets.offered if picture is not None else {}
    return [
        {"targets": [str(endpoint)], "labels": {"run": run_id, "peer_id": peer}}
        for peer, endpoint in offered.items()
    ]


def problem_of(watcher: Watcher) -> str | None:
    """Return why what is shown is not to be relied on, in words, or None."""
    if not watcher.started:
        return "the node is starting"
    if not watcher.alive:
        return "the crawl ended; start the exporter again"
    taken_s = watcher.picture.taken_s if watcher.picture is not None else watcher.began_s
    age_s = time.monotonic() - taken_s
    if age_s > _STALE_CRAWLS * watcher.watched.interval_s + _STALE_S:
        return f"no crawl has brought records for {age_s:.0f} s; is any peer of the run reachable?"
    if watcher.picture is None:
        return "the first crawl is not complete"
    return None


def _json(body: Any, status: int = HTTPStatus.OK) -> web.Response:
    text = json.dumps(body, allow_nan=False)
    return web.Response(text=text, status=status, content_type="application/json")
