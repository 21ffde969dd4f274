"""Records: what a peer says of itself to a whole run, signed, in an envelope that names its place.

An envelope carries run id, kind, key and sequence number within its signature, so whoever holds the
bytes can tell where they belong, and a bootstrap node serves any run. What is checked here needs no
network; `peer.swarm.dht` checks that an envelope lies where it says, `peer.swarm.kinds` lists what
may be said.
"""

import base64
import binascii
import dataclasses
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peer.errors import MisbehavedError
from peer.identity import Identity, peer_id_of, verify
from peer.run.canonical import canonical
from peer.swarm.bodies import RecordBody, Time
from peer.swarm.kinds import KINDS, MAX_RECORD_BYTES

CLOCK_TOLERANCE_S = 3.0
"""How far clocks may be apart."""

_EXPIRED_TOLERANCE_S = 10.0
"""A record on its way between two nodes is not an offence because it ends meanwhile."""
_SIGNED_PREFIX = b"ctpeer record\n"
_CACHED_RECORDS = 4096

_Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{1,1024}={0,2}$")]


class Refusal(StrEnum):
    """Why a record is refused; a label of the metrics."""

    PLAIN = "plain"
    SIZE = "size"
    SCHEMA = "schema"
    KIND = "kind"
    KEY = "key"
    OWNER = "owner"
    SIGNATURE = "signature"
    EXPIRY = "expiry"
    REPLAY = "replay"
    FULL = "full"


class RecordError(MisbehavedError):
    """A record is not what the protocol allows."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(f"a record was refused: {reason}")
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Envelope:
    """An opened record: its signature is good and its body is of its kind."""

    run_id: str
    kind: str
    key: str
    seq: int
    expires_s: float
    public_key: bytes
    body: Any
    signature: bytes

    @property
    def peer_id(self) -> str:
        """The peer id of whoever signed it."""
        return peer_id_of(self.public_key)


class _Wire(BaseModel):
    """An envelope as JSON."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    run_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,79}$")]
    kind: Annotated[str, Field(pattern=r"^[a-z]{1,16}$")]
    key: Annotated[str, Field(max_length=100)]
    seq: Annotated[int, Field(ge=0, lt=2**53)]
    expires_s: Time
    public_key: _Base64
    body: dict[str, Any]
    signature: _Base64


def key_of(run_id: str, kind: str) -> str:
    """Return the key under which all records of a kind of one run lie."""
    return f"{run_id}/{kind}"


def seal(
    identity: Identity, run_id: str, kind: str, seq: int, expires_s: float, body: RecordBody
) -> bytes:
    """Return a signed record.

    Args:
        identity: Who says it.
        run_id: The run that it is of.
        kind: One of `KINDS`; `body` is of its schema.
        seq: Above that of every earlier record of this peer and kind.
        expires_s: When it ends, in seconds since the Unix epoch.
        body: What it says.

    Raises:
        ValueError: The record would not be accepted anywhere.
    """
    if kind not in KINDS or not isinstance(body, KINDS[kind].schema):
        raise ValueError(f"a record of kind {kind} cannot hold a {type(body).__name__}")
    fields = {
        "run_id": run_id,
        "kind": kind,
        "key": key_of(run_id, kind),
        "seq": seq,
        "expires_s": expires_s,
        "public_key": _text(identity.public_key),
        "body": body.model_dump(mode="json"),
    }
    data = canonical(fields | {"signature": _text(identity.sign(_statement(fields)))})
    try:
        parse_envelope(data)
    except RecordError as error:
        raise ValueError(f"this {kind} record has a wrong {error.reason}") from error
    return data


def open_envelope(data: bytes, now_s: float) -> Envelope:
    """Return what is in a record, after every check that needs nothing but its bytes and the time.

    Raises:
        RecordError: It is not acceptable.
    """
    envelope = parse_envelope(data)
    ahead_s = envelope.expires_s - now_s
    lifetime_s = KINDS[envelope.kind].max_lifetime_s
    if not -_EXPIRED_TOLERANCE_S <= ahead_s <= lifetime_s + CLOCK_TOLERANCE_S:
        raise RecordError(Refusal.EXPIRY)
    return envelope


def parse_envelope(data: bytes) -> Envelope:
    """Return what is in a record, all checked but the time.

    Raises:
        RecordError: It is not acceptable.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise RecordError(Refusal.SIZE)
    return _parsed(data)


@lru_cache(maxsize=_CACHED_RECORDS)
def _parsed(data: bytes) -> Envelope:
    """Parse and verify, once: a search meets each record on several nodes."""
    try:
        wire = _Wire.model_validate_json(data)
    except ValidationError as error:
        raise RecordError(Refusal.SCHEMA) from error
    if wire.kind not in KINDS:
        raise RecordError(Refusal.KIND)
    if len(data) > KINDS[wire.kind].max_bytes:
        raise RecordError(Refusal.SIZE)
    if wire.key != key_of(wire.run_id, wire.kind):
        raise RecordError(Refusal.KEY)
    return _verified(wire)


def _verified(wire: _Wire) -> Envelope:
    try:
        body = KINDS[wire.kind].schema.model_validate_json(canonical(wire.body))
        statement = _statement(wire.model_dump(mode="json", exclude={"signature"}))
        key, signature = (base64.b64decode(t) for t in (wire.public_key, wire.signature))
    except (ValueError, binascii.Error) as error:  # a ValidationError is a ValueError
        raise RecordError(Refusal.SCHEMA) from error
    if not verify(key, signature, statement):
        raise RecordError(Refusal.SIGNATURE)
    return Envelope(
        run_id=wire.run_id,
        kind=wire.kind,
        key=wire.key,
        seq=wire.seq,
        expires_s=wire.expires_s,
        public_key=key,
        body=body,
        signature=signature,
    )


def _statement(fields: dict[str, Any]) -> bytes:
    return _SIGNED_PREFIX + canonical(fields)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
