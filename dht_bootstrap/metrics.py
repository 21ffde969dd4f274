"""What an entry point tells Prometheus, read off it when asked."""

import contextlib
import platform
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from peer import __version__
from peer.observe.serving import Address, add_metrics, application, listen, serving, url_of
from peer.swarm.validator import EnvelopeValidator, RecordStorage


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
async def serve_metrics(vitals: Vitals, address: Address) -> AsyncIterator[str]:
    """Serve `/metrics` and yield its URL.

    Raises:
        ConfigurationError: The address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(VitalsCollector(vitals))
    ProcessCollector(registry=registry)

    listener = listen(*address, what="/metrics", choice="--metrics-port or --metrics-host")
    app = application()
    add_metrics(app, lambda: generate_latest(registry))
    async with serving(app, listener):
        yield f"{url_of(listener)}/metrics"
