"""hivemind's messages of the DHT, under their own names, made safe against whoever speaks them.

Every record is checked by itself, a node has the one place that follows from its peer id, nobody
gets megabytes for a ping, and a node that sends much junk is not listened to for a while.
"""

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgpack
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord
from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto import dht_pb2

from peer.clock import Clock
from peer.errors import UnreachableError
from peer.swarm.records import Envelope
from peer.swarm.validator import EnvelopeValidator, RecordStorage, pack

log = logging.getLogger(__name__)

RPC_TIMEOUT_S = 3.0
REPLICAS = 8

_BUCKET_NODES = 20
_DEPTH_MODULO = 5
_MAX_KEYS_ASKED = 2
_MAX_RECORDS_FOUND = 4096
_OFFENCES = 64
_FORGIVEN_S = 60.0
_REMEMBERED_NODES = 512
_DICTIONARY = 0x50
"""hivemind's code of a dictionary in msgpack."""


def node_id_of(peer_id: PeerID) -> DHTID:
    """Return a peer's place in the DHT: nobody chooses one beside a run's key."""
    return DHTID.generate(source=peer_id.to_base58())


@dataclasses.dataclass(frozen=True)
class Found:
    """What a node answered to a search."""

    records: list[Envelope]
    nearer: list[PeerID]


class RecordProtocol(DHTProtocol):  # type: ignore[misc]
    """hivemind's messages of the DHT, under their names, made safe against who speaks them."""

    @classmethod
    async def open(
        cls, p2p: P2P, validator: EnvelopeValidator, storage: RecordStorage, *, client: bool
    ) -> "RecordProtocol":
        """Answer whoever asks, unless `client`; hold records in `storage`."""
        self: RecordProtocol = await cls.create(
            p2p,
            node_id_of(p2p.peer_id),
            bucket_size=_BUCKET_NODES,
            depth_modulo=_DEPTH_MODULO,
            num_replicas=REPLICAS,
            wait_timeout=RPC_TIMEOUT_S,
            client_mode=client,
            record_validator=validator,
        )
        self.storage = self.cache = storage
        return self

    def __init__(self, **hidden: Any) -> None:
        super().__init__(**hidden)
        # Nodes that answered at some time, and when.
        self.met: dict[PeerID, float] = {}
        self._offences: Counter[PeerID] = Counter()
        self._forgive_s = 0.0
        self._pings: set[asyncio.Task[Any]] = set()

    @classmethod
    def _get_handle_name(cls, namespace: str | None, method_name: str) -> str:
        name: str = DHTProtocol._get_handle_name(namespace, method_name)  # noqa: SLF001 its name
        return name

    async def rpc_store(
        self, request: dht_pb2.StoreRequest, context: P2PContext
    ) -> dht_pb2.StoreResponse:
        """Take records, each that is acceptable."""
        self._check_conduct(context.remote_id)
        before = self.record_validator.refused.total()
        response = await super().rpc_store(request, context)
        self._offences[context.remote_id] += self.record_validator.refused.total() - before
        return response

    async def rpc_find(
        self, request: dht_pb2.FindRequest, context: P2PContext
    ) -> dht_pb2.FindResponse:
        """Hand out records, for as few keys as anybody needs at once."""
        self._check_conduct(context.remote_id)
        if len(request.keys) > _MAX_KEYS_ASKED:
            raise ValueError(f"at most {_MAX_KEYS_ASKED} keys may be asked for")
        return await super().rpc_find(request, context)

    async def find(self, node: PeerID, key_id: DHTID) -> Found | None:
        """Ask one node for the records under a key; None if it does not answer sensibly."""
        if self._is_banned(node):
            return None
        request = dht_pb2.FindRequest(keys=[key_id.to_bytes()], peer=self.node_info)
        try:
            answer = await self.get_stub(node).rpc_find(request, timeout=RPC_TIMEOUT_S)
            (result,) = answer.results
            pairs = list(zip(result.nearest_node_ids, result.nearest_peer_ids, strict=True))
            nearer = [(DHTID.from_bytes(i), PeerID(p)) for i, p in pairs[:_BUCKET_NODES]]
            items = _items(result)
        except Exception as error:  # noqa: BLE001 whatever hivemind makes of junk or silence
            log.debug("%s does not answer: %r", node, error)
            await self.update_routing_table(None, node, responded=False)
            return None
        await self.update_routing_table(node_id_of(node), node)
        return Found(
            self._admitted(node, key_id, items), [p for i, p in nearer if i == node_id_of(p)]
        )

    async def ping(self, node: PeerID, clock: Clock) -> float:
        """Meet a node and return by how much its clock is ahead beyond what the way may explain.

        Raises:
            UnreachableError: It does not answer, or is no node of the DHT.
        """
        sent_s = clock.now_s()
        request = dht_pb2.PingRequest(peer=self.node_info)
        try:
            answer = await self.get_stub(node).rpc_ping(request, timeout=RPC_TIMEOUT_S)
            node_id = DHTID.from_bytes(answer.peer.node_id)
        except Exception as error:  # as above
            raise UnreachableError(f"{node} does not answer as a node of the DHT") from error
        back_s = clock.now_s()
        await self.update_routing_table(node_id, node)
        ahead_s: float = max(answer.dht_time - back_s, 0.0) + min(answer.dht_time - sent_s, 0.0)
        return ahead_s

    async def update_routing_table(
        self,
        node_id: DHTID | None,
        peer_id: PeerID,
        responded: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Take a node in, at the place that is its own, or drop one that does not answer.

        hivemind would also send a new node all that it should hold; here owners renew their
        records so often that it need not, and a stranger cannot ask for megabytes by a ping.
        """
        if not responded:
            known = self.routing_table.get(peer_id=peer_id)
            if known is not None:
                del self.routing_table[known]
        elif node_id == node_id_of(peer_id) and peer_id != self.p2p.peer_id:
            self.met.pop(peer_id, None)
            self.met[peer_id] = asyncio.get_running_loop().time()
            while len(self.met) > _REMEMBERED_NODES:
                self.met.pop(next(iter(self.met)))
            oldest = self.routing_table.add_or_update_node(node_id, peer_id)
            if oldest is not None:
                self.ping_soon(oldest[1])

    def ping_soon(self, node: PeerID) -> None:
        """Find out in the background whether a node is there; the routing table learns of it."""
        task = asyncio.get_running_loop().create_task(self.call_ping(node))
        self._pings.add(task)
        task.add_done_callback(self._pings.discard)

    async def close(self) -> None:
        """End what goes on in the background."""
        for task in self._pings:
            task.cancel()
        await asyncio.gather(*self._pings, return_exceptions=True)

    def _validate_dictionary(self, key_bytes: bytes, dictionary: DictionaryDHTValue) -> bool:
        """Drop the records that are not acceptable; hivemind would drop them all for one."""
        dictionary.maxsize = float("inf")
        with dictionary.freeze():
            for subkey, (value, expires_s) in list(dictionary.items()):
                record = DHTRecord(key_bytes, self.serializer.dumps(subkey), value, expires_s)
                if not self.record_validator.validate(record):
                    del dictionary[subkey]
        return bool(dictionary)

    def _admitted(
        self, node: PeerID, key_id: DHTID, items: Iterable[tuple[Any, Any, Any]]
    ) -> list[Envelope]:
        before = self.record_validator.refused.total()
        records = []
        for subkey, value, expires_s in items:
            packed = pack(subkey) if isinstance(subkey, str) else self.IS_REGULAR_VALUE
            record = DHTRecord(key_id.to_bytes(), packed, value, expires_s)
            if (envelope := self.record_validator.admit(record)) is not None:
                records.append(envelope)
        self._offences[node] += self.record_validator.refused.total() - before
        return records

    def _check_conduct(self, node: PeerID) -> None:
        if self._is_banned(node):
            raise PermissionError("too many records that were not acceptable")

    def _is_banned(self, node: PeerID) -> bool:
        """Return whether a node has sent so much junk that it is not listened to for now."""
        now_s = asyncio.get_running_loop().time()
        if now_s > self._forgive_s:
            self._offences.clear()
            self._forgive_s = now_s + _FORGIVEN_S
        return self._offences[node] > _OFFENCES


def _items(result: dht_pb2.FindResult) -> list[tuple[Any, Any, Any]]:
    """Return (subkey, value, expiry) of every record in an answer, unchecked.

    Read without hivemind's class, whose methods trust the numbers in it.
    """
    if result.type == dht_pb2.NOT_FOUND:
        return []
    if result.type == dht_pb2.FOUND_REGULAR:
        return [(None, result.value, result.expiration_time)]
    extension = msgpack.unpackb(result.value, raw=False)
    if not isinstance(extension, msgpack.ExtType) or extension.code != _DICTIONARY:
        raise ValueError("a dictionary that is none")
    _, _, items = msgpack.unpackb(extension.data, raw=False)
    if len(items) > _MAX_RECORDS_FOUND:
        raise ValueError("more records than a key can hold")
    return [(subkey, value, expires_s) for subkey, value, expires_s in items]
