"""Claims: which shards a peer trains on, told to all in one small record.

Pure. A claim steers nothing by itself: every peer counts the others' claims and chooses alone
(`peer.data.choose`). The record is a lease, and ends with it. It comes from strangers: what makes
no sense claims nothing.

The form: base64 of zlib of four bytes that say where the bitmap begins and of one bit for each
training shard in the index's order from there on, around the end if need be.
"""

import base64
import binascii
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping

from peer.data.index import MAX_SHARDS, DataIndex

MAX_CHARS = 3000
"""What the values of a DHT bear beside everything else in the record."""

_START_BYTES = 4
_MAX_RAW_BYTES = _START_BYTES + (MAX_SHARDS + 7) // 8


def encode(peer_id: str, index: DataIndex, names: Iterable[str]) -> str:
    """Return the claim on the training shards `names`, at most `MAX_CHARS` long.

    Where all do not fit, as many are claimed as do, in the index's order from a place of the
    peer's own: together, the peers then still tell something of every shard.

    Args:
        peer_id: Who claims.
        index: The run's.
        names: What it trains on; names that are no training shards of the index are left out.
    """
    shards = index.split("train")
    wanted = set(names)
    bits = [shard.name in wanted for shard in shards]
    whole = _encode(0, bits)
    if len(whole) <= MAX_CHARS:
        return whole
    draw = hashlib.sha256(f"claims\n{peer_id}".encode()).digest()
    start = int.from_bytes(draw[:8], "big") % len(bits)
    turned = bits[start:] + bits[:start]
    fits, too_many = 0, len(turned)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if len(_encode(start, turned[:middle])) <= MAX_CHARS:
            fits = middle
        else:
            too_many = middle
    return _encode(start, turned[:fits])


def decode(text: str, index: DataIndex) -> frozenset[str]:
    """Return the names of the training shards that `text` claims; none if it is junk."""
    shards = index.split("train")
    raw = _unpack(text)
    if raw is None or len(raw) < _START_BYTES:
        return frozenset()
    start, bitmap = int.from_bytes(raw[:_START_BYTES], "big"), raw[_START_BYTES:]
    places = [8 * i + bit for i, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1]
    if start >= len(shards) or any(place >= len(shards) for place in places):
        return frozenset()
    return frozenset(shards[(start + place) % len(shards)].name for place in places)


def count(claims: Mapping[str, str], index: DataIndex, own_peer_id: str) -> Mapping[str, int]:
    """Return how many other peers claim a shard, by its name, as `choose` takes it.

    Args:
        claims: The records that have not ended, by peer id.
        index: The run's.
        own_peer_id: Whose own claim does not count.
    """
    counts: Counter[str] = Counter()
    for peer_id, text in claims.items():
        if peer_id != own_peer_id:
            counts.update(decode(text, index))
    return counts


def _encode(start: int, bits: list[bool]) -> str:
    number = int("".join("1" if bit else "0" for bit in reversed(bits)) or "0", 2)
    bitmap = number.to_bytes((number.bit_length() + 7) // 8, "little")
    raw = start.to_bytes(_START_BYTES, "big") + bitmap
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def _unpack(text: str) -> bytes | None:
    if len(text) > MAX_CHARS:
        return None
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(base64.b64decode(text, validate=True), _MAX_RAW_BYTES)
    except (binascii.Error, ValueError, zlib.error):
        return None
    return raw if unpacker.eof and not unpacker.unused_data else None
