"""One peer's way through a round, step by step."""

import base64
import dataclasses

import pytest

from peer.swarm.testimony import Assent, Good, Proposal
from peer.validation.actions import (
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
from peer.validation.judge import build
from peer.validation.round import step
from peer.validation.rules import Timing
from peer.validation.score import make_commit, make_reveal
from peer.validation.state import TRANSITIONS, Phase, begin
from peer.validation.ticket import in_order, make
from peer.validation.view import Observed

TIMING = Timing(tickets_s=10.0, commit_s=100.0, settle_s=4.0, turn_s=2.0, verdict_s=40.0)


@pytest.fixture
def crowd(stand_in):
    """Return eight peers; the sandbox has as many."""
    return [stand_in(f"peer {i}") for i in range(8)]


class Table:
    """One peer's state machine, and the hands of all the others.

    Attributes:
        peers: In the order of their lots; we are `me` among them.
    """

    def __init__(self, rules, tip, crowd, root, me, **options):
        ids = frozenset(each.peer_id for each in crowd)
        attended = dict.fromkeys(ids, rules.every_epochs)
        self.rules, self.tip = rules, tip
        self.candidate = Candidate(5, root("candidate"), ids, attended)
        self.seed = tip.ledger.seed(rules.run_id, 5)
        by_id = {each.peer_id: each for each in crowd}
        self.peers = [by_id[t.peer_id] for t in in_order(make(p, self.seed) for p in crowd)]
        self.me = self.peers[me]
        self.others = [peer for peer in self.peers if peer is not self.me]
        options = {"verify": crowd[0].verify} | options
        self.state = begin(self.me.peer_id, rules, TIMING, tip, **options)
        self.here = Observed()
        self.now_s = 0.0
        self.did = []

    def see(self, **records):
        """Add records to what lies in the DHT."""
        merged = {}
        for name, fresh in records.items():
            old = getattr(self.here, name)
            merged[name] = {**old, **fresh} if isinstance(fresh, dict) else (*old, *fresh)
        self.here = dataclasses.replace(self.here, **merged)

    def step(self, wait_s=0.5, **given):
        """Let time pass, take a step, and carry out for ourselves what it says."""
        self.now_s += wait_s
        given = {"candidate": self.candidate} | given
        if (losses := given.pop("losses", None)) is not None:
            given["found"] = Found(self.state.question, losses)
        self.state, actions = step(self.now_s, self.state, self.here, **given)
        for action in actions:
            self.did.append(action)
            match action:
                case PublishTicket(seed):
                    self.see(tickets=[make(self.me, seed)])
                case PublishCommit(question, losses):
                    self.see(commits=[make_commit(self.me, question, losses)])
                case PublishReveal(question, losses, witnessed):
                    self.see(reveals=[make_reveal(self.me, question, losses, witnessed)])
                case SignVerdict(judgement):
                    self.see(assents=[assent(self.me, judgement)])
        return actions

    def tickets(self, peers):
        self.see(tickets=[make(peer, self.seed) for peer in peers])

    def commits(self, peers, losses):
        self.see(commits=[make_commit(peer, self.state.question, losses) for peer in peers])

    def reveals(self, peers, losses):
        witnessed = [each.brief for each in self.here.commits]
        question = self.state.question
        self.see(reveals=[make_reveal(peer, question, losses, witnessed) for peer in peers])

    def to_reveal(self, losses):
        """Go on until all have committed and we revealed."""
        self.tickets(self.others)
        self.step()
        self.step()
        self.commits(self.others, losses)
        self.step(20.0, losses=losses)
        self.step()
        assert self.state.phase is Phase.REVEAL

    def judgement(self, case, sign):
        return sign(build(self.rules, self.tip, case), [])


def assent(peer, judgement):
    record = Assent(seed=judgement.seed, judgement=judgement.hash, public_key="", signature="")
    return record.signed_by(peer)


def proposal(table, verdict):
    return Proposal(seed=table.seed, judgement=verdict.judgement.hash)


@pytest.fixture
def make_table(rules, genesis, crowd, root):
    return lambda me=0, **options: Table(rules, genesis, crowd, root, me, **options)


def kinds(actions):
    return [type(action) for action in actions]


def test_every_phase_is_in_the_table_and_a_verdict_ends_each():
    assert set(TRANSITIONS) == set(Phase)
    assert all(Phase.DONE in after for phase, after in TRANSITIONS.items() if phase != Phase.DONE)
    assert TRANSITIONS[Phase.DONE] == frozenset()


def test_a_round_in_which_all_are_quick(make_table, losses):
    table = make_table()
    assert kinds(table.step()) == [PublishTicket]
    table.tickets(table.others)
    (evaluate,) = table.step()
    assert evaluate == Evaluate(
        table.state.question,
        table.candidate,
        table.tip.ledger.baseline,
        "validator 1 of 7",
    )
    table.commits(table.others, losses())
    assert table.step() == ()
    assert kinds(table.step(2.0, losses=losses())) == [PublishCommit]
    assert kinds(table.step()) == [PublishReveal]
    table.reveals(table.others, losses())
    assert kinds(table.step()) == [Propose, SignVerdict]
    judgement = table.did[-1].judgement
    assert len(judgement.cluster) == 8
    table.see(assents=[assent(peer, judgement) for peer in table.others[:3]])
    assert table.step() == ()
    table.see(assents=[assent(table.others[3], judgement)])
    (adopt,) = table.step()
    assert isinstance(adopt, Adopt)
    assert adopt.verdict.judgement == judgement
    assert table.state.phase is Phase.DONE
    assert table.step() == ()


def test_a_lone_peer_waits_for_nobody(rules, genesis, stand_in, root, losses):
    table = Table(rules, genesis, [stand_in("alone")], root, 0)
    table.step()
    table.step()
    table.step(losses=losses())
    for _ in range(4):
        table.step(0.1)
    assert kinds(table.did)[-1] is Adopt
    assert table.now_s < 3.0


@pytest.mark.parametrize("why", ["unwilling", "stranger", "no certificates"])
def test_who_takes_no_seat_follows_and_adopts(make_table, losses, stand_in, why, make_case, sign):
    table = make_table(willing=why != "unwilling")
    if why == "no certificates":
        table.candidate = dataclasses.replace(table.candidate, attendance=None)
    if why == "stranger":
        table.state = dataclasses.replace(table.state, me=stand_in("stranger").peer_id)
    table.step()
    table.tickets(table.others)
    table.step(11.0)
    table.commits(table.others, losses())
    table.step(20.0)
    table.reveals(table.others, losses())
    table.step(0.5)
    seen = table.candidate
    attended = dict.fromkeys(seen.members, 5)
    case = make_case(table.tip, table.others, members=seen.members, attendance=attended)
    verdict = table.judgement(case, sign)
    table.see(proposals={table.others[0].peer_id: proposal(table, verdict)})
    table.step()
    assert table.did[-1] == Fetch(verdict.judgement.hash, (table.others[0].peer_id,))
    table.see(verdicts=[sign(verdict.judgement, table.others[:5])])
    assert kinds(table.step()) == [Adopt]
    assert not {PublishTicket, Evaluate, SignVerdict} & set(kinds(table.did))


def test_who_has_no_candidate_adopts_what_others_found(make_table, make_case, sign):
    table = make_table()
    case = make_case(table.tip, table.peers)
    verdict = sign(build(table.rules, table.tip, case), table.peers[:5])
    good = Good(round=1, verdict=verdict.judgement.hash, state_root=case.candidate, generation=0)
    before = good.model_copy(update={"round": 0, "verdict": table.tip.hash})
    table.see(good=dict.fromkeys((peer.peer_id for peer in table.others), before))
    table.see(good={table.others[0].peer_id: good})
    assert kinds(table.step(candidate=None)) == [Fetch]
    table.see(verdicts=[verdict])
    assert table.step(candidate=None) == ()
    table.see(good=dict.fromkeys((peer.peer_id for peer in table.others[:3]), good))
    assert table.step(candidate=None) == ()
    table.see(good=dict.fromkeys((peer.peer_id for peer in table.others[:5]), good))
    assert kinds(table.step(candidate=None)) == [Adopt]


def test_a_made_up_candidate_is_adopted_by_nobody(make_table, make_case, sign, losses):
    table = make_table(me=7)
    table.to_reveal(losses())
    case = make_case(table.tip, table.others[:6], name="made up", epoch=50)
    verdict = sign(build(table.rules, table.tip, case), table.others[:6])
    table.see(verdicts=[verdict])
    for _ in range(20):
        assert Adopt not in kinds(table.step())
    assert SignVerdict not in kinds(table.did)


def test_too_few_tickets_end_the_round_and_a_newer_candidate_begins_the_next(make_table, root):
    table = make_table()
    table.step()
    table.tickets(table.others[:3])
    table.step(11.0)
    assert table.state.phase is Phase.TICKETS
    table.step(10.0)
    assert table.state.phase is Phase.LAPSED
    assert table.step() == ()
    first = table.state.seed
    table.candidate = dataclasses.replace(table.candidate, epoch=10, state_root=root("next"))
    assert kinds(table.step()) == [PublishTicket]
    assert table.state.phase is Phase.TICKETS
    assert table.state.seed != first


def test_a_newer_candidate_does_not_stop_a_round(make_table, losses, root):
    table = make_table()
    table.to_reveal(losses())
    newer = dataclasses.replace(table.candidate, epoch=10, state_root=root("next"))
    table.step(candidate=newer)
    assert table.state.candidate == table.candidate


def test_what_was_found_for_another_question_is_not_committed(make_table, losses, root):
    table = make_table()
    table.tickets(table.others)
    table.step()
    table.step()
    stale = dataclasses.replace(table.state.question, candidate=root("an older one"))
    assert table.step(found=Found(stale, losses())) == ()
    assert kinds(table.step(losses=losses())) == [PublishCommit]


def test_a_dead_seat_costs_the_patience_and_no_more(make_table, losses):
    table = make_table()
    table.tickets(table.others)
    table.step()
    table.step()
    table.step(20.0, losses=losses())
    table.commits(table.others[:4], losses())
    table.step(1.0)
    assert table.state.phase is Phase.COMMIT
    table.step(13.0)
    assert table.state.phase is Phase.COMMIT
    table.step(2.0)
    assert table.state.phase is Phase.REVEAL
    assert PublishReveal not in kinds(table.did)
    table.step(4.0)
    assert PublishReveal in kinds(table.did)


def test_one_that_reveals_early_hurries_nobody(make_table, losses):
    table = make_table()
    table.tickets(table.others)
    table.step()
    table.step()
    table.commits(table.others[:1], losses())
    table.reveals(table.others[:1], losses())
    table.step()
    assert table.state.phase is Phase.COMMIT


def test_a_commit_after_the_others_revealed_is_left_out(make_table, losses):
    table = make_table()
    late = table.others[-1]
    table.tickets(table.others)
    table.step()
    table.step()
    table.commits(table.others[:-1], losses())
    table.step(10.0, losses=losses())
    table.step(10.0)
    assert table.state.phase is Phase.REVEAL
    table.reveals(table.others[:-1], losses())
    table.step(5.0)
    table.commits([late], losses())
    table.reveals([late], losses())
    table.step(4.0)
    table.step(1.0)
    judgement = next(a.judgement for a in table.did if isinstance(a, Propose))
    assert late.peer_id in judgement.called
    assert late.peer_id not in {*judgement.cluster, *judgement.struck}


@pytest.fixture
def at_verdict(make_table, losses):
    """Return a table where we are the last to propose, and everybody revealed."""
    table = make_table(me=7)
    table.to_reveal(losses())
    table.reveals(table.others, losses())
    table.step(0.5)
    assert table.state.phase is Phase.VERDICT
    table.step(5.0)
    return table


def leaving_out(case, *, ticket=(), reveal=(), commit=()):
    seats = [seat for i, seat in enumerate(case.seats) if i not in ticket]
    for i in reveal:
        seats[i] = seats[i].model_copy(update={"reveal": None})
    for i in commit:
        seats[i] = seats[i].model_copy(update={"commit": None, "reveal": None})
    return dataclasses.replace(case, seats=seats)


@pytest.mark.parametrize(
    "gap", [{"ticket": [2]}, {"ticket": [7]}, {"reveal": [3]}, {"commit": [3]}]
)
def test_a_proposal_that_leaves_something_out_is_neither_signed_nor_adopted(
    at_verdict, make_case, sign, gap
):
    table = at_verdict
    case = leaving_out(make_case(table.tip, table.peers), **gap)
    verdict = table.judgement(case, sign)
    table.see(proposals={table.peers[0].peer_id: proposal(table, verdict)})
    assert kinds(table.step()) == [Fetch]
    signers = [*table.others[:2], *table.others[3:6]]
    table.see(verdicts=[sign(verdict.judgement, signers)])
    assert table.step() == ()
    # When most of the others hold to it, it was our view that was poor.
    good = Good(round=1, verdict=verdict.judgement.hash, state_root=case.candidate, generation=0)
    table.see(good={peer.peer_id: good for peer in table.others[:5]})
    assert kinds(table.step()) == [Adopt]


def test_a_fair_proposal_is_signed_once_and_not_repeated(at_verdict, make_case, sign):
    table = at_verdict
    verdict = table.judgement(make_case(table.tip, table.peers), sign)
    table.see(proposals={table.peers[0].peer_id: proposal(table, verdict)}, verdicts=[verdict])
    assert kinds(table.step()) == [SignVerdict]
    for _ in range(5):
        assert table.step(1.0) == ()
    assert Propose not in kinds(table.did)


def test_a_proposal_that_does_not_follow_is_not_signed(at_verdict, make_case, sign):
    table = at_verdict
    verdict = table.judgement(make_case(table.tip, table.peers), sign)
    lie = verdict.judgement.model_copy(update={"error_points": 5})
    lie.__dict__.pop("hash", None)
    table.see(verdicts=[sign(lie, table.others)])
    assert table.step() == ()


def test_where_those_before_us_are_dead_we_propose_in_our_turn(at_verdict):
    table = at_verdict
    turns_s = 7 * TIMING.turn_s
    while Propose not in kinds(table.step(0.5)):
        assert table.now_s - table.state.since_s <= turns_s + 0.5
    assert table.now_s - table.state.since_s >= turns_s


def test_without_signatures_the_round_ends_and_a_late_verdict_still_counts(at_verdict, sign):
    table = at_verdict
    table.step(39.0)
    assert table.state.phase is Phase.LAPSED
    judgement = next(a.judgement for a in table.did if isinstance(a, Propose))
    table.see(verdicts=[sign(judgement, table.others[:5])])
    assert kinds(table.step()) == [Adopt]


def test_a_key_with_two_tickets_has_no_seat_and_is_named(rules, genesis, crowd, root, losses):
    cheat = crowd[3]

    def verify(public_key, signature, data):
        alone = cheat.verify(public_key, signature, data)
        return alone or (public_key == cheat.public_key and signature == b"second" + data[-9:])

    table = Table(rules, genesis, crowd, root, 0, verify=verify)
    if table.me is cheat:
        table = Table(rules, genesis, crowd, root, 1, verify=verify)
    table.step()
    table.tickets(table.others)
    first = make(cheat, table.seed)
    second = first.model_copy(update={"signature": ""})
    text = base64.b64encode(b"second" + first.statement()[-9:]).decode()
    table.see(tickets=[second.model_copy(update={"signature": text})])
    table.step(10.0)
    assert cheat.peer_id not in table.state.called
    honest = [peer for peer in table.others if peer is not cheat]
    table.commits(honest, losses())
    table.step(5.0, losses=losses())
    table.step()
    table.reveals(honest, losses())
    table.step()
    table.step(5.0)
    judgement = next(a.judgement for a in table.did if isinstance(a, Propose))
    assert [each.peer_id for each in judgement.doubles] == [cheat.peer_id]
    barred = {s.peer_id for s in judgement.after.standings if s.barred_until > 1}
    assert barred == {cheat.peer_id}


def test_who_judges_another_branchs_candidate_is_not_struck(make_table, losses, root):
    table = make_table()
    table.tickets(table.others)
    table.step()
    table.step()
    table.commits(table.others[:6], losses())
    elsewhere = dataclasses.replace(table.state.question, candidate=root("elsewhere"))
    stray = table.others[6]
    table.see(
        commits=[make_commit(stray, elsewhere, losses())],
        reveals=[make_reveal(stray, elsewhere, losses())],
    )
    table.step(10.0, losses=losses())
    table.step(10.0)
    table.reveals(table.others[:6], losses())
    table.step(5.0)
    table.step(5.0)
    judgement = next(a.judgement for a in table.did if isinstance(a, Propose))
    assert judgement.struck == ()
    assert len(judgement.cluster) == 7
