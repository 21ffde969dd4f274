"""Votes and certificates: the only thing that moves an epoch.

A vote says: in this group, from this base, these contributions made this average. Identical votes
of more than half of the group are a certificate. Everything here is pure; keys and signatures
come in as values.
"""

import base64
import dataclasses
import hashlib
import json

from pydantic import TypeAdapter

from peer.identity import Identity, peer_id_of, verify
from peer.run.canonical import canonical
from peer.run.manifest import Finite

_VOTE_PREFIX = b"ctpeer vote\n"
_PART_PREFIX = b"ctpeer part\n"


@dataclasses.dataclass(frozen=True)
class Base:
    """The global state that a round starts from."""

    run_id: str
    generation: int
    epoch: int
    state_root: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One contribution in a vote: whose, which, and how many loss terms it weighs."""

    peer_id: str
    contribution_id: str
    weight: int


@dataclasses.dataclass(frozen=True)
class PartDigest:
    """What a reducer vouches for: the encoded average of its part and its sum of squares."""

    public_key: str
    elements: int
    digest: str
    square_sum: Finite
    signature: str

    @property
    def reducer(self) -> str:
        """The peer id of the reducer, derived from its key."""
        return peer_id_of(_bytes(self.public_key))

    @staticmethod
    def statement(base: Base, elements: int, digest: str, square_sum: float) -> bytes:
        """Return the bytes that a reducer signs for one part."""
        body = [dataclasses.asdict(base), elements, digest, square_sum]
        return _PART_PREFIX + canonical(body)


@dataclasses.dataclass(frozen=True)
class Vote:
    """What every member that holds all parts says of a round; equal for equal results."""

    base: Base
    group: tuple[str, ...]
    entries: tuple[Entry, ...]
    parts: tuple[PartDigest, ...]

    def statement(self) -> bytes:
        """Return the bytes that a member signs."""
        return _VOTE_PREFIX + canonical(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Signature:
    """A member's signature under a vote."""

    public_key: str
    signature: str


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A vote with the signatures of more than half of its group."""

    vote: Vote
    signatures: tuple[Signature, ...]

    def to_json(self) -> str:
        """Return the certificate as JSON text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Return the certificate that `text` holds; `problem` says whether it is a valid one.

        Raises:
            ValueError: `text` is not JSON of a certificate's shape.
        """
        return _ADAPTER.validate_json(text, strict=True)


_ADAPTER = TypeAdapter(Certificate)


def quorum(group_size: int) -> int:
    """Return how many identical votes certify a round: more than half of the group."""
    return group_size // 2 + 1


def sign_part(
    identity: Identity, base: Base, data: bytes, elements: int, sum_: float
) -> PartDigest:
    """Return this reducer's word for the encoded average `data` of its part."""
    digest = hashlib.sha256(data).hexdigest()
    signature = identity.sign(PartDigest.statement(base, elements, digest, sum_))
    return PartDigest(_text(identity.public_key), elements, digest, sum_, _text(signature))


def sign_vote(identity: Identity, vote: Vote) -> Signature:
    """Return this member's signature under `vote`."""
    return Signature(_text(identity.public_key), _text(identity.sign(vote.statement())))


def problem(certificate: Certificate) -> str | None:
    """Return why `certificate` proves nothing, or None if it is good.

    It is good when distinct members of its group, more than half of them, signed the vote, every
    part is signed by a member, and every contribution is a member's with a positive weight.
    """
    members = set(certificate.vote.group)
    wrong = _vote_problem(certificate.vote, members)
    signed, needed = len(members & _signers(certificate)), quorum(len(members))
    if wrong is None and signed < needed:
        return f"{signed} of {len(members)} members signed, {needed} must"
    return wrong


def _vote_problem(vote: Vote, members: set[str]) -> str | None:
    if not members or len(members) != len(vote.group):
        return "the group is empty or names a peer twice"
    if not vote.entries or not vote.parts:
        return "it certifies no average"
    if any(entry.peer_id not in members or entry.weight <= 0 for entry in vote.entries):
        return "a contribution is not a member's or weighs nothing"
    for part in vote.parts:
        body = PartDigest.statement(vote.base, part.elements, part.digest, part.square_sum)
        if not verify(_bytes(part.public_key), _bytes(part.signature), body):
            return "a part is not signed by the reducer that it names"
        if part.reducer not in members:
            return f"the reducer {part.reducer} is not in the group"
    return None


def _signers(certificate: Certificate) -> set[str]:
    statement = certificate.vote.statement()
    keys = ((_bytes(s.public_key), _bytes(s.signature)) for s in certificate.signatures)
    return {peer_id_of(key) for key, signature in keys if verify(key, signature, statement)}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
