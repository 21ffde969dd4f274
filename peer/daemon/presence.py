"""Being there for the others: records in the DHT, signs of life, and who is told of it here."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from peer import __version__
from peer.clock import Clock
from peer.daemon.discovery import Discovery
from peer.data import claims
from peer.data.index import DataIndex
from peer.errors import PeerError
from peer.events import Message, PeersSeen
from peer.swarm.bodies import ClaimBody, PeerBody
from peer.swarm.membership import MAX_SHOWN_CHARS, Roster, describe, save_known_peers
from peer.swarm.node import Node
from peer.swarm.wire import PROTOCOL
from peer.training.muster import QUIET_S, Muster

log = logging.getLogger(__name__)

_FIND_S = 3.0
_PUBLISH_S = 15.0
_RECORD_LIFETIME_S = 60.0
_CLAIM_S = 60.0
_CLAIM_LIFETIME_S = 180.0
_REPORT_S = 1.0
_ADDRESSES = 8


class Presence:
    """Keeps this peer known to the others, and the supervisor informed of them.

    Args:
        node: The way to the others.
        muster: Our standing.
        roster: The others.
        discovery: Finds them.
        known_peers_path: Where they are kept for the next start.
        clock: The time.
        emit: Takes events.
        refused: What was refused from others so far, by `records` and `requests` and then reason.
    """

    def __init__(
        self,
        node: Node,
        muster: Muster,
        roster: Roster,
        discovery: Discovery,
        known_peers_path: Path,
        clock: Clock,
        emit: Callable[[Message], None],
        refused: Callable[[], Mapping[str, Counter[str]]],
    ) -> None:
        self._node = node
        self._muster = muster
        self._roster = roster
        self._discovery = discovery
        self._known_peers_path = known_peers_path
        self._clock = clock
        self._emit = emit
        self._refused = refused
        self.claim = ""
        """The shards that we claim, encoded; told to the others until it changes."""

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Return what has to go on for as long as we live."""
        return [
            self._find_peers(),
            self._keep_in_touch(),
            self._publish(),
            self._keep_claiming(),
            self._report(),
        ]

    async def claimed(self, index: DataIndex) -> dict[str, int]:
        """Return how many other live peers claim a shard, by its name."""
        try:
            records = await self._node.dht.get(self._muster.run_id, "claim")
        except PeerError:
            return {}
        texts = {peer: envelope.body.shards for peer, envelope in records.items()}
        return dict(claims.count(texts, index, self._muster.identity.peer_id))

    async def _find_peers(self) -> None:
        while True:
            await self._discovery.look(self._muster)
            with contextlib.suppress(OSError):
                save_known_peers(self._known_peers_path, self._roster.members())
            await asyncio.sleep(_FIND_S)

    async def _keep_in_touch(self) -> None:
        """Give and get signs of life, whatever it takes to find others."""
        while True:
            live, now_s = self._muster.live(), self._muster.now_s
            await self._muster.poll(live & set(self._roster.due(now_s, QUIET_S)))
            await asyncio.sleep(QUIET_S / 2)

    async def _publish(self) -> None:
        """Make ourselves known in the DHT, again and again."""
        started_s = self._clock.now_s()
        while True:
            mine = self._muster.standing
            body = PeerBody(
                addresses=shown_addresses(self._node),
                protocol=PROTOCOL,
                version=__version__,
                generation=mine.generation,
                epoch=mine.epoch,
                client=self._muster.client,
                started_s=started_s,
                now_s=self._clock.now_s(),
            )
            await self._put("peer", body, _RECORD_LIFETIME_S)
            alone = not self._node.dht.nodes
            await asyncio.sleep(_FIND_S if alone else _PUBLISH_S)

    async def _keep_claiming(self) -> None:
        told_s, told = float("-inf"), ""
        while True:
            now_s = asyncio.get_running_loop().time()
            # While we train on nothing, others need not leave anything to us.
            text = "" if self._muster.resting else self.claim
            if text and (text != told or now_s - told_s >= _CLAIM_S):
                await self._put("claim", ClaimBody(shards=text), _CLAIM_LIFETIME_S)
                told_s, told = now_s, text
            await asyncio.sleep(_FIND_S / 3)

    async def _put(self, kind: str, body: PeerBody | ClaimBody, lifetime_s: float) -> None:
        try:
            await self._node.dht.put(self._muster.run_id, kind, body, lifetime_s)
        except PeerError as error:
            log.debug("a record was not published: %s", error)

    async def _report(self) -> None:
        """Tell the supervisor who is there, and count what moved since the last time."""
        traffic, seen = self._node.transport.traffic, dict[str, Counter[str]]()
        sent = received = 0
        while True:
            now_s = self._muster.now_s
            mine, group = self._muster.standing, self._muster.last_group
            refused = {what: Counter(counts) for what, counts in self._refused().items()}
            fresh = {what: dict(refused[what] - seen.get(what, Counter())) for what in refused}
            self._emit(
                PeersSeen(
                    addresses=shown_addresses(self._node),
                    reachability=self._node.reachability(),
                    peers=tuple(
                        describe(member, mine, in_group=member.peer_id in group, now_s=now_s)
                        for member in self._roster.members()
                    ),
                    sent_bytes=traffic.sent_bytes - sent,
                    received_bytes=traffic.received_bytes - received,
                    refused_records=fresh["records"],
                    refused_requests=fresh["requests"],
                )
            )
            sent, received, seen = traffic.sent_bytes, traffic.received_bytes, refused
            await asyncio.sleep(_REPORT_S)


def shown_addresses(node: Node) -> tuple[str, ...]:
    """Return the addresses of a node that others are told."""
    short = [address for address in node.addresses if len(address) <= MAX_SHOWN_CHARS]
    return tuple(short[:_ADDRESSES])
