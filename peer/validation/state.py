"""Where a peer stands in a validation round, and what follows from it for each phase. Pure."""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum

from peer import identity
from peer.swarm.testimony import Verify
from peer.validation.actions import Candidate
from peer.validation.choice import most_held
from peer.validation.committee import Committee
from peer.validation.judge import Case, build, problem
from peer.validation.rules import Rules, Timing
from peer.validation.score import Losses, Question
from peer.validation.ticket import DoubleTicket
from peer.validation.verdict import Judgement, Tip, Verdict
from peer.validation.view import View, omission

_NEVER_S = float("inf")


class Phase(StrEnum):
    """Where a peer is in a round."""

    WAIT_CANDIDATE = "waiting for a candidate"
    TICKETS = "gathering tickets"
    COMMIT = "scoring"
    REVEAL = "revealing"
    VERDICT = "signing"
    LAPSED = "without a verdict"
    DONE = "done"


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.WAIT_CANDIDATE: frozenset({Phase.TICKETS, Phase.DONE}),
    Phase.TICKETS: frozenset({Phase.COMMIT, Phase.LAPSED, Phase.DONE}),
    Phase.COMMIT: frozenset({Phase.REVEAL, Phase.LAPSED, Phase.DONE}),
    Phase.REVEAL: frozenset({Phase.VERDICT, Phase.DONE}),
    Phase.VERDICT: frozenset({Phase.LAPSED, Phase.DONE}),
    Phase.LAPSED: frozenset({Phase.TICKETS, Phase.DONE}),
    Phase.DONE: frozenset(),
}
"""What may follow what. A verdict ends a round from anywhere: others may be quicker than we are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """A peer in a round; made by `begin`, changed by `step` only.

    Attributes:
        me: The peer's id.
        rules: The run's.
        timing: The peer's.
        tip: The chain that the round continues.
        willing: Whether the peer takes a seat.
        verify: How a signature is checked.
        phase: Where it is.
        reason: Why the round lapsed.
        since_s: When the phase began.
        began_s: When the candidate was there.
        candidate: What is judged.
        roster: Who may sit.
        committee: Who was called, as this peer saw it.
        quorum_s: When a quorum had committed.
        closed_s: When it took no more commits.
        hold_s: How long it keeps its own score to itself after that.
        losses: What it found itself.
        view: What it saw.
        did: What it has been told to do already.
        adopted: The verdict.
    """

    me: str
    rules: Rules
    timing: Timing
    tip: Tip
    willing: bool
    verify: Verify
    phase: Phase = Phase.WAIT_CANDIDATE
    reason: str = ""
    since_s: float = 0.0
    began_s: float = 0.0
    candidate: Candidate | None = None
    roster: tuple[str, ...] = ()
    committee: Committee | None = None
    quorum_s: float | None = None
    closed_s: float = _NEVER_S
    hold_s: float = 0.0
    losses: Losses | None = None
    view: View = dataclasses.field(default_factory=View)
    did: frozenset[str] = frozenset()
    adopted: Verdict | None = None

    @property
    def seed(self) -> str:
        """The round's seed."""
        assert self.candidate is not None
        return self.tip.ledger.seed(self.rules.run_id, self.candidate.epoch)

    @property
    def question(self) -> Question:
        """What the committee is asked."""
        assert self.candidate is not None
        baseline = self.tip.ledger.baseline.state_root
        return Question(self.seed, self.candidate.state_root, baseline)

    @property
    def called(self) -> tuple[str, ...]:
        """Who was called."""
        return self.committee.called if self.committee is not None else ()


def begin(
    me: str,
    rules: Rules,
    timing: Timing,
    tip: Tip,
    *,
    willing: bool = True,
    verify: Verify = identity.verify,
    doubles: Mapping[str, DoubleTicket] | None = None,
) -> State:
    """Return the state of a peer at the beginning of the round that continues `tip`.

    Args:
        me: Its id.
        rules: The run's.
        timing: Its own.
        tip: The end of its chain of verdicts.
        willing: Whether it takes a seat.
        verify: How a signature is checked.
        doubles: Proofs of double tickets from `view.doubles` of the round before.
    """
    barred = {s.peer_id for s in tip.ledger.standings if s.barred_until > tip.ledger.round}
    open_cases = {peer: proof for peer, proof in (doubles or {}).items() if peer not in barred}
    view = View(doubles=open_cases)
    return State(
        me=me, rules=rules, timing=timing, tip=tip, willing=willing, verify=verify, view=view
    )


def enter(now_s: float, state: State, phase: Phase) -> State:
    """Return the state at the beginning of a phase that the table allows."""
    assert phase in TRANSITIONS[state.phase], f"{phase} does not follow {state.phase}"
    return dataclasses.replace(state, phase=phase, since_s=now_s)


def lapse(now_s: float, state: State, reason: str) -> State:
    """Return the state of a peer that gives up on a verdict for this candidate."""
    return dataclasses.replace(enter(now_s, state, Phase.LAPSED), reason=reason)


def note(state: State, *done: str) -> State:
    """Return the state with what its peer was told to do."""
    return dataclasses.replace(state, did=state.did.union(done))


def quorum(state: State) -> int:
    """Return how many must agree at least."""
    assert state.committee is not None
    return state.committee.size.quorum


def commit_limit_s(state: State) -> float:
    """Return how long commits are waited for: by how long a quorum took, once there is one."""
    timing = state.timing
    if state.quorum_s is None:
        return timing.commit_s
    took_s = state.quorum_s - state.since_s
    return min(timing.commit_s, took_s * timing.patience + timing.settle_s)


def others_reveal(state: State) -> bool:
    """Return whether so many reveal that some of them are honest, and closed their commits."""
    return sum(peer in state.view.reveals for peer in state.called) > len(state.called) // 2


def is_timely(state: State, peer: str) -> bool:
    """Return whether we saw a peer's commit before we took no more."""
    commit = state.view.commits.get(peer)
    return commit is not None and commit.at_s <= state.closed_s


def witnessed(state: State) -> tuple[str, ...]:
    """Return the commits that we saw in time, as our reveal names them."""
    commits = state.view.commits
    return tuple(sorted(commits[p].record.brief for p in state.called if is_timely(state, p)))


def judge(state: State) -> Judgement:
    """Return what follows from all that this peer saw in time."""
    candidate = state.candidate
    assert candidate is not None
    assert candidate.attendance is not None
    called = [peer for peer in state.called if peer not in state.view.doubles]
    case = Case(
        epoch=candidate.epoch,
        candidate=candidate.state_root,
        members=candidate.members,
        attendance=candidate.attendance,
        seats=state.view.seats(called),
        doubles=state.view.doubles.values(),
    )
    return build(state.rules, state.tip, case)


def is_my_turn(now_s: float, state: State) -> bool:
    """Return whether it falls to us to propose: nobody before us did, and they had their time."""
    assert state.candidate is not None
    revealed = [peer for peer in state.called if peer in state.view.reveals]
    order = revealed or list(state.called)
    if state.me not in order or "propose" in state.did or state.candidate.attendance is None:
        return False
    turn_s = state.timing.turn_s
    if now_s - state.since_s < order.index(state.me) * turn_s:
        return False
    fair = (s.at_s for s in state.view.judgements.values() if objection(state, s.record) is None)
    return now_s >= max(fair, default=-_NEVER_S) + 3 * turn_s


def objection(state: State, judgement: Judgement) -> str | None:
    """Return why we do not sign or adopt what follows from its evidence, or None."""
    if state.candidate is None or state.candidate.state_root != judgement.candidate:
        return "it is about a candidate that we do not hold"
    in_good_time_s = state.began_s + state.timing.tickets_s - state.timing.settle_s
    reveal_by_s = state.closed_s + state.hold_s + state.timing.settle_s
    return omission(judgement, state.view, in_good_time_s, state.closed_s, reveal_by_s)


def is_settled(state: State, judgement: Judgement) -> bool:
    """Return whether the others hold to it: then we were not there, or our view was a poor one."""
    needed = judgement.committee.size.quorum
    return most_held(state.view.good, judgement.roster, needed) == judgement.hash


def to_fetch(state: State) -> dict[str, tuple[str, ...]]:
    """Return the judgements of the round that we lack, and who newly says to have them."""
    number = state.tip.ledger.round + 1
    offers = [(peer, seen.record.judgement) for peer, seen in state.view.proposals.items()]
    offers += [(peer, g.verdict) for peer, g in state.view.good.items() if g.round == number]
    # Where it is known who may sit, nobody else is asked: keys are cheap.
    known = state.called or state.roster or state.tip.ledger.drawn
    wanted: dict[str, tuple[str, ...]] = {}
    for peer, name in sorted(offers):
        if known and peer not in {*known, *state.roster}:
            continue
        if name not in state.view.judgements and f"fetch {name} {peer}" not in state.did:
            wanted[name] = (*wanted.get(name, ()), peer)
    return wanted


def reason_against(state: State, judgement: Judgement) -> str | None:
    """Return why `judgement` does not follow; what we know of its candidate is held against it."""
    known = state.candidate
    if known is None or known.state_root != judgement.candidate:
        return problem(judgement, state.rules, state.tip, verify=state.verify)
    return problem(
        judgement,
        state.rules,
        state.tip,
        members=known.members,
        attendance=known.attendance,
        verify=state.verify,
    )
