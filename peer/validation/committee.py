"""Who may sit, how many sit, and who sits where. Pure.

Whoever is called evaluates, reserves included: a reserve that began only when a seat fails would
know the others' scores, or cost the time of a second evaluation.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum

from peer.swarm.testimony import Ticket
from peer.training.certificate import Certificate
from peer.validation.rules import LAPSED_CANDIDATES, QUORUM, RESERVES, SEATS, Rules
from peer.validation.ticket import in_order


class Ground(StrEnum):
    """What a roster rests on."""

    TENURE = "tenure"
    GENESIS = "genesis"
    LAPSE = "lapse"


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a committee is.

    Attributes:
        seats: Peers that sit first.
        reserves: Peers that evaluate with them, and count as they do.
        quorum: How many must agree, and how many must sign.
    """

    seats: int
    reserves: int
    quorum: int

    @property
    def is_small(self) -> bool:
        """Whether too few are eligible for a committee of full size."""
        return self.seats < SEATS

    def agreement(self, revealed: int) -> int:
        """Return how many of `revealed` scores must agree: the quorum, and more than half."""
        return max(self.quorum, revealed // 2 + 1)


@dataclasses.dataclass(frozen=True)
class Committee:
    """The peers that are called, lowest lot first: the seats, then the reserves."""

    called: tuple[str, ...]
    size: Size

    def place(self, peer_id: str) -> str | None:
        """Return what a person is told of a peer's place, such as `validator 3 of 7`, or None."""
        if peer_id not in self.called:
            return None
        index, seats = self.called.index(peer_id), min(self.size.seats, len(self.called))
        if index < seats:
            return f"validator {index + 1} of {seats}"
        return f"reserve {index - seats + 1} of {len(self.called) - seats}"

    def standing_in(self, absent: Collection[str]) -> tuple[str, ...]:
        """Return who sits in the end: the first of the called that are not `absent`."""
        return tuple(p for p in self.called if p not in absent)[: self.size.seats]


def size_of(eligible: int) -> Size:
    """Return the size of the committee that so many eligible peers have.

    Fewer than seven all sit, and two thirds of them are needed: 2 of 2, 3 of 3, 4 of 5.
    """
    if eligible < SEATS:
        return Size(eligible, 0, 2 * eligible // 3 + 1)
    return Size(SEATS, min(RESERVES, eligible - SEATS), QUORUM)


def elect(tickets: Iterable[Ticket], roster: Collection[str]) -> tuple[Committee, list[Ticket]]:
    """Return the committee that good `tickets` draw, and the tickets of the called."""
    size = size_of(len(roster))
    drawn = in_order(tickets)[: size.seats + size.reserves]
    return Committee(tuple(ticket.peer_id for ticket in drawn), size), drawn


def members_of(certificate: Certificate) -> frozenset[str]:
    """Return whose contributions are in what a certificate averaged.

    The vote names them, in bytes that are the same for everybody. Who *signed* is not agreed: two
    honest peers may hold one certificate with different signatures.
    """
    refused = {peer for part in certificate.vote.parts for peer in part.refused}
    return frozenset(certificate.vote.group) - refused


def attendance(certificates: Sequence[Certificate]) -> Mapping[str, int]:
    """Return in how many of `certificates` each peer's contribution is."""
    return Counter(peer for certificate in certificates for peer in members_of(certificate))


def roster_of(
    drawn: Sequence[str],
    tenured: Collection[str],
    members: Collection[str],
    waited_epochs: int,
    rules: Rules,
) -> tuple[tuple[str, ...], Ground]:
    """Return who may sit, sorted, and what that rests on.

    Args:
        drawn: Who was found eligible two verdicts ago; nobody in the first two rounds.
        tenured: Who is eligible by what is known now.
        members: Whose contributions are in the candidate's own certificate.
        waited_epochs: How many epochs the candidate lies behind the last verdict's.
        rules: The run's.

    Without a lapse a swarm whose eligible peers left would wait for them for ever, since only a
    verdict renews the roster.
    """
    if not drawn:
        return tuple(sorted(members)), Ground.GENESIS
    if waited_epochs > LAPSED_CANDIDATES * rules.every_epochs:
        here = set(tenured) & set(members) or set(members)
        return tuple(sorted(here)), Ground.LAPSE
    return tuple(sorted(drawn)), Ground.TENURE
