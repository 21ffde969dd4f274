"""A judgement with all the evidence that it rests on, and the signatures that make it a verdict."""

import dataclasses
import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Self

from pydantic import Field

from peer import identity
from peer.errors import MisbehavedError
from peer.run.canonical import canonical
from peer.run.manifest import Hash, PeerId
from peer.swarm.bodies import RecordBody
from peer.swarm.testimony import CALLED, MAX_POINTS, Assent, Commit, Count, Reveal, Ticket, Verify
from peer.validation.committee import Committee, Ground, elect
from peer.validation.ledger import Ledger, Peers
from peer.validation.rules import MAX_ROSTER
from peer.validation.score import Decision, Question, Reason
from peer.validation.ticket import DoubleTicket

MAX_VERDICT_BYTES = 1 << 20
MAX_DOUBLES = 16


class Seat(RecordBody):
    """A peer that was called, and what it said."""

    ticket: Ticket
    commit: Commit | None = None
    reveal: Reveal | None = None


class Attended(RecordBody):
    """In how many of the epochs that led to the candidate a peer contributed."""

    peer_id: PeerId
    epochs: Count


class Judgement(RecordBody):
    """What a committee found, on what evidence, and what follows from it.

    Attributes:
        run_id: The run.
        round: Counts verdicts.
        epoch: The candidate's.
        candidate: Its state root.
        baseline: State root of what it was judged by.
        seed: The round's.
        previous: Hash of the last judgement.
        ground: What the roster rests on.
        roster: Who might sit, sorted.
        seats: Who was called, lowest lot first.
        doubles: Proofs of two tickets, of this or an earlier round.
        attendance: By peer id.
        decision: What was found.
        reason: Why.
        difference_points: By how much the candidate is worse, in 1e-4 nats.
        error_points: Its standard error.
        cluster: Whose scores agree.
        struck: Who gets a strike.
        after: What follows.
    """

    run_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,79}$")]
    round: Count
    epoch: Count
    candidate: Hash
    baseline: Hash
    seed: Hash
    previous: Hash
    ground: Ground
    roster: Peers
    seats: Annotated[tuple[Seat, ...], Field(max_length=CALLED)]
    doubles: Annotated[tuple[DoubleTicket, ...], Field(max_length=MAX_DOUBLES)]
    attendance: Annotated[tuple[Attended, ...], Field(max_length=MAX_ROSTER)]
    decision: Decision
    reason: Reason
    difference_points: Annotated[int, Field(ge=-MAX_POINTS, le=MAX_POINTS)]
    error_points: Annotated[int, Field(ge=0, le=10 * MAX_POINTS)]
    cluster: Peers
    struck: Peers
    after: Ledger

    @property
    def called(self) -> tuple[str, ...]:
        """The peers of the seats, in order; those who may sign."""
        return tuple(seat.ticket.peer_id for seat in self.seats)

    @property
    def committee(self) -> Committee:
        """The seats and the reserves."""
        return elect((seat.ticket for seat in self.seats), self.roster)[0]

    @property
    def question(self) -> Question:
        """What the committee was asked."""
        return Question(self.seed, self.candidate, self.baseline)

    @cached_property
    def hash(self) -> str:
        """What names the judgement."""
        body = canonical(self.model_dump(mode="json"))
        return hashlib.sha256(b"ctpeer judgement\n" + body).hexdigest()


class Verdict(RecordBody):
    """A judgement with the signatures of a quorum of those who were called."""

    judgement: Judgement
    assents: Annotated[tuple[Assent, ...], Field(max_length=CALLED)]

    def signers(self, verify: Verify = identity.verify) -> frozenset[str]:
        """Return the called peers whose signature is good."""
        return signers_of(self.judgement, self.assents, verify)

    def is_signed(self, verify: Verify = identity.verify) -> bool:
        """Return whether a quorum signed: the judgement's hash does not hold the signatures."""
        return len(self.signers(verify)) >= self.judgement.committee.size.quorum

    def to_bytes(self) -> bytes:
        """Return the verdict as it travels and lies on the disk."""
        return canonical(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the verdict in `data`, which is yet to be checked.

        Raises:
            MisbehavedError: It is none.
        """
        if len(data) > MAX_VERDICT_BYTES:
            raise MisbehavedError(f"a verdict of {len(data)} bytes")
        try:
            return cls.model_validate_json(data, strict=True)
        except (ValueError, RecursionError) as error:
            raise MisbehavedError("a verdict makes no sense") from error


@dataclasses.dataclass(frozen=True)
class Tip:
    """The end of a chain of verdicts: what they led to, and the hash of the last judgement."""

    ledger: Ledger
    hash: str

    @classmethod
    def genesis(cls, run_id: str, initial_root: str) -> "Tip":
        """Return the end of a chain without verdicts."""
        start = hashlib.sha256(f"ctpeer genesis\n{run_id}".encode()).hexdigest()
        return cls(Ledger.genesis(run_id, initial_root), start)


def signers_of(
    judgement: Judgement, assents: Iterable[Assent], verify: Verify = identity.verify
) -> frozenset[str]:
    """Return the called peers that signed `judgement`."""
    name, called = judgement.hash, set(judgement.called)
    return frozenset(
        assent.peer_id
        for assent in assents
        if assent.judgement == name and assent.peer_id in called and assent.is_good(verify)
    )
