"""A visit to a run's peers: a node that serves nobody, under a name of its own, for one errand.

The daemon of the same home may run at the same time: its identity and its port are left alone.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from pathlib import Path

from peer.checkpoint.offers import offered_by
from peer.config.home import Home
from peer.config.settings import SwarmSettings
from peer.daemon.discovery import Discovery
from peer.errors import ConfigurationError, PeerError
from peer.identity import Identity
from peer.swarm.download import OnRefusal, Refusal
from peer.swarm.membership import Roster, load_known_peers
from peer.swarm.node import Node, NodeOptions
from peer.swarm.testimony import Good
from peer.swarm.validator import EnvelopeValidator
from peer.swarm.wire import Transport

_LOOKS = 2
"""The second look asks nodes of the DHT that the first one led to."""


class Visit:
    """What a visitor can find out. Use `visiting`."""

    def __init__(self, node: Node, roster: Roster, run_id: str, call_timeout_s: float) -> None:
        self._node = node
        self._roster = roster
        self._run_id = run_id
        self._call_timeout_s = call_timeout_s
        self._discovery = Discovery(node, roster, run_id, call_timeout_s)

    @property
    def transport(self) -> Transport:
        """The way to the peers."""
        return self._node.transport

    @property
    def trouble(self) -> str:
        """Why peers that were known beforehand cannot be reached, in one line."""
        # libp2p's words have lines; ours are one sentence.
        return "; ".join(" ".join(why.split()) for why in self._node.unreachable.values())

    async def offered(self, on_refusal: OnRefusal) -> dict[str, dict[str, int]]:
        """Return which states each peer of the run offers, with the epochs that it says.

        Args:
            on_refusal: Is told of every peer of the run that does not answer.
        """
        peers = await self._peers()
        members = {member.peer_id for member in self._roster.members()}

        async def ask(peer: str) -> dict[str, int] | None:
            try:
                return await offered_by(self.transport, self._run_id, peer, self._call_timeout_s)
            except PeerError as error:
                if peer in members:  # others are entry points
                    on_refusal(Refusal.of(peer, error))
                return None

        answers = await asyncio.gather(*map(ask, peers))
        return {p: states for p, states in zip(peers, answers, strict=True) if states is not None}

    async def good(self, peers: Collection[str]) -> Mapping[str, Good]:
        """Return what those of `peers` that say so hold to."""
        try:
            records = await self._node.dht.get(self._run_id, "good")
        except PeerError:
            return {}
        return {peer: each.body for peer, each in records.items() if peer in peers}

    async def _peers(self) -> list[str]:
        """Return the peers that there is a connection to, members of the run first."""
        peers: list[str] = []
        if not self._node.dht.nodes:
            await self._node.rejoin()
        for _ in range(_LOOKS):
            with contextlib.suppress(PeerError):
                await self._discovery.learn()
                peers = await self._discovery.donors()
        return peers


@contextlib.asynccontextmanager
async def visiting(
    home: Home, settings: SwarmSettings, run_id: str, addresses: Iterable[str]
) -> AsyncIterator[Visit]:
    """Give a visit that begins at `addresses`, at the settings' peers, and at those met before.

    Raises:
        ConfigurationError: No peer is known at all, or the clock is wrong.
        CtpeerError: p2pd does not start.
    """
    told = tuple(dict.fromkeys((*addresses, *settings.peers)))
    known = load_known_peers(home.known_peers_path)
    if not told and not known:
        raise ConfigurationError(
            f"the home {home.path} knows no peer of {run_id} yet; name one with --peers ADDRESS, "
            "or give an invite with --invite"
        )
    with tempfile.TemporaryDirectory(prefix="ctpeer-visit-") as folder:
        path = Path(folder) / "identity.key"
        identity = Identity.load_or_create(path)
        roster = Roster(identity.peer_id)
        for peer, where in known.items():
            roster.learn(peer, where)
        cached = tuple(address for where in known.values() for address in where)
        options = NodeOptions(
            identity_path=path, initial_peers=told, known_peers=cached, client=True
        )
        # p2pd has read the key by then, which nothing that ends this process leaves behind later.
        node = await Node.start(options, identity, EnvelopeValidator())
    try:
        yield Visit(node, roster, run_id, settings.call_timeout_s)
    finally:
        await node.stop()
