"""A node of the swarm: one p2pd, the streams over it and the DHT on it, in the caller's loop.

It starts, tells whether it still works, and ends with nothing left behind. It repairs nothing: its
owner starts another one.
"""

import asyncio
import dataclasses
import logging
from pathlib import Path

from peer.clock import Clock, SystemClock
from peer.config.address import parse_address
from peer.errors import ConfigurationError, CtpeerError, UnreachableError
from peer.identity import Identity
from peer.swarm.dht import Dht, EnvelopeValidator, RecordStorage
from peer.swarm.libp2p import Libp2p
from peer.swarm.listening import (
    check_announced,
    check_listened,
    check_peers,
    reachability_of,
)
from peer.swarm.records import CLOCK_TOLERANCE_S
from peer.swarm.streams import OnMisbehaved, StreamTransport
from peer.swarm.throttle import Line

__all__ = ["Node", "NodeOptions", "StreamTransport"]

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_ASK_TIMEOUT_S = 4.0
_QUICK_S = 3.0
"""How long a start waits for the slower of its first peers once it knows one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """How a node meets others.

    Attributes:
        identity_path: Its key, in libp2p's form.
        listen: Multiaddrs to listen at; port 0 is a free one.
        announce: Multiaddrs to tell others in place of those that the machine knows of itself.
        initial_peers: Multiaddrs of peers, each ending in /p2p/ID, that a person named.
        known_peers: The same of peers that were met before: tried, too, but strangers.
        client: Whether to listen nowhere and serve no records.
        relay: Whether to carry others' streams if libp2p finds that everybody can reach this node.
        public: Whether that is known beforehand; libp2p needs other peers to find out.
        auto_relay: Whether to be reachable over others; libp2p takes three minutes for it.
        start_timeout_s: How long p2pd may take to start.
        connect_timeout_s: How long to wait for an answer from the first peers.
        line: What bounds all that it sends and receives over streams; None does not.
    """

    identity_path: Path
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    announce: tuple[str, ...] = ()
    initial_peers: tuple[str, ...] = ()
    known_peers: tuple[str, ...] = ()
    client: bool = False
    relay: bool = False
    public: bool = False
    auto_relay: bool = False
    start_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    line: Line | None = None


class Node:
    """A running node. Use `start`.

    Attributes:
        options: How it was started.
        transport: Streams to and from other peers.
        dht: The records.
        unreachable: Which of the initial and known peers did not answer, and why.
    """

    def __init__(
        self, options: NodeOptions, libp2p: Libp2p, transport: StreamTransport, dht: Dht
    ) -> None:
        self.options = options
        self.transport = transport
        self.dht = dht
        self.unreachable: dict[str, str] = {}
        self._libp2p = libp2p
        self._addresses: tuple[str, ...] = ()

    @classmethod
    async def start(
        cls,
        options: NodeOptions,
        identity: Identity,
        validator: EnvelopeValidator,
        *,
        storage: RecordStorage | None = None,
        clock: Clock | None = None,
        on_misbehaved: OnMisbehaved | None = None,
    ) -> "Node":
        """Start p2pd, meet the initial peers, and serve.

        Initial peers that do not answer are no error: see `unreachable`, and `rejoin`.

        Raises:
            ConfigurationError: An address cannot be had or makes no sense, or the clock is wrong.
            CtpeerError: p2pd does not start.
        """
        check_announced(options.announce)
        check_peers(options.initial_peers)
        libp2p = await _launch(options)
        try:
            assert libp2p.peer_id == identity.peer_id
            dht = await Dht.start(
                libp2p.p2p,
                identity,
                validator,
                storage=storage,
                client=options.client,
                clock=clock or SystemClock(),
            )
            transport = StreamTransport(libp2p, on_misbehaved, options.line)
            node = cls(options, libp2p, transport, dht)
            node._addresses = await libp2p.addresses(_ASK_TIMEOUT_S)
            await node._join()
        except BaseException:
            await libp2p.stop()
            raise
        return node

    @property
    def peer_id(self) -> str:
        """Our own peer id."""
        return self._libp2p.peer_id

    @property
    def p2pd_pid(self) -> int:
        """The process id of p2pd."""
        return self._libp2p.pid

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs of this node, as of the last probe, each ending in /p2p/ID."""
        return self._addresses

    async def connect(self, address: str) -> None:
        """Tell p2pd where a peer is and dial it; a node of the DHT is met there, too.

        Raises:
            UnreachableError: It is not there, or the address is none.
        """
        peer_id = await self._dial(address)
        try:
            await self.dht.ping(peer_id)
        except UnreachableError as error:
            log.debug("%s", error)  # a client is none

    async def probe(self) -> None:
        """Find out whether p2pd is alive and at work.

        Raises:
            UnreachableError: It ended, is frozen, or cannot be talked to.
        """
        for last in (False, True):
            problem = self._libp2p.problem()
            if problem is not None:
                raise UnreachableError(problem)
            try:
                self._addresses = await self._libp2p.addresses(_ASK_TIMEOUT_S)
            except UnreachableError:
                if last:  # once may have been our own loop that was late
                    raise
            else:
                return

    async def ended(self) -> None:
        """Wait for the end of p2pd, which is never in order before `stop`."""
        await self._libp2p.ended()

    async def connected(self) -> frozenset[str]:
        """Return the ids of the peers that there is a connection to.

        Raises:
            UnreachableError: p2pd does not answer.
        """
        return await self._libp2p.peers(_ASK_TIMEOUT_S)

    async def remotes(self) -> dict[str, frozenset[str]]:
        """Return where the peers really are that there is a direct connection to: IPs by peer id.

        Raises:
            UnreachableError: p2pd does not answer.
        """
        found: dict[str, frozenset[str]] = {}
        for peer_id, addresses in (await self._libp2p.remotes(_ASK_TIMEOUT_S)).items():
            parsed = [parse_address(address) for address in addresses]
            found[peer_id] = frozenset(a.ip for a in parsed if a and a.ip and not a.relayed)
        return found

    async def rejoin(self) -> None:
        """Try those of the initial and known peers again that are not in the routing table."""
        told = (*self.options.initial_peers, *self.options.known_peers)
        away = [address for address in told if _peer_of(address) not in self.dht.nodes]
        await asyncio.gather(*map(self.connect, away), return_exceptions=True)

    def reachability(self) -> str:
        """Return from where this node can be reached, in words, as far as can be known."""
        return reachability_of(self._addresses, client=self.options.client)

    async def stop(self) -> None:
        """End p2pd and all that hangs on it."""
        await self.transport.close()
        await self.dht.close()
        await self._libp2p.stop()

    async def _dial(self, address: str) -> str:
        parsed = parse_address(address)
        if parsed is None or not parsed.names_a_peer:
            raise UnreachableError(f"{address[:100]!r} is no address of a peer")
        where = address.removesuffix(f"/p2p/{parsed.peer_id}")
        try:
            await self._libp2p.connect(parsed.peer_id, where, self.options.connect_timeout_s)
        except (ValueError, UnreachableError) as error:
            raise UnreachableError(f"{address} cannot be reached: {error}") from error
        return parsed.peer_id

    async def _join(self) -> None:
        """Meet the initial peers, and compare clocks with them."""
        ahead_s: dict[str, float] = {}

        async def meet(address: str) -> None:
            try:
                peer_id = await self._dial(address)
                ahead_s[peer_id] = await self.dht.ping(peer_id)
            except UnreachableError as error:
                self.unreachable[address] = str(error)

        told = (*self.options.initial_peers, *self.options.known_peers)
        tasks = {asyncio.create_task(meet(address)) for address in told}
        try:
            slow = (await asyncio.wait(tasks, timeout=_QUICK_S))[1] if tasks else set()
            if slow and not ahead_s:
                await asyncio.wait(slow, timeout=self.options.connect_timeout_s)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        named = {_peer_of(address) for address in self.options.initial_peers}
        _check_clock({peer: s for peer, s in ahead_s.items() if peer in named})
        for address in told:
            if _peer_of(address) in ahead_s:
                self.unreachable.pop(address, None)
            else:
                self.unreachable.setdefault(address, f"{address} did not answer in time")
        for address in self.options.initial_peers:
            if address in self.unreachable:
                log.warning("%s", self.unreachable[address])


async def _launch(options: NodeOptions) -> Libp2p:
    """Start p2pd, again if it fails.

    Raises:
        ConfigurationError: An address cannot be listened at.
        CtpeerError: It failed each time.
    """
    local = all((a := parse_address(t)) is not None and a.reach == 0 for t in options.listen)
    extra = () if options.relay else ("-relayService=0",)
    reachability = "public" if options.public else "private" if options.auto_relay else None
    problem = ""
    for _ in range(_ATTEMPTS):
        check_listened(() if options.client else options.listen)
        try:
            return await Libp2p.start(
                options.start_timeout_s,
                extra,
                identity_path=str(options.identity_path),
                host_maddrs=None if options.client else options.listen,
                no_listen=options.client,
                announce_maddrs=options.announce or None,
                dht_mode="client" if options.client else "server",
                force_reachability=reachability,
                nat_port_map=not local and not options.client,
                use_auto_relay=options.auto_relay,
                trusted_relays=options.initial_peers if options.auto_relay else None,
            )
        except UnreachableError as error:
            problem = str(error)
            log.warning("%s", problem)
    raise CtpeerError(
        f"{problem}; it was tried {_ATTEMPTS} times: check that the machine is not out of memory, "
        "that /tmp can be written, and that nothing forbids to run hivemind's p2pd"
    )


def _check_clock(ahead_s: dict[str, float]) -> None:
    """Raise ConfigurationError if most peers say that our clock is wrong."""
    far = {peer: s for peer, s in ahead_s.items() if abs(s) > CLOCK_TOLERANCE_S}
    if 2 * len(far) > len(ahead_s):
        peer, seconds = max(far.items(), key=lambda item: abs(item[1]))
        where = "behind" if seconds > 0 else "ahead of"
        raise ConfigurationError(
            f"this machine's clock is {abs(seconds):.0f} s {where} that of {len(far)} of "
            f"{len(ahead_s)} peers, such as {peer}; set it, for instance with "
            "`timedatectl set-ntp true`, and start again"
        )
    for peer, seconds in far.items():
        log.warning("the clock of %s is off by %.0f s", peer, seconds)


def _peer_of(address: str) -> str:
    parsed = parse_address(address)
    return parsed.peer_id if parsed is not None else ""
