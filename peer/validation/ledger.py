"""What follows from the verdicts so far: the good state, the generation, who may sit. Pure.

The whole ledger stands in each judgement, so that a joiner needs the newest verdict only, and
whoever has the one before it can check every number in it.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import Field

from peer.run.manifest import Hash, PeerId
from peer.swarm.bodies import RecordBody
from peer.swarm.testimony import Count
from peer.validation.committee import Ground, roster_of
from peer.validation.rules import (
    BARRED_ROUNDS,
    KEPT_ACCEPTED,
    MAX_HALVINGS,
    MAX_ROSTER,
    STRIKE_ROUNDS,
    STRIKES,
    Rules,
)
from peer.validation.score import Decision
from peer.validation.ticket import first_entropy, next_entropy, seed_of

Peers = Annotated[tuple[PeerId, ...], Field(max_length=MAX_ROSTER)]


class Mark(RecordBody):
    """An accepted checkpoint; scores are losses in points relative to the initial state's."""

    epoch: Count
    state_root: Hash
    score_points: Annotated[int, Field(ge=-(10**12), le=10**12)]


class Standing(RecordBody):
    """What the verdicts know of a peer.

    Attributes:
        peer_id: Who it is.
        epochs: In how many it contributed.
        last_round: Up to which round it did.
        strikes: Rounds in which it was struck lately.
        barred_until: It may not sit up to this round.
    """

    peer_id: PeerId
    epochs: Count = 0
    last_round: Count = 0
    strikes: Annotated[tuple[Count, ...], Field(max_length=STRIKES)] = ()
    barred_until: Count = 0


class Ledger(RecordBody):
    """The state of validation after a verdict.

    Attributes:
        round: The verdict's; 0 before the first.
        epoch: Where training goes on from: the candidate's, after a rollback the last good one's.
        generation: Rollbacks so far.
        entropy: What the next seed is made of.
        accepted: The last accepted checkpoints, newest last, at first the initial state.
        rejections: Verdicts against candidates that came from the last good one.
        halvings: How often the outer learning rate is halved where the generation begins.
        began: The epoch at which it begins.
        standings: By peer id.
        drawn: Who may sit in the next round.
        drawn_after: Who may sit in the one after it.
    """

    round: Count
    epoch: Count
    generation: Count
    entropy: Hash
    accepted: Annotated[tuple[Mark, ...], Field(min_length=1, max_length=KEPT_ACCEPTED)]
    rejections: Count = 0
    halvings: Annotated[int, Field(ge=0, le=MAX_HALVINGS)] = 0
    began: Count = 0
    standings: Annotated[tuple[Standing, ...], Field(max_length=MAX_ROSTER)] = ()
    drawn: Peers = ()
    drawn_after: Peers = ()

    @classmethod
    def genesis(cls, run_id: str, initial_root: str) -> "Ledger":
        """Return the ledger of a run that has no verdict; its initial state counts as good."""
        mark = Mark(epoch=0, state_root=initial_root, score_points=0)
        entropy = first_entropy(run_id)
        return cls(round=0, epoch=0, generation=0, entropy=entropy, accepted=(mark,))

    @property
    def last_good(self) -> Mark:
        """The newest accepted checkpoint: what joiners load and a rollback goes back to."""
        return self.accepted[-1]

    @property
    def baseline(self) -> Mark:
        """The best of the last accepted checkpoints, which the next candidate is judged by."""
        return min(self.accepted, key=lambda mark: (mark.score_points, -mark.epoch))

    def halved(self, epoch: int, rules: Rules) -> int:
        """Return how often the outer learning rate is halved at an epoch of the generation.

        A halving ends in time, or bad candidates could slow a run down for good. When is a matter
        of the epoch alone, so that it is the same for all: peers learn of verdicts one by one.
        """
        ended = (epoch - self.began) // (KEPT_ACCEPTED * rules.every_epochs)
        return max(0, self.halvings - max(0, ended))

    def seed(self, run_id: str, epoch: int) -> str:
        """Return the seed of the next round, for the candidate of an epoch."""
        return seed_of(run_id, self.round + 1, epoch, self.entropy)

    def standing(self, peer_id: str) -> Standing:
        """Return what the verdicts know of a peer."""
        known = (standing for standing in self.standings if standing.peer_id == peer_id)
        return next(known, Standing(peer_id=peer_id))

    def tenure(self, rules: Rules) -> int:
        """Return in how many epochs a peer must have contributed before it may sit.

        While the run is younger than the tenure it asks for, half of what the oldest peer has is
        enough: somebody must judge.
        """
        oldest = max((standing.epochs for standing in self.standings), default=0)
        return min(rules.tenure_epochs, oldest // 2 + 1)

    def eligible(self, round_number: int, rules: Rules) -> tuple[str, ...]:
        """Return whom the standings let sit in a round, sorted."""
        tenure = self.tenure(rules)
        return tuple(
            standing.peer_id
            for standing in self.standings
            if standing.epochs >= tenure
            and standing.barred_until < round_number
            and standing.last_round > self.round - STRIKE_ROUNDS
        )

    def electorate(self, rules: Rules) -> set[str]:
        """Return who may sit in the next round, as far as that hangs on no candidate."""
        return {*self.eligible(self.round + 1, rules), *self.drawn}

    def roster(
        self, epoch: int, members: Collection[str], rules: Rules
    ) -> tuple[tuple[str, ...], Ground]:
        """Return who may sit in the next round, and what that rests on.

        Args:
            epoch: The candidate's.
            members: Whose contributions are in the certificate that led to the candidate.
            rules: The run's.
        """
        barred = {s.peer_id for s in self.standings if s.barred_until > self.round}
        here = set(members) - barred or set(members)
        drawn = set(self.drawn) - barred
        tenured = self.eligible(self.round + 1, rules)
        return roster_of(sorted(drawn), tenured, here, epoch - self.epoch, rules)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a verdict adds to the ledger.

    Attributes:
        epoch: The candidate's.
        state_root: The candidate's.
        decision: What was found.
        difference_points: By how much it is worse than the baseline.
        seed: The round's.
        lowest_lot: The first seat's.
        struck: Peers that get a strike.
        excluded: Peers that showed two tickets.
        attendance: In how many of the epochs that led to the candidate each peer contributed.
    """

    epoch: int
    state_root: str
    decision: Decision
    difference_points: int
    seed: str
    lowest_lot: str
    struck: Collection[str]
    excluded: Collection[str]
    attendance: Mapping[str, int]


def advance(ledger: Ledger, outcome: Outcome, rules: Rules) -> Ledger:
    """Return the ledger after a verdict."""
    common = {
        "round": ledger.round + 1,
        "epoch": outcome.epoch,
        "entropy": next_entropy(ledger.entropy, outcome.seed, outcome.lowest_lot),
        "standings": _standings(ledger, outcome),
        "drawn": ledger.drawn_after,
    }
    after = ledger.model_copy(update=common | _consequence(ledger, outcome, rules))
    # Drawn for the round after next: who may sit is settled before its seed is known.
    drawn = after.eligible(after.round + 2, rules)
    return after.model_copy(update={"drawn_after": drawn})


def _consequence(ledger: Ledger, outcome: Outcome, rules: Rules) -> dict[str, object]:
    match outcome.decision:
        case Decision.INCONCLUSIVE:
            return {}
        case Decision.REJECT:
            again = ledger.rejections > 0
            halved = ledger.halved(outcome.epoch, rules)
            return {
                "epoch": ledger.last_good.epoch,
                "generation": ledger.generation + 1,
                "rejections": ledger.rejections + 1,
                "halvings": min(MAX_HALVINGS, halved + again),
                "began": ledger.last_good.epoch,
            }
    mark = Mark(
        epoch=outcome.epoch,
        state_root=outcome.state_root,
        score_points=ledger.baseline.score_points + outcome.difference_points,
    )
    return {"accepted": (*ledger.accepted, mark)[-KEPT_ACCEPTED:], "rejections": 0}


def _standings(ledger: Ledger, outcome: Outcome) -> tuple[Standing, ...]:
    """Return the standings, of at most `MAX_ROSTER` peers: those that did most."""
    known = {standing.peer_id: standing for standing in ledger.standings}
    # What is rolled back is nobody's merit.
    merit = outcome.attendance if outcome.decision is not Decision.REJECT else {}
    touched = {*known, *merit, *outcome.struck, *outcome.excluded}
    after = [_standing(known.get(peer), peer, ledger.round + 1, merit, outcome) for peer in touched]
    kept = [s for s in after if s.last_round > ledger.round - STRIKE_ROUNDS or _marked(s, ledger)]
    kept.sort(key=lambda s: (-s.barred_until, -s.epochs, s.peer_id))
    return tuple(sorted(kept[:MAX_ROSTER], key=lambda s: s.peer_id))


def _marked(standing: Standing, ledger: Ledger) -> bool:
    return bool(standing.strikes) or standing.barred_until > ledger.round


def _standing(
    before: Standing | None, peer: str, now: int, merit: Mapping[str, int], outcome: Outcome
) -> Standing:
    old = before or Standing(peer_id=peer)
    strikes = [each for each in old.strikes if each > now - STRIKE_ROUNDS]
    if peer in outcome.struck:
        strikes.append(now)
    out = peer in outcome.excluded or len(strikes) >= STRIKES
    epochs = old.epochs + merit.get(peer, 0)
    return Standing(
        peer_id=peer,
        epochs=0 if peer in outcome.excluded else min(epochs, 10**9),
        last_round=now if merit.get(peer) else old.last_round,
        strikes=() if out else tuple(strikes),
        barred_until=now + BARRED_ROUNDS if out else old.barred_until,
    )
