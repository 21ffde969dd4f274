"""Three validators of eight lie in every way, over a thousand rounds: no verdict is wrong."""

import random
from collections import Counter

import pytest

from peer.validation.judge import Case, build, problem
from peer.validation.score import Decision, Losses, Question, make_commit, make_reveal
from peer.validation.ticket import make
from peer.validation.verdict import Seat, Tip

ROUNDS = 1000
BETTER, WORSE = -0.02, 0.2


def shifted(losses, points):
    return Losses(tuple(c + points for c in losses.candidate), losses.baseline)


def told(peer, question, committed, shown):
    """Return a seat that committed to one thing and shows another; None for nothing."""
    return Seat(
        ticket=make(peer, question.seed),
        commit=make_commit(peer, question, committed) if committed else None,
        reveal=make_reveal(peer, question, shown) if shown else None,
    )


def witnessed(seats, honest):
    """Return `seats` in which the honest name all commits, and the others deny them all."""
    briefs = tuple(sorted(seat.commit.brief for seat in seats if seat.commit))

    def named(seat):
        peer = honest.get(seat.ticket.peer_id)
        if peer is None:
            return seat
        reveal = seat.reveal.model_copy(update={"witnessed": briefs}).signed_by(peer)
        return seat.model_copy(update={"reveal": reveal})

    return [named(seat) for seat in seats]


def inflate(peer, question, truth, others, rng):
    lie = shifted(truth, 3000)
    return told(peer, question, lie, lie)


def deflate(peer, question, truth, others, rng):
    lie = shifted(truth, -3000)
    return told(peer, question, lie, lie)


def nudge(peer, question, truth, others, rng):
    lie = shifted(truth, rng.choice([-1, 1]) * rng.randint(40, 600))
    return told(peer, question, lie, lie)


def scatter(peer, question, truth, others, rng):
    lie = Losses(*(tuple(rng.randrange(10**5) for _ in truth.baseline) for _ in "cb"))
    return told(peer, question, lie, lie)


def silent(peer, question, truth, others, rng):
    return told(peer, question, None, None)


def withhold(peer, question, truth, others, rng):
    return told(peer, question, truth, None)


def copy_commit(peer, question, truth, others, rng):
    """Shows another's commit and scores as its own."""
    victim = rng.choice([seat for seat in others if seat.reveal])
    commit, reveal = victim.commit.signed_by(peer), victim.reveal.signed_by(peer)
    return Seat(ticket=make(peer, question.seed), commit=commit, reveal=reveal)


def copy_reveal(peer, question, truth, others, rng):
    """Commits to nothing in particular, and shows what another showed."""
    victim = rng.choice([seat for seat in others if seat.reveal])
    seen = Losses(victim.reveal.candidate, victim.reveal.baseline)
    return told(peer, question, Losses((1,), (1,)), seen)


LIES = [inflate, deflate, nudge, scatter, silent, withhold, copy_commit, copy_reveal]
COPIES = {copy_commit, copy_reveal}


@pytest.fixture
def play(sim, crowd):
    """Return one round after the other: which lies, and the judgement."""

    def run(rounds, liars, seed, *, together=False):
        peers, rng = crowd(8), random.Random(seed)
        tip = Tip.genesis(sim.RULES.run_id, sim.root("initial"))
        members = {peer.peer_id for peer in peers}
        for number in range(rounds):
            worse = rng.choice([BETTER, WORSE])
            epoch = tip.ledger.epoch + sim.RULES.every_epochs
            baseline = tip.ledger.baseline.state_root
            root = sim.root(f"{seed} {number}")
            question = Question(tip.ledger.seed(sim.RULES.run_id, epoch), root, baseline)
            false = dict.fromkeys(rng.sample(peers, liars))
            for liar in false:
                false[liar] = rng.choice(LIES)
            if together:
                false = dict.fromkeys(false, inflate if worse == BETTER else deflate)
            truth = {p: sim.honest_losses(question, worse, 1, rng) for p in peers}
            seats = [told(p, question, truth[p], truth[p]) for p in peers if p not in false]
            honest = list(seats)
            seats += [lie(p, question, truth[p], honest, rng) for p, lie in false.items()]
            seats = witnessed(seats, {p.peer_id: p for p in peers if p not in false})
            case = Case(epoch, root, members, dict.fromkeys(members, 10), seats)
            judgement = build(sim.RULES, tip, case)
            yield tip, worse, {p.peer_id: lie for p, lie in false.items()}, judgement
            # Everybody's strikes are forgiven: each round is to have its three liars.
            pardoned = tuple(
                s.model_copy(update={"strikes": (), "barred_until": 0})
                for s in judgement.after.standings
            )
            after = judgement.after.model_copy(
                update={"standings": pardoned, "drawn": (), "drawn_after": ()}
            )
            tip = Tip(after, judgement.hash)

    return run


def tally(rounds):
    """Return how rounds ended, and check who was struck."""
    ends = Counter()
    for _, worse, lies, judgement in rounds:
        right = Decision.ACCEPT if worse == BETTER else Decision.REJECT
        inconclusive = judgement.decision is Decision.INCONCLUSIVE
        ends["inconclusive" if inconclusive else str(judgement.decision is right)] += 1
        caught = {peer for peer, lie in lies.items() if lie in COPIES}
        assert caught <= set(judgement.struck)
        assert set(judgement.struck) <= set(lies)
        if not inconclusive:
            liars = {peer for peer, lie in lies.items() if lie is not silent}
            assert liars == set(judgement.struck)
    return ends


def test_three_liars_of_eight_cause_no_wrong_verdict_and_copiers_are_caught(play):
    ends = tally(play(ROUNDS, 3, seed=1))
    assert ends["False"] == 0
    assert ends["inconclusive"] <= 0.05 * ROUNDS
    assert ends["True"] >= 0.95 * ROUNDS


def test_three_liars_that_agree_with_each_other_are_outvoted(play):
    ends = tally(play(100, 3, seed=2, together=True))
    assert ends == {"True": 100}


def test_five_that_agree_to_lie_do_decide(play):
    ends = Counter()
    for _, worse, _, judgement in play(20, 5, seed=3, together=True):
        right = Decision.ACCEPT if worse == BETTER else Decision.REJECT
        ends[judgement.decision is right] += 1
    assert ends[True] == 0


def test_judgements_under_lies_still_prove_themselves(play, sim, crowd):
    verify = crowd(1)[0].verify
    for tip, _, _, judgement in play(20, 3, seed=4):
        assert problem(judgement, sim.RULES, tip, verify=verify) is None
