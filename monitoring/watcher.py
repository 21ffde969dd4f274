"""The exporter's eye: a node that serves nobody, in a thread of its own, and the newest picture.

It is started again when its p2pd dies. Crawling never makes whoever asks for the picture wait.
"""

import asyncio
import contextlib
import dataclasses
import logging
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import uvloop

from monitoring.crawl import Crawler
from monitoring.findings import Findings
from monitoring.names import Stage
from monitoring.targets import Targets, choose_targets
from monitoring.totals import Totals
from monitoring.view import View, aggregate
from monitoring.watched import Watched
from peer.clock import SystemClock
from peer.config.address import parse_address
from peer.errors import CtpeerError, PeerError
from peer.identity import Identity
from peer.run.manifest import Manifest
from peer.swarm.node import Node, NodeOptions
from peer.swarm.validator import EnvelopeValidator

log = logging.getLogger(__name__)

_CRAWL_TIMEOUT_S = 300.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STOP_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 120.0
_STUCK_AFTER_S = _CRAWL_TIMEOUT_S + 60.0
RESULTS = ("complete", "partial", "failed")

_TROUBLE = (CtpeerError, PeerError, OSError)
"""What a node may fail of; a deadline that passed is an OSError."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """The swarm as of a crawl.

    Attributes:
        found: What the crawl found.
        view: What it means.
        targets: What is offered to Prometheus.
        taken_s: When, on the monotonic clock.
        unix_time_s: When, on the wall clock.
        crawl_s: How long it took.
    """

    found: Findings
    view: View
    targets: Targets
    taken_s: float
    unix_time_s: float
    crawl_s: float


class Watcher:
    """Watches one run. `start` it, look at its attributes, and `stop` it at last.

    Attributes:
        picture: The newest one; None before the first crawl succeeded.
        totals: What adds up.
        crawls: Crawls by result.
        validator: What refuses records.
        node_up: Whether p2pd was alive when last looked at.
        node_restarts: How often p2pd died and was started again.
        dht_nodes: Nodes of the DHT that are known.
        began_s: When it was started, on the monotonic clock.
    """

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.picture: Picture | None = None
        self.totals = Totals()
        self.crawls = dict.fromkeys(RESULTS, 0)
        self.validator = EnvelopeValidator()
        self.node_up = False
        self.node_restarts = 0
        self.dht_nodes = 0
        self.began_s = time.monotonic()
        named = [parse_address(address) for address in watched.addresses]
        peers = [address.peer_id for address in named if address is not None]
        self._crawler = Crawler(watched.run_id, peers, SystemClock())
        if watched.manifest is not None:
            self._crawler.take_manifest(watched.manifest)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="watcher", daemon=True)
        self._work: asyncio.Task[None] | None = None
        self._crawled = threading.Event()
        self._moved_s = self.began_s

    @property
    def moves(self) -> bool:
        """Whether crawls, or attempts at them, come to an end in time."""
        limit_s = _STUCK_AFTER_S + self.watched.interval_s
        return self.alive and time.monotonic() - self._moved_s < limit_s

    @property
    def failures(self) -> Mapping[Stage, int]:
        """Steps of crawls that failed."""
        return self._crawler.failures

    @property
    def dropped(self) -> Mapping[str, int]:
        """Good records that were not kept, by kind."""
        return self._crawler.dropped

    @property
    def manifest(self) -> Manifest | None:
        """The run's, once it is here."""
        return self._crawler.manifest

    @property
    def started(self) -> bool:
        """Whether the node came up once."""
        return self._work is not None

    @property
    def alive(self) -> bool:
        """Whether the work goes on: its end is never in order before `stop`."""
        return self._work is not None and not self._work.done()

    def start(self) -> None:
        """Start the node.

        Raises:
            ConfigurationError: The clock is wrong.
            CtpeerError: p2pd does not start.
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result(_START_TIMEOUT_S)
        except (PeerError, OSError) as error:
            raise CtpeerError(f"the node does not start: {error or 'it took too long'}") from error

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the next crawl; return whether there was one."""
        self._crawled.clear()
        return self._crawled.wait(timeout_s)

    def stop(self) -> None:
        """End everything."""
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
                ending.result(_STOP_TIMEOUT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_TIMEOUT_S)

    # ---- in the watcher's thread

    async def _begin(self) -> None:
        node = await self._start_node()
        self._work = asyncio.create_task(self._serve(node))
        self._work.add_done_callback(_tell_end)

    async def _end(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _start_node(self) -> Node:
        # p2pd has read the key by then, which nothing that ends this process leaves behind later.
        with tempfile.TemporaryDirectory(prefix="ctpeer-monitor-") as folder:
            path = Path(folder) / "identity.key"
            identity = Identity.load_or_create(path)
            options = NodeOptions(
                identity_path=path,
                initial_peers=self.watched.addresses,
                known_peers=self.watched.known,
                client=True,
            )
            return await Node.start(options, identity, self.validator)

    async def _serve(self, node: Node) -> None:
        """Crawl with one node after the other; each takes the place of the last."""
        pause_s = _FIRST_PAUSE_S
        while True:
            self.node_up = True
            try:
                await self._crawl_with(node)
            except _TROUBLE as error:
                log.warning("%s; the node is started again", error or "it took too long")
            finally:
                self.node_up = False
                await node.stop()
            while True:
                self.node_restarts += 1
                self._moved_s = time.monotonic()
                self._crawler.failures[Stage.NODE] += 1
                await asyncio.sleep(pause_s)
                try:
                    node = await self._start_node()
                    break
                except _TROUBLE as error:
                    log.warning("%s", error or "the node took too long to start")
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _crawl_with(self, node: Node) -> None:
        ended = asyncio.create_task(node.ended())
        try:
            while True:
                await node.probe()
                await self._crawl(node)
                await asyncio.wait({ended}, timeout=self.watched.interval_s)
        finally:
            ended.cancel()

    async def _crawl(self, node: Node) -> None:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_CRAWL_TIMEOUT_S):
                found, whole = await self._crawler.crawl(node)
        except TimeoutError:
            found, whole = None, False
        self.dht_nodes = len(node.dht.nodes)
        if found is None:
            self.crawls["failed"] += 1
        else:
            self.picture = await asyncio.to_thread(self._draw, found, began_s)
            self.crawls["complete" if whole else "partial"] += 1
        self._moved_s = time.monotonic()
        self._crawled.set()

    def _draw(self, found: Findings, began_s: float) -> Picture:
        """Return the picture of what was found, and add it to the totals."""
        totals, now_s = self.totals, time.monotonic()
        totals.take_row(found.row)
        totals.take_verdicts(found.chain)
        if found.ledger is not None:
            totals.take_good(found.ledger.last_good.state_root, found.now_s)
        if found.row:
            base = found.row[-1].vote.base
            totals.take_head(base.generation, base.epoch + 1, found.now_s)
        view = aggregate(found, totals)
        told = {p: found.statuses[p] for p in view.live if p in found.statuses}
        totals.take_counts(
            {
                p: {"committed": s.committed, "failed": s.failed, "refused": s.refused}
                for p, s in told.items()
            }
        )
        announced = {p: s.metrics for p, s in found.statuses.items() if s.metrics}
        targets = choose_targets(
            announced, found.remotes, found.members, allow_private=self.watched.allow_private
        )
        return Picture(
            found=found,
            view=view,
            targets=targets,
            taken_s=now_s,
            unix_time_s=found.now_s,
            crawl_s=now_s - began_s,
        )


def _tell_end(work: "asyncio.Task[None]") -> None:
    if not work.cancelled() and (error := work.exception()) is not None:
        log.error("the watcher's work ended", exc_info=error)
