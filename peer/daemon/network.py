"""The thread in which this peer meets the others: its node, who is there, what it gives away.

The training thread calls in and waits, with signs of life to the supervisor. When the node dies
the thread says so, and the worker ends to be started again: nothing is repaired in place.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from peer.clock import Clock
from peer.config.home import Home
from peer.config.settings import SwarmSettings
from peer.daemon.discovery import Discovery
from peer.daemon.port import keep_port, same_port
from peer.daemon.presence import Presence, shown_addresses
from peer.data import claims
from peer.data.index import DataIndex, Shard
from peer.data.source import PublicShards
from peer.errors import AbandonedError, ConfigurationError, NetworkLostError, PeerError
from peer.events import Heartbeat, Message, Phase, PhaseChanged
from peer.identity import Identity
from peer.run.directory import RunDirectory
from peer.run.manifest import dump_manifest
from peer.swarm.blobs import BlobServer
from peer.swarm.dht import Dht
from peer.swarm.dialback import DialBack
from peer.swarm.download import fetch_blob
from peer.swarm.manifests import fetch_run
from peer.swarm.membership import Roster, load_known_peers
from peer.swarm.node import Node, NodeOptions
from peer.swarm.throttle import Line
from peer.swarm.validator import EnvelopeValidator
from peer.training.muster import Limits, Muster

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_HEARTBEAT_S = 1.0
_POLL_S = 0.1
_GLANCE_S = 0.2
_PROBE_S = 2.0
_SETTLE_S = 6.0
_JOIN_PATIENCE_S = 24.0
"""How long a run may not come any nearer before its fetching is given up."""
_STOP_TIMEOUT_S = 10.0
_SHARD_TIMEOUT_S = 3600.0


class Network:
    """A peer's network. `start` it, `join` a run, and `stop` it at last.

    Args:
        home: Where known peers and the port are kept.
        settings: The volunteer's.
        identity: Ours.
        run_id: The run.
        clock: The time.
        emit: Takes events.
        line: Bounds all that is sent and received.
    """

    def __init__(
        self,
        home: Home,
        settings: SwarmSettings,
        identity: Identity,
        run_id: str,
        clock: Clock,
        emit: Callable[[Message], None],
        line: Line | None = None,
    ) -> None:
        self._home = home
        self._settings = settings
        self._identity = identity
        self._run_id = run_id
        self._clock = clock
        self._emit = emit
        self._lost: str | None = None
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="network", daemon=True)
        self._validator = EnvelopeValidator(clock)
        self._roster = Roster(identity.peer_id)
        self._tasks: list[asyncio.Task[None]] = []
        self._progress_s = 0.0
        self._node: Node | None = None
        self._discovery: Discovery
        self._presence: Presence
        self._requests: list[Counter[str]] = []
        self._endings: list[Callable[[], None]] = []
        self.line = line or Line.of(None, None)
        """Bounds all that goes out and comes in."""
        self.upload = self.line.given(settings.upload_bytes_per_s)
        """Bounds all that goes to peers that fetch files, states and averages."""
        self.muster: Muster
        """Our standing and the others; there once a run was joined."""

    # ---- for the training thread

    def start(self, addresses: Iterable[str]) -> None:
        """Start the node and meet whoever is at `addresses`, or was known before.

        Raises:
            ConfigurationError: An address cannot be had, or the clock is wrong.
            CtpeerError: p2pd does not start.
        """
        known = load_known_peers(self._home.known_peers_path)
        for peer, where in known.items():
            self._roster.learn(peer, where)
        cached = tuple(address for where in known.values() for address in where)
        self._thread.start()
        self.wait(self._start((*addresses, *self._settings.peers), cached))

    def check(self) -> None:
        """Raise NetworkLostError if the network died."""
        if self._lost is not None:
            raise NetworkLostError(self._lost)

    def wait(
        self,
        work: Coroutine[Any, Any, _Result],
        abandon: Callable[[], bool] = lambda: False,
    ) -> _Result:
        """Run `work` in the network's thread and return its result; gives signs of life.

        Raises:
            AbandonedError: `abandon` said so; the work was cancelled.
            NetworkLostError: The network died.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        beaten_s = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                return future.result(_POLL_S)
            if future.done():  # a TimeoutError of its own
                return future.result()
            if abandon() or self._lost is not None:
                if not future.cancel():  # it came to its end this very moment
                    return future.result()
                self.check()
                raise AbandonedError
            if time.monotonic() - beaten_s >= _HEARTBEAT_S:
                beaten_s = time.monotonic()
                self._emit(Heartbeat())

    def glance(self, work: Coroutine[Any, Any, object]) -> None:
        """Run `work` in the network's thread, and wait for it only for a moment."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        with contextlib.suppress(TimeoutError):
            future.result(_GLANCE_S)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` go on beside everything else, for as long as we live."""
        self.post(self._begin, work)

    def post(self, step: Callable[..., None], *arguments: object) -> None:
        """Have `step` called in the network's thread, in the order of posting."""
        self._loop.call_soon_threadsafe(step, *arguments)

    def fetch_run(self, abandon: Callable[[], bool]) -> RunDirectory:
        """Fetch the run, and all that its manifest names, from whoever has it.

        Raises:
            AbandonedError: `abandon` said so first.
            ConfigurationError: Nobody can be reached, or nobody gave it.
        """
        self._emit(PhaseChanged(phase=Phase.JOINING, reason="looking for peers of the run"))
        return self.wait(self._fetch_run(), abandon)

    def fetch_shard(self, run: RunDirectory, shard: Shard) -> Path | None:
        """Return where `shard` lies after it was fetched from other peers; None if nobody has it.

        Called by any thread.
        """
        future = asyncio.run_coroutine_threadsafe(self._fetch_shard(run, shard), self._loop)
        try:
            return future.result(_SHARD_TIMEOUT_S)
        except TimeoutError:
            future.cancel()
            return None

    def join(self, run: RunDirectory, index: DataIndex, limits: Limits) -> None:
        """Serve the run's files, and make ourselves known to its peers."""
        self.wait(self._join(run, index, limits))

    def claimed(self, index: DataIndex) -> dict[str, int]:
        """Return how many other live peers claim a shard, by its name."""
        return self.wait(self._presence.claimed(index))

    def claim(self, index: DataIndex, names: Iterable[str]) -> None:
        """Claim the shards `names` for as long as we live."""
        self._presence.claim = claims.encode(self._identity.peer_id, index, names)

    def count_refusals(self, requests: Counter[str]) -> None:
        """Report what a server counts as refused requests, by reason, from now on."""
        self._requests.append(requests)

    def on_stop(self, step: Callable[[], None]) -> None:
        """Have `step` called in the network's thread when it stops."""
        self._endings.append(step)

    def settle(self) -> None:
        """Wait until we know who is there, but not for long."""
        self.wait(self._settle())

    def stop(self) -> None:
        """End everything; also after the network was lost."""
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError, PeerError):
                asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_STOP_TIMEOUT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_TIMEOUT_S)

    # ---- in the network's thread

    @property
    def dht(self) -> Dht:
        """Where the run's records lie."""
        return self._running.dht

    @property
    def _running(self) -> Node:
        assert self._node is not None
        return self._node

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        except Exception as error:
            log.exception("the network's thread died")
            self._lost = f"the network's thread died: {error}"

    async def _start(self, initial: tuple[str, ...], cached: tuple[str, ...]) -> None:
        client = self._settings.client
        options = NodeOptions(
            identity_path=self._home.identity_path,
            listen=same_port(self._settings.listen, self._home.port_path),
            announce=self._settings.announce,
            initial_peers=tuple(dict.fromkeys(initial)),
            known_peers=tuple(dict.fromkeys(cached)),
            client=client,
            auto_relay=client and self._settings.relay and bool(initial),
            line=self.line,
        )
        self._node = await Node.start(
            options, self._identity, self._validator, on_misbehaved=self._on_misbehaved
        )
        self._discovery = Discovery(
            self._node, self._roster, self._run_id, self._settings.call_timeout_s
        )
        keep_port(self._running.addresses, self._home.port_path)
        log.info("listening at %s", ", ".join(self._running.addresses) or "no address")
        self._begin(self._watch_node())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        task.add_done_callback(self._note_end)
        self._tasks.append(task)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part of the network failed", exc_info=error)
            self._lost = f"a part of the network failed: {error}"

    async def _watch_node(self) -> None:
        """Notice within seconds that p2pd died or froze."""
        while True:
            try:
                await self._running.probe()
            except PeerError as error:
                self._lost = str(error)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_S):
                    await self._running.ended()

    async def _join(self, run: RunDirectory, index: DataIndex, limits: Limits) -> None:
        self.muster = Muster(
            self._identity,
            self._running.transport,
            self._run_id,
            self._roster,
            limits,
            self._clock,
            self._emit,
        )
        self.muster.line = self.line
        self.muster.client = self._running.options.client
        self.muster.resting = True
        self.muster.addresses = shown_addresses(self._running)
        await self.muster.start()
        shards = PublicShards(index, run.sources, run.shards_path)

        async def find(hash_: str) -> Path | None:
            return run.find_blob(hash_) or await shards.find(hash_)

        manifest = (dump_manifest(run.manifest), run.signatures())
        transport = self._running.transport
        blobs = BlobServer(transport, self._run_id, find, manifest, self.upload)
        self.count_refusals(blobs.refused)
        await blobs.start()
        await DialBack(transport, self._run_id).start()
        self._presence = Presence(
            self._running,
            self.muster,
            self._roster,
            self._discovery,
            self._home.known_peers_path,
            self._clock,
            self._emit,
            self._refused,
        )
        for part in (*self._presence.parts(), self.muster.watch()):
            self._begin(part)

    def _refused(self) -> Mapping[str, Counter[str]]:
        records = Counter({str(k): v for k, v in self._validator.refused.items()})
        return {"records": records, "requests": sum(self._requests, Counter[str]())}

    async def _settle(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self._discovery.look(self.muster)

    async def _fetch_run(self) -> RunDirectory:
        self._progress_s = self._loop.time()
        problem = "no peer of the run could be reached"
        while self._loop.time() - self._progress_s < _JOIN_PATIENCE_S:
            try:
                await self._discovery.learn()
                donors = await self._discovery.donors()
                if donors:
                    return await fetch_run(
                        self._running.transport,
                        self._run_id,
                        donors,
                        self._home.runs_path,
                        self._note_progress,
                    )
            except PeerError as error:
                problem = str(error)
            await asyncio.sleep(1.0)
        told = self._running.options.initial_peers
        if told and all(address.endswith(f"/p2p/{self._identity.peer_id}") for address in told):
            raise ConfigurationError(
                f"the invite leads to a peer of this very identity: {self._home.identity_path} is "
                "a copy; delete it here to become a peer of its own"
            )
        # libp2p's words have lines; ours are one sentence.
        named = "; ".join(" ".join(why.split()) for why in self._running.unreachable.values())
        raise ConfigurationError(
            f"the run {self._run_id} cannot be joined: {problem}{f' ({named})' if named else ''}; "
            "check the network, or ask for a fresh invite"
        )

    def _note_progress(self, what: str, done: int, total: int) -> None:
        self._progress_s = self._loop.time()
        reason = f"fetching {what}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
        self._emit(PhaseChanged(phase=Phase.JOINING, reason=reason))

    async def _fetch_shard(self, run: RunDirectory, shard: Shard) -> Path | None:
        target = run.shards_path / shard.sha256
        donors = sorted(self.muster.live())
        if not donors:
            await self._discovery.look(self.muster)
            donors = sorted(self.muster.live())
        try:
            await fetch_blob(
                self._running.transport, self._run_id, shard.sha256, shard.bytes, target, donors
            )
        except PeerError as error:
            log.warning("the shard %s was not fetched: %s", shard.name, error)
            return None
        return target

    def _on_misbehaved(self, peer: str, name: str, reason: str) -> None:
        log.debug("%s misbehaved at %s: %s", peer, name, reason)
        if hasattr(self, "muster"):
            self.muster.misbehaved(peer, reason)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for step in self._endings:
            step()
        if self._node is not None:
            await self._node.stop()
