"""What one peer saw of a round, and since when: on that ground it objects to a judgement. Pure.

A judgement proves what is in it, not that nothing was left out. That only those can tell who were
there: hence the times, by the peer's own clock.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Generic, TypeVar

from peer import identity
from peer.swarm.testimony import Assent, Commit, Good, Proposal, Reveal, Signed, Ticket, Verify
from peer.validation import ticket as tickets
from peer.validation.score import Question
from peer.validation.ticket import DoubleTicket, double, lot
from peer.validation.verdict import Judgement, Seat, Verdict

MAX_JUDGEMENTS = 16
"""Kept of one round; an honest round has one or two."""

_Record = TypeVar("_Record")
_Said = TypeVar("_Said", bound=Signed)


@dataclasses.dataclass(frozen=True)
class Seen(Generic[_Record]):
    """A record, and when it was first seen."""

    record: _Record
    at_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed:
    """What lies in the DHT, all of it each time, and what was fetched since the last step.

    Attributes:
        tickets: From anybody, unchecked, as all that follows.
        commits: As above.
        reveals: As above.
        assents: As above.
        proposals: By the peer whose envelope it was.
        good: By the peer whose envelope it was.
        verdicts: What was fetched, with as many signatures as its donor knows.
    """

    tickets: Iterable[Ticket] = ()
    commits: Iterable[Commit] = ()
    reveals: Iterable[Reveal] = ()
    assents: Iterable[Assent] = ()
    proposals: Mapping[str, Proposal] = dataclasses.field(default_factory=dict)
    good: Mapping[str, Good] = dataclasses.field(default_factory=dict)
    verdicts: Iterable[Verdict] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """The good records of a round, by peer; judgements by hash."""

    tickets: Mapping[str, Seen[Ticket]] = dataclasses.field(default_factory=dict)
    doubles: Mapping[str, DoubleTicket] = dataclasses.field(default_factory=dict)
    commits: Mapping[str, Seen[Commit]] = dataclasses.field(default_factory=dict)
    reveals: Mapping[str, Seen[Reveal]] = dataclasses.field(default_factory=dict)
    proposals: Mapping[str, Seen[Proposal]] = dataclasses.field(default_factory=dict)
    judgements: Mapping[str, Seen[Judgement]] = dataclasses.field(default_factory=dict)
    assents: Mapping[tuple[str, str], Assent] = dataclasses.field(default_factory=dict)
    good: Mapping[str, Good] = dataclasses.field(default_factory=dict)

    def signed(self, judgement: Judgement) -> tuple[Assent, ...]:
        """Return the signatures of called peers under `judgement`, by peer id."""
        pairs = ((peer, self.assents.get((judgement.hash, peer))) for peer in judgement.called)
        return tuple(assent for _, assent in sorted(pairs, key=lambda p: p[0]) if assent)

    def drawn(self) -> list[Ticket]:
        """Return the tickets of all who have just one."""
        return [seen.record for peer, seen in self.tickets.items() if peer not in self.doubles]

    def seats(self, called: Iterable[str]) -> list[Seat]:
        """Return what the `called` said."""
        return [self._seat(peer) for peer in called]

    def _seat(self, peer: str) -> Seat:
        commit, reveal = self.commits.get(peer), self.reveals.get(peer)
        ticket = self.tickets[peer].record
        if commit is None:
            return Seat(ticket=ticket)
        shown = reveal.record if reveal is not None else None
        return Seat(ticket=ticket, commit=commit.record, reveal=shown)


def take_records(
    view: View,
    observed: Observed,
    now_s: float,
    question: Question,
    roster: Collection[str],
    verify: Verify = identity.verify,
) -> View:
    """Return the view with those records in `observed` that are good and of the round."""
    fresh, doubles = dict(view.tickets), dict(view.doubles)
    for ticket in observed.tickets:
        before = fresh.get(ticket.peer_id)
        if before is not None and before.record == ticket:
            continue
        if tickets.problem(ticket, question.seed, roster, verify) is not None:
            continue
        if before is None:
            fresh[ticket.peer_id] = Seen(ticket, now_s)
        elif (proof := double(before.record, ticket)) is not None:
            doubles[ticket.peer_id] = proof
    name = question.id
    commits = (each for each in observed.commits if each.question == name)
    proposals = dict(view.proposals)
    for peer, proposal in observed.proposals.items():
        if peer in roster and proposal.seed == question.seed and peer not in proposals:
            proposals[peer] = Seen(proposal, now_s)
    return dataclasses.replace(
        view,
        tickets=fresh,
        doubles=doubles,
        commits=_added(view.commits, commits, fresh, question.seed, now_s, verify),
        reveals=_added(view.reveals, observed.reveals, fresh, question.seed, now_s, verify),
        proposals=proposals,
    )


def take_assents(view: View, observed: Observed, verify: Verify = identity.verify) -> View:
    """Return the view with the signatures under judgements that it holds, and who holds to what."""
    assents = dict(view.assents)
    from_verdicts = (assent for verdict in observed.verdicts for assent in verdict.assents)
    for assent in (*observed.assents, *from_verdicts):
        place = (assent.judgement, assent.peer_id)
        seen = view.judgements.get(assent.judgement)
        if place in assents or seen is None or assent.peer_id not in seen.record.called:
            continue
        if assent.is_good(verify):
            assents[place] = assent
    return dataclasses.replace(view, assents=assents, good=dict(observed.good))


def omission(
    judgement: Judgement, view: View, ticket_by_s: float, commit_by_s: float, reveal_by_s: float
) -> str | None:
    """Return what `judgement` leaves out that it must not, or None.

    What was here in good time, every honest proposer had, too. What came about when a phase ended
    may be in or not: nothing is objected to, or whoever times a record well could split the rest.

    Args:
        judgement: What is proposed.
        view: What this peer saw.
        ticket_by_s: Tickets seen by then were here in good time.
        commit_by_s: Commits seen by then were here in good time.
        reveal_by_s: Reveals seen by then were here in good time.
    """
    called, size = judgement.called, judgement.committee.size
    is_full = len(called) == size.seats + size.reserves
    highest = lot(judgement.seats[-1].ticket)
    for peer, ticket in view.tickets.items():
        in_time = ticket.at_s <= ticket_by_s and peer not in view.doubles
        has_place = not is_full or lot(ticket.record) < highest
        if in_time and has_place and peer not in called:
            return f"it leaves out the ticket of {peer}"
    for seat in judgement.seats:
        peer = seat.ticket.peer_id
        commit, reveal = view.commits.get(peer), view.reveals.get(peer)
        if seat.reveal is not None or commit is None or reveal is None:
            continue
        if commit.at_s <= commit_by_s and reveal.at_s <= reveal_by_s:
            return f"it leaves out what {peer} revealed"
    return None


def _added(
    known: Mapping[str, Seen[_Said]],
    records: Iterable[_Said],
    drawn: Collection[str],
    seed: str,
    now_s: float,
    verify: Verify,
) -> dict[str, Seen[_Said]]:
    """Return `known` with the first good record of each peer that has a ticket."""
    both = dict(known)
    for record in records:
        peer = record.peer_id
        if record.seed == seed and peer in drawn and peer not in both and record.is_good(verify):
            both[peer] = Seen(record, now_s)
    return both
