"""Judgements: built by one function, and checked by building them again. Pure."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from peer import identity
from peer.errors import MisbehavedError
from peer.swarm.testimony import Verify
from peer.validation import ticket as tickets
from peer.validation.committee import Committee, elect
from peer.validation.ledger import Outcome, advance
from peer.validation.rules import MAX_ROSTER, Rules
from peer.validation.score import Finding, Losses, Question, counted, find, opens
from peer.validation.ticket import DoubleTicket
from peer.validation.verdict import MAX_DOUBLES, Attended, Judgement, Seat, Tip, Verdict


@dataclasses.dataclass(frozen=True)
class Case:
    """What a judgement is made of.

    Attributes:
        epoch: The candidate's.
        candidate: Its state root.
        members: Whose contributions are in the certificate that led to it.
        attendance: In how many of the `every_epochs` epochs that led to it each peer contributed.
        seats: Who was called, and what they said.
        doubles: Proofs of two tickets.
    """

    epoch: int
    candidate: str
    members: Collection[str]
    attendance: Mapping[str, int]
    seats: Sequence[Seat]
    doubles: Iterable[DoubleTicket] = ()


def build(rules: Rules, tip: Tip, case: Case) -> Judgement:
    """Return the judgement that follows from good evidence; equal for equal evidence."""
    ledger = tip.ledger
    seed = ledger.seed(rules.run_id, case.epoch)
    roster, ground = ledger.roster(case.epoch, case.members, rules)
    committee, drawn = elect((seat.ticket for seat in case.seats), roster)
    by_peer = {seat.ticket.peer_id: seat for seat in case.seats}
    seats = tuple(by_peer[peer] for peer in committee.called)
    question = Question(seed, case.candidate, ledger.baseline.state_root)
    finding, struck = _weigh(seats, question, committee, rules)
    # Of strangers there are any number of keys, and the ledger is to hold none of them.
    known = {*roster, *(standing.peer_id for standing in ledger.standings)}
    doubles = _sorted_doubles(each for each in case.doubles if each.peer_id in known)
    attendance = _most(case.attendance)
    outcome = Outcome(
        epoch=case.epoch,
        state_root=case.candidate,
        decision=finding.decision,
        difference_points=finding.difference_points,
        seed=seed,
        lowest_lot=tickets.lot(drawn[0]) if drawn else "",
        struck=struck,
        excluded={each.peer_id for each in doubles},
        attendance=attendance,
    )
    return Judgement(
        run_id=rules.run_id,
        round=ledger.round + 1,
        epoch=case.epoch,
        candidate=case.candidate,
        baseline=question.baseline,
        seed=seed,
        previous=tip.hash,
        ground=ground,
        roster=roster,
        seats=seats,
        doubles=doubles,
        attendance=tuple(
            Attended(peer_id=peer, epochs=epochs) for peer, epochs in sorted(attendance.items())
        ),
        decision=finding.decision,
        reason=finding.reason,
        difference_points=finding.difference_points,
        error_points=finding.error_points,
        cluster=finding.cluster,
        struck=struck,
        after=advance(ledger, outcome, rules),
    )


def problem(
    judgement: Judgement,
    rules: Rules,
    tip: Tip,
    *,
    members: Collection[str] | None = None,
    attendance: Mapping[str, int] | None = None,
    verify: Verify = identity.verify,
) -> str | None:
    """Return why `judgement` does not follow from its evidence and the last one, or None.

    Args:
        judgement: What somebody shows.
        rules: The run's.
        tip: The end of the chain that it claims to continue.
        members: As in `Case`; None where the certificate is not at hand. Its word is taken then,
            which matters in the first two rounds and after a lapse only.
        attendance: As in `Case`; None as above, which matters for tenure only.
        verify: How a signature is checked.
    """
    if (judgement.run_id, judgement.previous) != (rules.run_id, tip.hash):
        return "it continues another chain"
    if judgement.epoch <= tip.ledger.epoch or judgement.epoch % rules.every_epochs:
        return "there is no candidate at its epoch"
    if (wrong := _evidence_problem(judgement, verify)) is not None:
        return wrong
    case = Case(
        epoch=judgement.epoch,
        candidate=judgement.candidate,
        members=judgement.roster if members is None else members,
        attendance=_attendance(judgement) if attendance is None else attendance,
        seats=judgement.seats,
        doubles=judgement.doubles,
    )
    if max(case.attendance.values(), default=0) > rules.every_epochs:
        return "a peer attended more epochs than there were"
    rebuilt = build(rules, tip, case)
    if rebuilt == judgement:
        return None
    fields = (name for name in Judgement.model_fields if _differs(name, rebuilt, judgement))
    return f"its {next(fields)} does not follow from its evidence"


def verdict_problem(
    verdict: Verdict,
    rules: Rules,
    tip: Tip,
    *,
    members: Collection[str] | None = None,
    attendance: Mapping[str, int] | None = None,
    verify: Verify = identity.verify,
) -> str | None:
    """Return why `verdict` does not continue the chain that ends in `tip`, or None.

    See `problem` for the arguments.
    """
    judgement = verdict.judgement
    wrong = problem(judgement, rules, tip, members=members, attendance=attendance, verify=verify)
    if wrong is not None:
        return wrong
    return _quorum_problem(verdict, verify)


def opening_problem(verdict: Verdict, rules: Rules, verify: Verify = identity.verify) -> str | None:
    """Return why `verdict` cannot be the first that is known of a chain, or None.

    What hangs on the verdict before it is believed: the roster, the seed, the ledger. Its evidence
    is checked, that its finding follows from that, and who signed it.
    """
    judgement = verdict.judgement
    wrong = _misplaced(judgement, rules) or _evidence_problem(judgement, verify)
    return wrong or _misjudged(judgement, rules) or _quorum_problem(verdict, verify)


def follow(
    rules: Rules, tip: Tip, verdicts: Iterable[Verdict], verify: Verify = identity.verify
) -> Tip:
    """Return the end of the chain when `verdicts`, oldest first, are added.

    Raises:
        MisbehavedError: One of them does not continue it.
    """
    for verdict in verdicts:
        wrong = verdict_problem(verdict, rules, tip, verify=verify)
        if wrong is not None:
            raise MisbehavedError(f"verdict {verdict.judgement.round} is refused: {wrong}")
        tip = Tip(verdict.judgement.after, verdict.judgement.hash)
    return tip


def resume(
    rules: Rules, genesis: Tip, chain: Sequence[Verdict], verify: Verify = identity.verify
) -> Tip:
    """Return the end of a chain as a peer kept it, oldest verdict first.

    A chain that does not begin with `genesis` was joined later. What lies before its first verdict
    was believed then; see `opening_problem`.

    Raises:
        MisbehavedError: A verdict does not continue the chain.
    """
    if not chain or chain[0].judgement.previous == genesis.hash:
        return follow(rules, genesis, chain, verify)
    first = chain[0].judgement
    if (wrong := opening_problem(chain[0], rules, verify)) is not None:
        raise MisbehavedError(f"verdict {first.round} is refused: {wrong}")
    return follow(rules, Tip(first.after, first.hash), chain[1:], verify)


def _weigh(
    seats: Sequence[Seat], question: Question, committee: Committee, rules: Rules
) -> tuple[Finding, tuple[str, ...]]:
    """Return what the seats' scores say, and who gets a strike, sorted."""
    commits = {seat.commit.peer_id: seat.commit for seat in seats if seat.commit is not None}
    reveals = {
        seat.reveal.peer_id: seat.reveal
        for seat in seats
        if seat.commit and seat.reveal and opens(seat.reveal, seat.commit, question)
    }
    in_time = counted(commits, reveals)
    broken = in_time - set(reveals)
    panel = {
        peer: Losses(reveal.candidate, reveal.baseline)
        for peer, reveal in reveals.items()
        if peer in in_time
    }
    needed = committee.size.agreement(len(panel))
    finding = find(panel, needed, rules.margin_points, rules.tolerance_points)
    return finding, tuple(sorted(broken | set(finding.outliers)))


def _misplaced(judgement: Judgement, rules: Rules) -> str | None:
    """Return why a judgement cannot stand where it says, whatever comes before it, or None."""
    if judgement.run_id != rules.run_id:
        return "it is of another run"
    if judgement.round == 1:
        return "it does not begin where the run begins"
    if judgement.epoch % rules.every_epochs:
        return "there is no candidate at its epoch"
    if judgement.after.round != judgement.round:
        return "its ledger is of another round"
    return None


def _misjudged(judgement: Judgement, rules: Rules) -> str | None:
    """Return whether seats or finding do not follow from good evidence."""
    committee = judgement.committee
    if committee.called != judgement.called:
        return "its seats do not follow from its tickets"
    finding, struck = _weigh(judgement.seats, judgement.question, committee, rules)
    told = Finding(
        decision=judgement.decision,
        reason=judgement.reason,
        difference_points=judgement.difference_points,
        error_points=judgement.error_points,
        cluster=judgement.cluster,
        outliers=finding.outliers,
    )
    if (finding, struck) != (told, judgement.struck):
        return "what it finds does not follow from its evidence"
    return None


def _quorum_problem(verdict: Verdict, verify: Verify) -> str | None:
    signed, needed = len(verdict.signers(verify)), verdict.judgement.committee.size.quorum
    if signed < needed:
        return f"{signed} of those called signed it, {needed} must"
    return None


def _evidence_problem(judgement: Judgement, verify: Verify) -> str | None:
    if not judgement.seats or len(set(judgement.called)) != len(judgement.seats):
        return "it has no seats, or one peer twice"
    for seat in judgement.seats:
        wrong = tickets.problem(seat.ticket, judgement.seed, judgement.roster, verify)
        if wrong is not None:
            return f"a ticket is refused: {wrong}"
        if (wrong := _seat_problem(seat, judgement.question, verify)) is not None:
            return wrong
    if not all(each.is_proof(verify) for each in judgement.doubles):
        return "what it says of a double ticket is no proof"
    return None


def _seat_problem(seat: Seat, question: Question, verify: Verify) -> str | None:
    said = [each for each in (seat.commit, seat.reveal) if each is not None]
    key, seed = seat.ticket.public_key, question.seed
    if any((each.public_key, each.seed) != (key, seed) for each in said):
        return "a seat holds what another peer or round said"
    if seat.commit is not None and seat.commit.question != question.id:
        return "a commit answers another question"
    if seat.reveal is not None and seat.commit is None:
        return "a reveal has no commit"
    if not all(each.is_good(verify) for each in said):
        return "a commit or a reveal is not signed by its peer"
    return None


def _sorted_doubles(doubles: Iterable[DoubleTicket]) -> tuple[DoubleTicket, ...]:
    """Return one proof for each key, in one order."""
    by_peer = {each.peer_id: each for each in sorted(doubles, key=lambda d: (d.seed, d.first))}
    return tuple(by_peer[peer] for peer in sorted(by_peer))[:MAX_DOUBLES]


def _most(attendance: Mapping[str, int]) -> dict[str, int]:
    """Return the attendance of those who were there most often, as many as a ledger knows."""
    ranked = sorted(attendance, key=lambda peer: (-attendance[peer], peer))
    return {peer: attendance[peer] for peer in ranked[:MAX_ROSTER]}


def _attendance(judgement: Judgement) -> dict[str, int]:
    return {each.peer_id: each.epochs for each in judgement.attendance}


def _differs(name: str, one: Judgement, other: Judgement) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
