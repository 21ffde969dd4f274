"""A round: one attempt to average. What it could not do is a value, never just a log line.

`Rounds` is the interface that the trainer knows. `LoneRounds` is a group of one: the same
contribution, reduction, encoding, vote and certificate, with nobody to wait for.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Protocol

from peer.events import RoundFailure
from peer.identity import Identity
from peer.training import codec
from peer.training.certificate import (
    Base,
    Certificate,
    Entry,
    Vote,
    sign_part,
    sign_vote,
)
from peer.training.contribution import Contribution
from peer.training.reducer import reduce, square_sum
from peer.training.state import Flat


@dataclasses.dataclass(frozen=True)
class Failed:
    """The round brought nothing.

    Attributes:
        failure: The class of the failure, for counting.
        detail: What happened, in words.
        keep: Whether the contribution is worth another round.
    """

    failure: RoundFailure
    detail: str
    keep: bool


@dataclasses.dataclass(frozen=True)
class Committed:
    """The round ended in a certificate.

    Attributes:
        average: The decoded average, fp32 [elements], the same bits on every member.
        square_sums: Its fp64 sums of squares by part, as certified.
        certificate: The proof.
        seconds_by_phase: Where the time went.
        bytes_sent: Over the network.
        bytes_received: Over the network.
    """

    average: Flat
    square_sums: tuple[float, ...]
    certificate: Certificate
    seconds_by_phase: Mapping[str, float]
    bytes_sent: int
    bytes_received: int


class Rounds(Protocol):
    """Whoever averages contributions for a trainer."""

    def run(self, base: Base, contribution: Contribution) -> Committed | Failed:
        """Try once to average `contribution` on top of `base`, within a deadline."""
        ...


class LoneRounds:
    """Rounds of a group of one."""

    def __init__(self, identity: Identity, codec_name: str) -> None:
        self._identity = identity
        self._codec = codec_name

    def run(self, base: Base, contribution: Contribution) -> Committed | Failed:
        """Certify this peer's own contribution as the average."""
        me, elements = self._identity.peer_id, len(contribution.values)
        started_s = time.perf_counter()
        reduced = reduce({me: contribution.values}, {me: contribution.weight}, elements)
        if reduced.mean is None:
            finite = reduced.refused[me] != "not finite"
            failure = RoundFailure.REFUSED if finite else RoundFailure.NOT_FINITE
            return Failed(failure, f"own contribution {reduced.refused[me]}", keep=False)
        reduced_s = time.perf_counter()
        data = codec.encode(reduced.mean, self._codec)
        average = codec.decode(data, elements, self._codec)
        part = sign_part(self._identity, base, data, elements, square_sum(average))
        entry = Entry(me, contribution.contribution_id, contribution.weight)
        vote = Vote(base=base, group=(me,), entries=(entry,), parts=(part,))
        certificate = Certificate(vote, (sign_vote(self._identity, vote),))
        return Committed(
            average=average,
            square_sums=(part.square_sum,),
            certificate=certificate,
            seconds_by_phase={
                "reduce": reduced_s - started_s,
                "certify": time.perf_counter() - reduced_s,
            },
            bytes_sent=0,
            bytes_received=0,
        )
