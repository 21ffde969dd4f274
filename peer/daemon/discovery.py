"""Finding the peers of a run: who the DHT names is dialled, and who answers is known."""

import asyncio
import logging
from collections.abc import Iterable

from peer.errors import PeerError
from peer.swarm.membership import Roster
from peer.swarm.node import Node
from peer.training.muster import QUIET_S, Muster

log = logging.getLogger(__name__)


class Discovery:
    """Learns of peers and gets connections to them.

    Args:
        node: The way to the others.
        roster: Those known.
        run_id: The run.
        dial_timeout_s: How long the addresses of a peer are tried.
    """

    def __init__(self, node: Node, roster: Roster, run_id: str, dial_timeout_s: float) -> None:
        self._node = node
        self._roster = roster
        self._run_id = run_id
        self._dial_timeout_s = dial_timeout_s

    async def learn(self) -> None:
        """Take in who the DHT says is there.

        Raises:
            PeerError: It does not answer.
        """
        records = await self._node.dht.get(self._run_id, "peer")
        for peer, envelope in records.items():
            self._roster.learn(peer, envelope.body.addresses)

    async def look(self, muster: Muster) -> None:
        """Learn of peers, and ask those that have been silent for a while."""
        try:
            await self.learn()
            connected = await self._node.connected()
        except PeerError as error:
            log.debug("no look into the DHT: %s", error)
            connected = frozenset()
        due = self._roster.due(muster.now_s, QUIET_S)
        await asyncio.gather(*(self._meet(peer, connected, muster) for peer in due))

    async def donors(self) -> list[str]:
        """Return the peers that there is a connection to, known members of the run first.

        Raises:
            PeerError: p2pd does not answer.
        """
        await asyncio.gather(*(self._dial(m.addresses) for m in self._roster.members()))
        connected = await self._node.connected()
        members = [m.peer_id for m in self._roster.members() if m.peer_id in connected]
        return list(dict.fromkeys((*members, *sorted(connected))))

    async def _meet(self, peer: str, connected: frozenset[str], muster: Muster) -> None:
        if peer not in connected:
            await self._dial(self._roster.addresses(peer))
        await muster.poll([peer])

    async def _dial(self, addresses: Iterable[str]) -> None:
        """Try all addresses of a peer at once, under one deadline: most lead nowhere."""
        loop = asyncio.get_running_loop()
        dials = {asyncio.create_task(self._node.connect(address)) for address in addresses}
        open_, deadline_s = set(dials), loop.time() + self._dial_timeout_s
        while open_ and (left_s := deadline_s - loop.time()) > 0:
            done, open_ = await asyncio.wait(
                open_, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if any(dial.exception() is None for dial in done):
                break
        for dial in open_:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
