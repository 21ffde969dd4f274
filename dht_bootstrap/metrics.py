"""What an entry point tells Prometheus, read off it when asked."""

import contextlib
import os
import platform
import socket
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from peer import __version__
from peer.errors import ConfigurationError
from peer.observe.metrics import CONTENT_TYPE
from peer.swarm.validator import EnvelopeValidator, RecordStorage

_LARGEST_REQUEST_BYTES = 4096
_SHUTDOWN_TIMEOUT_S = 2.0


class MetricsAddress(NamedTuple):
    """Where `/metrics` is served; port 0 is a free one."""

    host: str
    port: int


class Vitals(Protocol):
    """What there is to tell."""

    validator: EnvelopeValidator
    storage: RecordStorage
    p2pd_restarts: int

    @property
    def p2pd_up(self) -> bool:
        """Whether p2pd was alive when last looked at."""
        ...

    @property
    def node_count(self) -> int:
        """How many nodes the routing table holds."""
        ...

    @property
    def connected_count(self) -> int:
        """How many peers there were connections to when last looked at."""
        ...


class VitalsCollector(Collector):
    """The metrics of an entry point, all present from the first scrape on."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        vitals = self._vitals
        refused = CounterMetricFamily(
            "ctpeer_records_refused", "Records of the DHT that were refused.", labels=["reason"]
        )
        for reason, count in vitals.validator.refused.items():
            refused.add_metric([reason], count)
        yield refused
        yield CounterMetricFamily(
            "ctpeer_p2pd_restarts", "Deaths of p2pd that were repaired.", vitals.p2pd_restarts
        )
        storage = vitals.storage
        for name, text, value in (
            ("records", "Records held for all runs.", storage.record_count),
            ("record_keys", "Keys that have records; a few a run.", storage.key_count),
            ("routing_table_peers", "Nodes of the DHT that are known.", vitals.node_count),
            ("connected_peers", "Peers that there is a connection to.", vitals.connected_count),
            ("p2pd_up", "Whether p2pd answers.", vitals.p2pd_up),
        ):
            yield GaugeMetricFamily(f"ctpeer_bootstrap_{name}", text, value)
        build = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("ctpeer_build", "The code that runs.", build)


@contextlib.asynccontextmanager
async def serve_metrics(vitals: Vitals, address: MetricsAddress) -> AsyncIterator[str]:
    """Serve `/metrics` and yield its URL.

    Raises:
        ConfigurationError: The address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(VitalsCollector(vitals))
    ProcessCollector(registry=registry)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application(client_max_size=_LARGEST_REQUEST_BYTES)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    with _listener(address) as listener:
        host, port = listener.getsockname()[:2]
        try:
            await web.SockSite(runner, listener).start()
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        finally:
            await runner.cleanup()


def _listener(address: MetricsAddress) -> socket.socket:
    host, port = address
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"/metrics cannot be served on {host} port {port or 'any'}: "
            f"{os.strerror(error.errno) if error.errno else error}; choose another address with "
            "--metrics-port or --metrics-host"
        ) from error
