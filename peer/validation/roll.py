"""The roll of validators: what the verdicts say of each peer, and who may sit next. Pure.

It decides nothing: rosters follow from `peer.validation.ledger`. It is for people who look.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from peer.validation.committee import Ground
from peer.validation.ledger import Ledger, Standing
from peer.validation.rules import STRIKE_ROUNDS, Rules
from peer.validation.verdict import Judgement, Seat, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A peer on the roll.

    Attributes:
        peer_id: Who it is.
        epochs: In how many judged epochs it contributed.
        strikes: Rounds in which it was struck lately.
        barred_until: It may not sit up to this round; None if it is not barred.
        eligible: Whether it may sit in the next round, as far as that is known before a candidate.
        remark: Why not, or on what condition.
        called: In how many of the verdicts looked at it was called.
        sat: In how many of them it sat in the end, as a seat or a reserve that stood in.
        scored: In how many it showed a score, and enough validators agreed on one.
        agreed: In how many of those its score was among the ones that agree.
    """

    peer_id: str
    epochs: int
    strikes: tuple[int, ...]
    barred_until: int | None
    eligible: bool
    remark: str | None
    called: int
    sat: int
    scored: int
    agreed: int

    @property
    def agreement(self) -> float | None:
        """The share of its scores that were among those that agree; None without any."""
        return self.agreed / self.scored if self.scored else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A peer that was called.

    Attributes:
        peer_id: Who it is.
        place: Such as `validator 3 of 7`.
        did: What became of its score.
        struck: Whether it got a strike.
        stood_in: Whether it is a reserve that sat in the end.
        signed: Whether its signature is under the verdict.
    """

    peer_id: str
    place: str
    did: str
    struck: bool
    stood_in: bool
    signed: bool


def roll(chain: Sequence[Verdict], rules: Rules, others: Collection[str] = ()) -> list[Member]:
    """Return the peers that the newest verdict knows of, and `others`; who may sit comes first.

    Args:
        chain: Verdicts, at least one, the newest last; seats and scores are counted in them.
        rules: The run's.
        others: Peer ids that are to be on the roll whatever the verdicts know.
    """
    newest = chain[-1].judgement
    ledger = newest.after
    called, sat, scored, agreed = _counted(verdict.judgement for verdict in chain)
    standings = {standing.peer_id: standing for standing in ledger.standings}
    named = {*standings, *ledger.drawn, *ledger.drawn_after, *newest.called, *others}
    members = []
    for peer in named:
        standing = standings.get(peer, Standing(peer_id=peer))
        eligible, remark = prospect(ledger, standing, rules)
        barred = standing.barred_until if standing.barred_until > ledger.round else None
        member = Member(
            peer_id=peer,
            epochs=standing.epochs,
            strikes=standing.strikes,
            barred_until=barred,
            eligible=eligible,
            remark=remark,
            called=called[peer],
            sat=sat[peer],
            scored=scored[peer],
            agreed=agreed[peer],
        )
        members.append(member)
    return sorted(members, key=lambda m: (not m.eligible, -m.epochs, m.peer_id))


def prospect(ledger: Ledger, standing: Standing, rules: Rules) -> tuple[bool, str | None]:
    """Return whether a peer may sit in the next round, and why not or on what condition.

    It is what holds when the next candidate comes in time; after a lapse of candidates the roster
    is drawn from who is there.
    """
    following = ledger.round + 1
    if standing.barred_until >= following:
        return False, f"barred until round {standing.barred_until}"
    roster, ground = ledger.roster(ledger.epoch + rules.every_epochs, (), rules)
    if ground is Ground.GENESIS:
        return True, "if it contributes to the candidate's epoch"
    if standing.peer_id in roster:
        return True, None
    if standing.peer_id in ledger.drawn_after:
        return False, f"from round {following + 1}: who sits is settled a round ahead"
    return False, _shortcoming(ledger, standing, rules)


def places(verdict: Verdict) -> list[Place]:
    """Return who was called for a verdict, in the order of their lots."""
    judgement, signers = verdict.judgement, verdict.signers()
    committee = judgement.committee
    sitting = committee.standing_in(_absent(judgement))
    seats = set(committee.called[: committee.size.seats])
    return [
        Place(
            peer_id=seat.ticket.peer_id,
            place=committee.place(seat.ticket.peer_id) or "",
            did=_did(judgement, seat),
            struck=seat.ticket.peer_id in judgement.struck,
            stood_in=seat.ticket.peer_id in set(sitting) - seats,
            signed=seat.ticket.peer_id in signers,
        )
        for seat in judgement.seats
    ]


def _counted(
    judgements: Iterable[Judgement],
) -> tuple[Counter[str], Counter[str], Counter[str], Counter[str]]:
    """Return how often each peer was called, sat, showed a score, and agreed."""
    called, sat, scored, agreed = (Counter[str]() for _ in range(4))
    for judgement in judgements:
        absent = _absent(judgement)
        called.update(judgement.called)
        sat.update(judgement.committee.standing_in(absent))
        # Where too few agree nobody is right, and nobody wrong.
        if judgement.cluster:
            scored.update(peer for peer in judgement.called if peer not in absent)
            agreed.update(judgement.cluster)
    return called, sat, scored, agreed


def _absent(judgement: Judgement) -> set[str]:
    return {seat.ticket.peer_id for seat in judgement.seats if seat.reveal is None}


def _shortcoming(ledger: Ledger, standing: Standing, rules: Rules) -> str:
    """Return what a peer that is not barred lacks before it may sit."""
    if not standing.last_round:
        return "no verdict counts a contribution of it yet"
    if standing.last_round <= ledger.round - STRIKE_ROUNDS:
        return f"away since round {standing.last_round}"
    return f"contributed to {standing.epochs} of {ledger.tenure(rules)} epochs needed"


def _did(judgement: Judgement, seat: Seat) -> str:
    peer = seat.ticket.peer_id
    if peer in judgement.cluster:
        return "agreed"
    if seat.commit is None:
        return "did not score"
    if seat.reveal is None:
        return "did not show its score"
    if peer in judgement.struck:
        return "does not agree"
    return "came too late" if judgement.cluster else "too few agree"
