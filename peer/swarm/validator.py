"""What stands at the door of the DHT: the check of every record, and the place where they lie.

hivemind shows a validator only hashed keys; the envelope names its key, so it can be hashed again.
"""

import itertools
import time
from collections import Counter
from functools import lru_cache
from typing import Any

import msgpack
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.dht.validation import DHTRecord, RecordValidatorBase

from peer.clock import Clock, SystemClock
from peer.swarm.kinds import MAX_RECORD_BYTES
from peer.swarm.records import Envelope, RecordError, Refusal, open_envelope, parse_envelope

MAX_KEY_BYTES = 2 << 20
"""Of the records under one key: an answer above 4 MiB would not arrive."""
MAX_STORED_BYTES = 64 << 20

_PACKED_BYTES = MAX_RECORD_BYTES + 16
_RECOUNT_S = 1.0


@lru_cache(maxsize=1024)
def key_id_of(key: str) -> DHTID:
    """Return where in the DHT a key lies."""
    return DHTID.generate(source=key)


def pack(value: bytes | str) -> bytes:
    """Return a record, or a subkey, as hivemind carries it."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


class EnvelopeValidator(RecordValidatorBase):  # type: ignore[misc]
    """Refuses whatever is no signed record in its own place, of whatever run; counts why.

    Args:
        clock: Against which expiry is checked.

    Attributes:
        refused: How many records were refused, by reason.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.refused: Counter[Refusal] = Counter(dict.fromkeys(Refusal, 0))

    def validate(self, record: DHTRecord) -> bool:
        """Return whether `record` may be stored or believed; junk is False, never an exception."""
        return self.admit(record) is not None

    def admit(self, record: DHTRecord) -> Envelope | None:
        """Return the envelope in `record`, or None, counted, if it is not acceptable there."""
        try:
            return self._open(record)
        except RecordError as error:
            self.refuse(error.reason)
            return None

    def refuse(self, reason: Refusal) -> None:
        """Count a record that is refused."""
        self.refused[reason] += 1

    def _open(self, record: DHTRecord) -> Envelope:
        if record.subkey in DHTProtocol.RESERVED_SUBKEYS:
            raise RecordError(Refusal.PLAIN)
        if not isinstance(record.value, bytes):
            raise RecordError(Refusal.SCHEMA)
        if len(record.value) > _PACKED_BYTES:
            raise RecordError(Refusal.SIZE)
        envelope = open_envelope(_unpacked(record.value, bytes), self._clock.now_s())
        if record.key != key_id_of(envelope.key).to_bytes():
            raise RecordError(Refusal.KEY)
        if _unpacked(record.subkey, str) != envelope.peer_id:
            raise RecordError(Refusal.OWNER)
        if record.expiration_time != envelope.expires_s:
            raise RecordError(Refusal.EXPIRY)
        return envelope


def _unpacked(data: bytes, kind: type[Any]) -> Any:
    try:
        value = msgpack.unpackb(data, raw=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise RecordError(Refusal.SCHEMA) from error
    if not isinstance(value, kind):
        raise RecordError(Refusal.SCHEMA)
    return value


class RecordStorage(DHTLocalStorage):  # type: ignore[misc]
    """Validated records, bounded in bytes; of each peer and key only the newest is held.

    hivemind's own goes by the time of expiry alone, and there a replayed older record takes the
    newer one along when it ends.

    Args:
        validator: Counts what is refused here.
    """

    def __init__(self, validator: EnvelopeValidator) -> None:
        super().__init__()
        self._validator = validator
        self._bytes_by_key: Counter[DHTID] = Counter()
        self._bytes = 0
        self._counted_s = -_RECOUNT_S

    def store_subkey(self, key: DHTID, subkey: str, value: bytes, expiration_time: float) -> bool:
        """Hold a validated record unless it has ended, a newer one is held or there is no room."""
        if expiration_time < time.time():
            return False
        held = self.get(key)
        records = held.value if held is not None else DictionaryDHTValue()
        previous = records.get(subkey)
        if previous is not None and (ahead := _seq(value) - _seq(previous.value)) <= 0:
            if ahead < 0:
                self._validator.refuse(Refusal.REPLAY)
            return ahead == 0
        more_bytes = len(value) - (len(previous.value) if previous is not None else 0)
        if not self._has_room(key, more_bytes):
            self._validator.refuse(Refusal.FULL)
            return False
        self._bytes_by_key[key] += more_bytes
        self._bytes += more_bytes
        if previous is not None:
            del records[subkey]
        records.store(subkey, value, expiration_time)
        if held is None or expiration_time > held.expiration_time:
            self.store(key, records, expiration_time)
        return True

    def records(self, key: DHTID) -> list[Envelope]:
        """Return the records under a key."""
        held = self.get(key)
        return [] if held is None else [_opened(value) for _, (value, _) in held.value.items()]

    def sample(self, limit: int) -> list[Envelope]:
        """Return some of all the records that are held, at most `limit`."""
        keys = (key for key, _ in self.items())
        return list(itertools.islice((e for key in keys for e in self.records(key)), limit))

    @property
    def record_count(self) -> int:
        """How many records are held."""
        return sum(len(held.value) for _, held in self.items())

    @property
    def key_count(self) -> int:
        """How many keys have records."""
        return len(self)

    def _has_room(self, key: DHTID, more_bytes: int) -> bool:
        """Return whether there is room; what ended meanwhile is found out when it matters."""
        if self._fits(key, more_bytes):
            return True
        if time.monotonic() < self._counted_s + _RECOUNT_S:
            return False
        self._counted_s = time.monotonic()
        self._bytes_by_key = Counter(
            {key: sum(len(value) for _, (value, _) in h.value.items()) for key, h in self.items()}
        )
        self._bytes = self._bytes_by_key.total()
        return self._fits(key, more_bytes)

    def _fits(self, key: DHTID, more_bytes: int) -> bool:
        return (
            self._bytes_by_key[key] + more_bytes <= MAX_KEY_BYTES
            and self._bytes + more_bytes <= MAX_STORED_BYTES
        )


def _opened(value: bytes) -> Envelope:
    """Return the envelope in a validated record."""
    return parse_envelope(msgpack.unpackb(value))


def _seq(value: bytes) -> int:
    return _opened(value).seq
