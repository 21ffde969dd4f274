"""Votes and certificates: the only thing that moves an epoch.

A vote says: in this group, from this base, these contributions made this average. Identical votes
of more than half of the group are a certificate. Everything here is pure; keys and signatures
come in as values.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter

from peer.errors import MisbehavedError
from peer.identity import Identity, peer_id_of, verify
from peer.run.canonical import canonical, from_base64, to_base64
from peer.run.manifest import Finite
from peer.swarm.wire import Body

Name = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,80}$")]
"""A hash in hexadecimal, or a run id: nothing that has another spelling or no encoding."""
Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{0,1000}={0,2}$")]
PeerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,64}$")]
Count = Annotated[int, Field(ge=0, le=1 << 50)]

MAX_GROUP = 64
"""Everybody in a group talks to everybody else. Whoever finds no place follows its certificates."""
MAX_WEIGHT = 10**12

_GROUP_PREFIX = b"ctpeer group\n"
_Parsed = TypeVar("_Parsed")

_VOTE_PREFIX = b"ctpeer vote\n"
_PART_PREFIX = b"ctpeer part\n"


@dataclasses.dataclass(frozen=True)
class Base:
    """The global state that a round starts from."""

    run_id: Name
    generation: Count
    epoch: Count
    state_root: Name


@dataclasses.dataclass(frozen=True)
class Entry:
    """One contribution in a vote.

    Attributes:
        peer_id: Whose.
        contribution_id: Which.
        weight: Loss terms behind it.
        attempt: Which try to have it averaged: it is part of the group's name, so that what was
            signed in a round that failed has no meaning in the next.
    """

    peer_id: PeerName
    contribution_id: Name
    weight: int
    attempt: Count


def group_id(base: Base, entries: Iterable[Entry]) -> str:
    """Return the name of a group: of who brings what to which state."""
    body = [dataclasses.asdict(base), [dataclasses.astuple(entry) for entry in entries]]
    return hashlib.sha256(_GROUP_PREFIX + canonical(body)).hexdigest()


@dataclasses.dataclass(frozen=True)
class PartDigest:
    """What a reducer vouches for: the encoded average of its part and its sum of squares.

    Attributes:
        public_key: The reducer's.
        elements: Numbers in the part.
        digest: SHA-256 of the encoded average.
        square_sum: fp64 sum of squares of the decoded average.
        refused: Members whose slice failed a check and is not in the average, sorted.
        signature: The reducer's, over all this and the group's name.
    """

    public_key: Base64
    elements: Count
    digest: Name
    square_sum: Finite
    refused: Annotated[tuple[PeerName, ...], Field(max_length=MAX_GROUP)]
    signature: Base64

    @cached_property
    def reducer(self) -> str:
        """The peer id of the reducer, derived from its key."""
        return peer_id_of(from_base64(self.public_key))

    def problem(self, group: str) -> str | None:
        """Return why this is no reducer's word in the group of that name, or None."""
        body = part_statement(group, self.elements, self.digest, self.square_sum, self.refused)
        if not verify(from_base64(self.public_key), from_base64(self.signature), body):
            return "a part is not signed by the reducer that it names"
        return None


def part_statement(
    group: str, elements: int, digest: str, square_sum: float, refused: tuple[str, ...]
) -> bytes:
    """Return the bytes that a reducer signs for one part."""
    return _PART_PREFIX + canonical([group, elements, digest, square_sum, refused])


@dataclasses.dataclass(frozen=True)
class Vote:
    """What every member that holds all parts says of a round; equal for equal results."""

    base: Base
    entries: Annotated[tuple[Entry, ...], Field(max_length=MAX_GROUP)]
    parts: Annotated[tuple[PartDigest, ...], Field(max_length=MAX_GROUP)]

    @property
    def group(self) -> tuple[str, ...]:
        """The peer ids of the members."""
        return tuple(entry.peer_id for entry in self.entries)

    @cached_property
    def group_id(self) -> str:
        """The group's name."""
        return group_id(self.base, self.entries)

    @property
    def weight(self) -> int:
        """Loss terms that the group brought."""
        return sum(entry.weight for entry in self.entries)

    @property
    def square_sums(self) -> tuple[float, ...]:
        """The parts' fp64 sums of squares, as the outer step takes them."""
        return tuple(part.square_sum for part in self.parts)

    @cached_property
    def vote_id(self) -> str:
        """The hash of the statement."""
        return hashlib.sha256(self.statement()).hexdigest()

    def statement(self) -> bytes:
        """Return the bytes that a member signs."""
        return self._statement

    @cached_property
    def _statement(self) -> bytes:
        return _VOTE_PREFIX + canonical(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Signature:
    """A member's signature under a vote."""

    public_key: Base64
    signature: Base64


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A vote with the signatures of more than half of its group."""

    vote: Vote
    signatures: Annotated[tuple[Signature, ...], Field(max_length=MAX_GROUP)]

    @cached_property
    def signers(self) -> frozenset[str]:
        """The peer ids of those whose signature is good."""
        statement = self.vote.statement()
        keys = ((from_base64(s.public_key), from_base64(s.signature)) for s in self.signatures)
        return frozenset(
            peer_id_of(key) for key, signature in keys if verify(key, signature, statement)
        )

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
_PART = TypeAdapter(PartDigest)
_SIGNATURE = TypeAdapter(Signature)


def parse_part(body: object) -> PartDigest:
    """Return the digest in `body`, whose signature is yet to be checked.

    Raises:
        MisbehavedError: It is not one.
    """
    return parse_strictly(_PART, body, "a part's digest")


def parse_signature(body: object) -> Signature:
    """Return the signature in `body`, which is yet to be checked.

    Raises:
        MisbehavedError: It is not one.
    """
    return parse_strictly(_SIGNATURE, body, "a signature")


def parse_strictly(adapter: TypeAdapter[_Parsed], body: object, what: str) -> _Parsed:
    """Return what the JSON value `body` from a peer is, if it is of the adapter's type to the dot.

    Raises:
        MisbehavedError: It is not; `what` says what was expected.
    """
    try:
        return adapter.validate_json(json.dumps(body), strict=True)
    except (ValueError, RecursionError) as error:
        raise MisbehavedError(f"{what} makes no sense") from error


def quorum(group_size: int) -> int:
    """Return how many identical votes certify a round: more than half of the group."""
    return group_size // 2 + 1


def sign_part(
    identity: Identity,
    group: str,
    data: Body,
    elements: int,
    square_sum: float,
    refused: Iterable[str] = (),
) -> PartDigest:
    """Return this reducer's word for the encoded average `data` of its part."""
    digest = hashlib.sha256(data).hexdigest()
    out = tuple(sorted(refused))
    signature = identity.sign(part_statement(group, elements, digest, square_sum, out))
    return PartDigest(
        to_base64(identity.public_key), elements, digest, square_sum, out, to_base64(signature)
    )


def sign_vote(identity: Identity, vote: Vote) -> Signature:
    """Return this member's signature under `vote`."""
    return Signature(to_base64(identity.public_key), to_base64(identity.sign(vote.statement())))


def signer_of(signature: Signature, statement: bytes) -> str | None:
    """Return the peer id of whoever signed `statement`, or None if the signature is not good."""
    key = from_base64(signature.public_key)
    return peer_id_of(key) if verify(key, from_base64(signature.signature), statement) else None


def problem(certificate: Certificate) -> str | None:
    """Return why `certificate` proves nothing, or None if it is good.

    It is good when distinct members of its group, more than half of them, signed the vote, every
    part is signed by a member, and every contribution is a member's with a sensible weight.
    """
    members = set(certificate.vote.group)
    wrong = _vote_problem(certificate.vote, members)
    if wrong is not None:
        return wrong
    if len(certificate.signatures) > len(members):
        return "it has more signatures than members"
    signed, needed = len(members & certificate.signers), quorum(len(members))
    if signed < needed:
        return f"{signed} of {len(members)} members signed, {needed} must"
    return None


def _vote_problem(vote: Vote, members: set[str]) -> str | None:
    if not vote.entries or not vote.parts:
        return "it certifies no average"
    if len(members) != len(vote.entries) or len(members) > MAX_GROUP:
        return "the group names a peer twice or is too large"
    if any(not 0 < entry.weight <= MAX_WEIGHT for entry in vote.entries):
        return "a contribution has no sensible weight"
    if any(part.elements < 0 for part in vote.parts):
        return "a part has less than no numbers"
    reducers = [part.reducer for part in vote.parts]
    if len(set(reducers)) != len(reducers) or not members.issuperset(reducers):
        return "a part's reducer is not in the group or has two parts"
    name = vote.group_id
    return next((wrong for part in vote.parts if (wrong := part.problem(name))), None)
