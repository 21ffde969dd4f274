"""The table of records that the peers keep together, on hivemind's messages, by our own search.

A search asks many nodes and believes only what is signed: a node can withhold records, but not hide
those that another one holds. hivemind's search ends when one node says that nothing newer exists.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, PeerID

from peer.clock import Clock, SystemClock
from peer.errors import UnreachableError
from peer.identity import Identity
from peer.swarm.bodies import RecordBody
from peer.swarm.kinds import KINDS
from peer.swarm.records import Envelope, key_of, seal
from peer.swarm.rpc import REPLICAS, Found, RecordProtocol, node_id_of
from peer.swarm.validator import EnvelopeValidator, RecordStorage, key_id_of, pack

__all__ = ["Dht", "EnvelopeValidator", "RecordStorage"]

_CALL_TIMEOUT_S = 15.0
_ASKED = 16
_RANDOM = 4
_SEARCH_STEPS = 3
_REVIVED = 4
_REVIVED_S = 3600.0
_REMEMBERED_RECORDS = 1 << 14


class Dht:
    """One node of the DHT. Use `start`.

    Attributes:
        counts: How many calls there were and how many failed, by name.
    """

    def __init__(self, protocol: RecordProtocol, identity: Identity, clock: Clock) -> None:
        self.counts = Counter({"puts": 0, "gets": 0, "failed_puts": 0, "failed_gets": 0})
        self._protocol = protocol
        self._identity = identity
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last_seq = 0
        self._newest: dict[tuple[str, str], int] = {}

    @classmethod
    async def start(
        cls,
        p2p: P2P,
        identity: Identity,
        validator: EnvelopeValidator,
        *,
        storage: RecordStorage | None = None,
        client: bool = False,
        clock: Clock | None = None,
    ) -> "Dht":
        """Answer whoever asks, unless `client`; other nodes are met by `ping`."""
        if storage is None:  # an empty one is false
            storage = RecordStorage(validator)
        async with asyncio.timeout(_CALL_TIMEOUT_S):
            protocol = await RecordProtocol.open(p2p, validator, storage, client=client)
        return cls(protocol, identity, clock or SystemClock())

    @property
    def storage(self) -> RecordStorage:
        """The records that this node holds."""
        storage: RecordStorage = self._protocol.storage
        return storage

    @property
    def nodes(self) -> frozenset[str]:
        """The peer ids of the nodes in the routing table."""
        return frozenset(p.to_base58() for p in self._protocol.routing_table.peer_id_to_uid)

    async def close(self) -> None:
        """End what goes on in the background."""
        await self._protocol.close()

    async def ping(self, peer_id: str) -> float:
        """Meet a node and return by how many seconds its clock is ahead of ours.

        What the way there and back may explain is left out.

        Raises:
            UnreachableError: It does not answer, or is no node.
        """
        return await self._protocol.ping(PeerID.from_base58(peer_id), self._clock)

    async def put(self, run_id: str, kind: str, body: RecordBody, lifetime_s: float) -> bool:
        """Publish a record of ours, in place of the last one; return whether a node took it.

        Alone, one's own node counts.

        Raises:
            UnreachableError: There are nodes, and none answered.
            ValueError: The record would not be accepted anywhere.
        """
        self.counts["puts"] += 1
        now_s = self._clock.now_s()
        expires_s = now_s + min(lifetime_s, KINDS[kind].max_lifetime_s)
        # Milliseconds go on where an earlier start of this peer left off.
        self._last_seq = max(self._last_seq + 1, int(now_s * 1000))
        data = seal(self._identity, run_id, kind, self._last_seq, expires_s, body)
        key_id, value, subkey = key_id_of(key_of(run_id, kind)), pack(data), self._identity.peer_id
        answers: list[bool | None] = []

        async def store(node: PeerID) -> None:
            answer = await self._protocol.call_store(node, [key_id], [value], [expires_s], [subkey])
            answers.append(None if answer is None else all(answer))

        kept = not self._protocol.client_mode
        kept = kept and self.storage.store_subkey(key_id, subkey, value, expires_s)
        nodes = self._nodes_near(key_id, REPLICAS)
        if not nodes:
            return kept
        await self._in_turn(lambda: asyncio.gather(*map(store, nodes)))
        if all(answer is None for answer in answers):
            self.counts["failed_puts"] += 1
            raise UnreachableError("no node of the DHT took our record")
        return any(answers)

    async def get(self, run_id: str, kind: str) -> dict[str, Envelope]:
        """Return the newest record of every peer of a run, by peer id, ours included.

        One that is older than what was seen before is left out, whoever offers it.

        Raises:
            UnreachableError: There are nodes, and none answered.
        """
        self.counts["gets"] += 1
        key = key_of(run_id, kind)
        key_id, answers = key_id_of(key), list[Found]()
        nodes = self._nodes_near(key_id, _ASKED)
        self._revive()
        await self._in_turn(lambda: self._search(key_id, nodes, answers))
        if nodes and not answers:
            self.counts["failed_gets"] += 1
            raise UnreachableError("no node of the DHT answered")
        found = self.storage.records(key_id)
        for answer in answers:
            found.extend(answer.records)
        return self._newest_of(key, found)

    async def _in_turn(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do `work` when no other call is under way; what it gathers by the deadline counts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CALL_TIMEOUT_S), self._lock:
                await work()

    async def _search(self, key_id: DHTID, nodes: list[PeerID], answers: list[Found]) -> None:
        """Ask `nodes`, then whom they name as nearer, and add what they answer to `answers`.

        The nodes that we know are all asked, whatever one of them says.
        """

        async def ask(node: PeerID) -> None:
            found = await self._protocol.find(node, key_id)
            if found is not None:
                answers.append(found)

        asked = {self._protocol.p2p.peer_id}
        for _ in range(_SEARCH_STEPS):
            batch = [node for node in nodes if node not in asked][: _ASKED + _RANDOM]
            if not batch:
                return
            asked.update(batch)
            await asyncio.gather(*map(ask, batch))
            named = {node for answer in answers for node in answer.nearer}
            nodes = sorted(named - asked, key=lambda node: key_id.xor_distance(node_id_of(node)))

    def _nodes_near(self, key_id: DHTID, count: int) -> list[PeerID]:
        """Return the nodes known to lie nearest to a key, and some others at random."""
        table = self._protocol.routing_table
        near = [node for _, node in table.get_nearest_neighbors(key_id, count)]
        others = [node for node in table.peer_id_to_uid if node not in near]
        return near + random.sample(others, min(_RANDOM, len(others)))

    def _revive(self) -> None:
        """Look after nodes that once answered: one that failed once is out of the table.

        So peers that lost sight of each other, all at once, find together again.
        """
        since_s = asyncio.get_running_loop().time() - _REVIVED_S
        table = self._protocol.routing_table
        lost = [n for n, met_s in self._protocol.met.items() if met_s > since_s and n not in table]
        for node in random.sample(lost, min(_REVIVED, len(lost))):
            self._protocol.ping_soon(node)

    def _newest_of(self, key: str, found: Iterable[Envelope]) -> dict[str, Envelope]:
        newest: dict[str, Envelope] = {}
        now_s = self._clock.now_s()
        for envelope in found:
            at = (key, envelope.peer_id)
            if envelope.expires_s <= now_s or envelope.seq < self._newest.get(at, 0):
                continue
            self._newest.pop(at, None)
            self._newest[at] = envelope.seq
            newest[envelope.peer_id] = envelope
        while len(self._newest) > _REMEMBERED_RECORDS:
            self._newest.pop(next(iter(self._newest)))
        return newest
