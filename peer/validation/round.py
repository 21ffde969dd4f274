"""One validation round as one peer goes through it: a pure state machine.

`step` takes what was observed and says what is to be done; a driver outside carries it out. Every
peer runs it, whether it is called or not: those who are not called verify and adopt. Each wait has
an end, so a seat that dies costs a deadline and no more.
"""

import dataclasses
from collections.abc import Callable

from peer.validation.actions import (
    Action,
    Adopt,
    Candidate,
    Evaluate,
    Fetch,
    Found,
    Propose,
    PublishCommit,
    PublishReveal,
    PublishTicket,
    SignVerdict,
)
from peer.validation.choice import prefer
from peer.validation.committee import elect
from peer.validation.state import (
    Phase,
    State,
    begin,
    commit_limit_s,
    enter,
    is_my_turn,
    is_settled,
    is_timely,
    judge,
    lapse,
    note,
    objection,
    others_reveal,
    quorum,
    reason_against,
    to_fetch,
    witnessed,
)
from peer.validation.verdict import Judgement, Verdict
from peer.validation.view import MAX_JUDGEMENTS, Observed, Seen, take_assents, take_records

_Result = tuple[State, tuple[Action, ...]]


def step(
    now_s: float,
    state: State,
    observed: Observed,
    candidate: Candidate | None = None,
    found: Found | None = None,
) -> _Result:
    """Return the state after what was observed, and what is to be done.

    Args:
        now_s: The peer's monotonic clock.
        state: Before.
        observed: What lies in the DHT and what was fetched, our own records included.
        candidate: The newest one that this peer holds, if any.
        found: What our own evaluation found, when it is done.
    """
    state, actions = _take_candidate(now_s, state, candidate)
    if found is not None and state.candidate is not None and found.question == state.question:
        state = dataclasses.replace(state, losses=state.losses or found.losses)
    state = _take(now_s, state, observed)
    while True:
        phase = state.phase
        for handle in (_adopt, _HANDLERS[phase]):
            state, more = handle(now_s, state)
            actions += more
            if state.phase is not phase:
                break
        if state.phase is phase:
            return state, actions


# ---- taking in


def _take_candidate(now_s: float, state: State, candidate: Candidate | None) -> _Result:
    """Begin with the newest candidate; one under judgement is not given up for a newer one.

    A round that takes longer than candidates follow each other would otherwise never end.
    """
    free = state.phase in {Phase.WAIT_CANDIDATE, Phase.LAPSED}
    ahead = state.candidate.epoch if state.candidate is not None else state.tip.ledger.epoch
    if candidate is None or not free or candidate.epoch <= ahead:
        return state, ()
    fresh = begin(
        state.me,
        state.rules,
        state.timing,
        state.tip,
        willing=state.willing,
        verify=state.verify,
        doubles=state.view.doubles,
    )
    roster, _ = state.tip.ledger.roster(candidate.epoch, candidate.members, state.rules)
    fresh = dataclasses.replace(
        fresh, phase=state.phase, candidate=candidate, roster=roster, began_s=now_s
    )
    fresh = enter(now_s, fresh, Phase.TICKETS)
    may_sit = state.willing and state.me in roster and candidate.attendance is not None
    return fresh, (PublishTicket(fresh.seed),) if may_sit else ()


def _take(now_s: float, state: State, observed: Observed) -> State:
    view = state.view
    if state.candidate is not None:
        view = take_records(view, observed, now_s, state.question, state.roster, state.verify)
    judgements = dict(view.judgements)
    for verdict in observed.verdicts:
        judgement = verdict.judgement
        if judgement.hash in judgements or reason_against(state, judgement) is not None:
            continue
        # What is signed by enough is always looked at: of the rest there could be any number.
        signed = len(verdict.signers(state.verify)) >= judgement.committee.size.quorum
        if signed or len(judgements) < MAX_JUDGEMENTS:
            judgements[judgement.hash] = Seen(judgement, now_s)
    view = dataclasses.replace(view, judgements=judgements)
    return dataclasses.replace(state, view=take_assents(view, observed, state.verify))


# ---- phases


def _adopt(now_s: float, state: State) -> _Result:
    """Adopt the best verdict of the round; after one was adopted, only a better one."""
    best = _best(state)
    if best is None or (state.adopted is not None and best == state.adopted.judgement):
        return state, ()
    verdict = Verdict(judgement=best, assents=state.view.signed(best))
    state = dataclasses.replace(state, adopted=verdict)
    if state.phase is not Phase.DONE:
        state = enter(now_s, state, Phase.DONE)
    return state, (Adopt(verdict),)


def _best(state: State) -> Judgement | None:
    """Return the signed judgement to hold to, if there is one.

    That is the one that most of the roster hold to, whatever we saw ourselves; else, of those that
    leave out nothing that we saw, the one with the lowest lots.
    """
    best = state.adopted.judgement if state.adopted is not None else None
    for seen in state.view.judgements.values():
        judgement = seen.record
        if len(state.view.signed(judgement)) < judgement.committee.size.quorum:
            continue
        if is_settled(state, judgement):
            return judgement
        if objection(state, judgement) is None:
            best = judgement if best is None else prefer(best, judgement)
    return best


def _tickets(now_s: float, state: State) -> _Result:
    limit_s = state.timing.tickets_s
    tickets, waited_s = state.view.drawn(), now_s - state.since_s
    if len(tickets) < len(state.roster) and waited_s < limit_s:
        return state, ()
    committee, _ = elect(tickets, state.roster)
    if len(committee.called) < committee.size.quorum:
        # Some peers may have come to the candidate later than we did.
        if waited_s < 2 * limit_s:
            return state, ()
        return lapse(now_s, state, "too few of those who may sit are here"), ()
    state = enter(now_s, dataclasses.replace(state, committee=committee), Phase.COMMIT)
    place = committee.place(state.me)
    if place is None:
        return state, ()
    assert state.candidate is not None
    baseline = state.tip.ledger.baseline
    return state, (Evaluate(state.question, state.candidate, baseline, place),)


def _commit(now_s: float, state: State) -> _Result:
    actions: tuple[Action, ...] = ()
    if state.losses is not None and state.me in state.called and "commit" not in state.did:
        actions = (PublishCommit(state.question, state.losses),)
        state = note(state, "commit")
    committed = [peer for peer in state.called if peer in state.view.commits]
    if state.quorum_s is None and len(committed) >= quorum(state):
        state = dataclasses.replace(state, quorum_s=now_s)
    everybody = len(committed) == len(state.called)
    waited_s = now_s - state.since_s
    if not (everybody or waited_s >= commit_limit_s(state) or others_reveal(state)):
        return state, actions
    if not committed:
        return lapse(now_s, state, "nobody scored the candidate"), actions
    # Whoever has not committed must not see a score; where all have, or scores are out, why wait.
    hold_s = 0.0 if everybody or others_reveal(state) else state.timing.settle_s
    state = dataclasses.replace(state, closed_s=now_s, hold_s=hold_s)
    return enter(now_s, state, Phase.REVEAL), actions


def _reveal(now_s: float, state: State) -> _Result:
    actions: tuple[Action, ...] = ()
    waited_s = now_s - state.closed_s - state.hold_s
    if waited_s < 0.0:
        return state, actions
    if state.losses is not None and "commit" in state.did and "reveal" not in state.did:
        actions = (PublishReveal(state.question, state.losses, witnessed(state)),)
        state = note(state, "reveal")
    committed = {peer for peer in state.called if is_timely(state, peer)}
    revealed = committed & set(state.view.reveals)
    enough = len(revealed) >= quorum(state)
    limit_s = state.timing.settle_s * (2 if enough else 4)
    if revealed == committed or waited_s >= limit_s:
        return enter(now_s, state, Phase.VERDICT), actions
    return state, actions


def _verdict(now_s: float, state: State) -> _Result:
    actions: list[Action] = []
    if is_my_turn(now_s, state):
        judgement = judge(state)
        shown = {**state.view.judgements, judgement.hash: Seen(judgement, now_s)}
        view = dataclasses.replace(state.view, judgements=shown)
        state = note(dataclasses.replace(state, view=view), "propose")
        actions.append(Propose(judgement))
    for name, donors in to_fetch(state).items():
        actions.append(Fetch(name, donors))
        state = note(state, *(f"fetch {name} {donor}" for donor in donors))
    for seen in state.view.judgements.values():
        signs = state.me in seen.record.called and f"sign {seen.record.hash}" not in state.did
        if signs and objection(state, seen.record) is None:
            actions.append(SignVerdict(seen.record))
            state = note(state, f"sign {seen.record.hash}")
    if now_s - state.since_s >= state.timing.verdict_s:
        return lapse(now_s, state, "no verdict was signed by enough"), tuple(actions)
    return state, tuple(actions)


def _rest(_now_s: float, state: State) -> _Result:
    """Wait for somebody else's verdict, or for what others hold to."""
    names = to_fetch(state)
    done = (f"fetch {name} {donor}" for name, donors in names.items() for donor in donors)
    return note(state, *done), tuple(Fetch(name, donors) for name, donors in names.items())


_HANDLERS: dict[Phase, Callable[[float, State], _Result]] = {
    Phase.WAIT_CANDIDATE: _rest,
    Phase.TICKETS: _tickets,
    Phase.COMMIT: _commit,
    Phase.REVEAL: _reveal,
    Phase.VERDICT: _verdict,
    Phase.LAPSED: _rest,
    Phase.DONE: _rest,
}
