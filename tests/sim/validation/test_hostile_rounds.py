"""Whole rounds with validators that cheat in time: late, early, selective, or apart."""

import dataclasses

import pytest

from peer.validation.actions import Adopt, Evaluate, Propose, PublishCommit, PublishReveal
from peer.validation.judge import build, follow, problem
from peer.validation.score import Decision, Losses, make_commit
from peer.validation.state import Phase
from peer.validation.verdict import Tip


@pytest.fixture
def swarm(sim, crowd):
    return sim.Swarm(crowd(14), 3)


def turn(swarm, count, change):
    """Let `change` carry out the actions of the first `count` that are elected."""
    for peer_id in swarm.elected()[:count]:
        peer = swarm.by_id[peer_id]
        peer.carry_out = change(peer, peer.carry_out)


def judgement_of(swarm):
    """Return what all the living hold to."""
    (name,) = swarm.verdicts()
    assert name is not None
    return next(p.adopted[-1].judgement for p in swarm.living if p.adopted)


def test_a_proposal_without_two_honest_scores_is_replaced_by_a_whole_one(swarm):
    def selective(peer, carry_out):
        def act(now_s, action):
            if isinstance(action, Propose):
                seats = list(action.judgement.seats)
                for i in (5, 6):
                    seats[i] = seats[i].model_copy(update={"reveal": None})
                case = dataclasses.replace(peer.case(), seats=seats)
                action = Propose(build(peer.state.rules, peer.state.tip, case))
            carry_out(now_s, action)

        return act

    turn(swarm, 2, selective)
    swarm.run()
    judgement = judgement_of(swarm)
    assert len(judgement.cluster) == 12
    assert judgement.struck == ()


def test_whoever_keeps_a_score_back_is_struck_and_stops_nobody(swarm):
    def withhold(peer, carry_out):
        return lambda now_s, action: isinstance(action, PublishReveal) or carry_out(now_s, action)

    turn(swarm, 3, withhold)
    end_s = swarm.run()
    judgement = judgement_of(swarm)
    assert set(judgement.struck) == set(swarm.elected()[:3])
    assert judgement.decision is Decision.ACCEPT
    assert end_s < 80.0


def test_a_copier_that_waits_for_others_scores_is_left_out(sim, swarm):
    copier = swarm.by_id[swarm.elected()[2]]

    def wait(peer, carry_out):
        def act(now_s, action):
            if not isinstance(action, Evaluate):
                carry_out(now_s, action)

        return act

    turn(swarm, 3, lambda peer, carry_out: wait(peer, carry_out) if peer is copier else carry_out)
    look = copier.look

    def look_and_copy(now_s):
        look(now_s)
        shown = [r.body for r in swarm.records if r.kind == "reveal" and r.owner != copier.me]
        if shown and copier.losses is None:
            seen = Losses(shown[0].candidate, shown[0].baseline)
            copier.losses = (now_s, None)
            question = copier.state.question
            copier.publish(now_s, "commit", make_commit(copier.identity, question, seen))
            copier.carry_out(now_s, PublishReveal(question, seen, shown[0].witnessed))

    copier.look = look_and_copy
    swarm.run()
    judgement = judgement_of(swarm)
    assert copier.me in judgement.called
    assert copier.me not in judgement.cluster
    assert len(judgement.cluster) == 11


def test_scores_that_are_shown_at_once_hurry_nobody(swarm):
    def hasty(peer, carry_out):
        def act(now_s, action):
            if isinstance(action, Evaluate):
                junk = Losses((1, 2), (1, 2))
                carry_out(now_s, PublishCommit(action.question, junk))
                carry_out(now_s, PublishReveal(action.question, junk, ()))
            elif not isinstance(action, PublishCommit | PublishReveal):
                carry_out(now_s, action)

        return act

    turn(swarm, 4, hasty)
    swarm.run()
    judgement = judgement_of(swarm)
    assert judgement.decision is Decision.ACCEPT
    assert len(judgement.cluster) == 8
    assert set(judgement.struck) == set(swarm.elected()[:4])


def test_a_ticket_at_the_last_moment_splits_nobody(sim, swarm):
    late = swarm.by_id[swarm.elected()[0]]
    # The others' deadline falls between the looks at which they see it.
    late.candidate_at_s = sim.TIMING.tickets_s + 0.5
    swarm.run()
    judgement = judgement_of(swarm)
    assert judgement.decision is Decision.ACCEPT


@pytest.mark.parametrize("behind_s", [5.0, 10.0, 30.0])
def test_peers_that_are_behind_adopt_what_the_others_found(swarm, behind_s):
    for peer in swarm.peers[:5]:
        peer.candidate_at_s = behind_s
    swarm.run()
    assert judgement_of(swarm).decision is Decision.ACCEPT
    assert all(peer.state.phase is Phase.DONE for peer in swarm.peers)


def test_after_a_partition_the_smaller_part_goes_over_to_the_larger(swarm):
    small = {peer.me for peer in swarm.peers[:5]}
    healed_s = 90.0
    clock = {"now_s": 0.0}
    swarm.cut = lambda record, peer: (
        clock["now_s"] < healed_s and (record.owner in small) != (peer.me in small)
    )
    while clock["now_s"] < 150.0:
        for peer in swarm.peers:
            peer.look(clock["now_s"])
        clock["now_s"] += 0.25
    judgement_of(swarm)
    large = [peer for peer in swarm.peers if peer.me not in small]
    assert {len(peer.adopted) for peer in large} == {1}
    assert all(peer.actions.count(Adopt) <= 2 for peer in swarm.peers)


def test_a_run_of_verdicts_rejects_the_poison_and_proves_itself_to_a_newcomer(sim, crowd):
    tip = Tip.genesis(sim.RULES.run_id, sim.root("initial"))
    start, row = tip, []
    poisoned = {3, 4}
    for number in range(7):
        swarm = sim.Swarm(crowd(9), number, tip, 0.3 if number in poisoned else -0.02)
        swarm.run()
        judgement = judgement_of(swarm)
        assert (judgement.decision is Decision.REJECT) == (number in poisoned)
        verdict = swarm.peers[0].adopted[-1]
        verify = swarm.peers[0].identity.verify
        known = swarm.candidate
        assert (
            problem(
                judgement,
                sim.RULES,
                tip,
                members=known.members,
                attendance=known.attendance,
                verify=verify,
            )
            is None
        )
        row.append(verdict)
        tip = Tip(judgement.after, judgement.hash)
    assert follow(sim.RULES, start, row, verify) == tip
    assert tip.ledger.generation == 2
    assert tip.ledger.halved(tip.ledger.epoch, sim.RULES) == 1
    assert tip.ledger.last_good.state_root == row[-1].judgement.candidate
    assert {v.judgement.ground.value for v in row} == {"genesis", "tenure"}
