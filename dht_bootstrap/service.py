"""An entry point at work: one node, watched, and started again in its place when p2pd dies."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import NamedTuple

from dht_bootstrap.metrics import serve_metrics
from peer.config.address import parse_address
from peer.errors import UnreachableError
from peer.identity import Identity
from peer.observe.notify import ServiceManager
from peer.observe.serving import Address
from peer.swarm.bodies import PeerBody
from peer.swarm.dht import EnvelopeValidator, RecordStorage
from peer.swarm.node import Node, NodeOptions

log = logging.getLogger(__name__)

_PROBE_INTERVAL_S = 5.0
_PROBES_A_LIMIT = 3
_REJOIN_EVERY_PROBES = 12
_STEADY_S = 60.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_KNOWN_PEERS = 32


class Started(NamedTuple):
    """What to tell the person who started it, and the peers."""

    peer_id: str
    addresses: tuple[str, ...]
    reachability: str
    metrics_url: str


class Bootstrap:
    """An entry point. Its records outlive p2pd.

    Args:
        options: How its node meets others.
        identity: The key at `options.identity_path`.
        metrics_address: Where to serve `/metrics`.
        manager: The service manager that started us; told that we live whenever p2pd answers.

    Attributes:
        validator: What refuses records.
        storage: The records.
        p2pd_restarts: How often p2pd died and was started again.
        connected_count: How many peers there were connections to when last looked at.
    """

    def __init__(
        self,
        options: NodeOptions,
        identity: Identity,
        metrics_address: Address,
        manager: ServiceManager,
    ) -> None:
        self.validator = EnvelopeValidator()
        self.storage = RecordStorage(self.validator)
        self.p2pd_restarts = 0
        self.connected_count = 0
        self._options = options
        self._identity = identity
        self._metrics_address = metrics_address
        self._manager = manager
        watchdog_s = manager.watchdog_s or _PROBES_A_LIMIT * _PROBE_INTERVAL_S
        self._probe_interval_s = min(_PROBE_INTERVAL_S, watchdog_s / _PROBES_A_LIMIT)
        self._node: Node | None = None

    @property
    def p2pd_up(self) -> bool:
        """Whether p2pd was alive when last looked at."""
        return self._node is not None

    @property
    def node_count(self) -> int:
        """How many nodes the routing table holds."""
        return len(self._node.dht.nodes) if self._node is not None else 0

    async def serve(self, stop: asyncio.Event, on_started: Callable[[Started], None]) -> None:
        """Serve until `stop`; tell `on_started` where, once.

        Raises:
            ConfigurationError: An address cannot be had, or the clock is wrong.
            CtpeerError: p2pd does not start.
        """
        stopped = asyncio.create_task(stop.wait())
        try:
            async with serve_metrics(self, self._metrics_address) as metrics_url:

                def tell(node: Node) -> None:
                    on_started(
                        Started(node.peer_id, node.addresses, node.reachability(), metrics_url)
                    )

                await self._serve_nodes(stopped, tell)
        finally:
            self._manager.stopping()
            stopped.cancel()

    async def _serve_nodes(self, stopped: asyncio.Task[bool], tell: Callable[[Node], None]) -> None:
        """Run one node after the other until `stopped`; each takes the place of the last."""
        clock, pause_s = asyncio.get_running_loop().time, _FIRST_PAUSE_S
        while (node := await self._start(stopped)) is not None:
            started_s = clock()
            try:
                if not self.p2pd_restarts:
                    tell(node)
                    self._manager.ready()
                self._node = node
                problem = await self._watch(node, stopped)
            finally:
                self._node = None
                await node.stop()
            if problem is None:
                return
            self.p2pd_restarts += 1
            log.warning("%s; it is started again", problem)
            self._manager.status(f"{problem}; it is started again")
            self._options = self._same_place(node)
            steady = clock() - started_s > _STEADY_S
            pause_s = _FIRST_PAUSE_S if steady else min(2 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.wait({stopped}, timeout=pause_s)

    async def _start(self, stopped: asyncio.Task[bool]) -> Node | None:
        """Return a new node, or None if `stopped` comes before."""
        starting = asyncio.create_task(
            Node.start(self._options, self._identity, self.validator, storage=self.storage)
        )
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            return await starting
        starting.cancel()
        await asyncio.wait({starting})
        if not starting.cancelled() and starting.exception() is None:
            await starting.result().stop()
        return None

    async def _watch(self, node: Node, stopped: asyncio.Task[bool]) -> str | None:
        """Return what broke, or None when `stopped`."""
        ended = asyncio.create_task(node.ended())
        rejoining = asyncio.create_task(asyncio.sleep(0))
        try:
            for probes in range(1 << 62):
                await asyncio.wait(
                    {ended, stopped},
                    timeout=self._probe_interval_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if stopped.done():
                    return None
                await node.probe()
                self.connected_count = len(await node.connected())
                self._manager.alive()
                self._manager.status(self._words())
                if probes % _REJOIN_EVERY_PROBES == 0 and rejoining.done():
                    rejoining = asyncio.create_task(node.rejoin())
        except UnreachableError as error:
            return str(error)
        finally:
            ended.cancel()
            rejoining.cancel()
        return None

    def _words(self) -> str:
        connected, records = self.connected_count, self.storage.record_count
        return f"connected to {connected} peers, holding {records} records"

    def _same_place(self, node: Node) -> NodeOptions:
        """Return options for a node at the addresses of `node`, that knows whom it knew."""
        ports = [a.port for text in node.addresses if (a := parse_address(text)) is not None]
        listen = node.options.listen
        if len(set(ports)) == 1:
            listen = tuple(text.replace("/tcp/0", f"/tcp/{ports[0]}") for text in listen)
        bodies = [e.body for e in self.storage.sample(_KNOWN_PEERS) if e.kind == "peer"]
        known = [b.addresses[0] for b in bodies if isinstance(b, PeerBody) and b.addresses]
        peers = [a for a in known if (p := parse_address(a)) is not None and p.names_a_peer]
        return dataclasses.replace(node.options, listen=listen, known_peers=tuple(peers))
