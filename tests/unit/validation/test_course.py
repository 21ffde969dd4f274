"""Where verdicts send a peer, and whose chain it follows."""

import pytest

from peer.errors import MisbehavedError
from peer.swarm.testimony import Good
from peer.training.chain import Fork
from peer.validation.course import LOOKBACK, continued, explain, prefer_chain, restart
from peer.validation.judge import build
from peer.validation.verdict import Tip

BAD = 5_000


@pytest.fixture(scope="module")
def make_chain(rules, genesis, make_case, sign, identities):
    """Return verdicts, one after the other, each on a candidate worse by so many points."""

    def make(*worse, tip=genesis, peers=identities[:4], name="candidate"):
        row = []
        for number, points in enumerate(worse):
            case = make_case(tip, peers, worse=points, name=f"{name} {number}")
            verdict = sign(build(rules, tip, case), peers)
            row.append(verdict)
            tip = tip_of(verdict)
        return row

    return make


def tip_of(verdict):
    return Tip(verdict.judgement.after, verdict.judgement.hash)


def held(verdict, peers):
    judgement = verdict.judgement
    said = Good(
        round=judgement.round,
        verdict=judgement.hash,
        state_root=judgement.after.last_good.state_root,
        generation=judgement.after.generation,
    )
    return {peer.peer_id: said for peer in peers}


# ---- where to go


def test_an_accepted_candidate_sends_nobody_anywhere(make_chain):
    [verdict] = make_chain(0)
    assert restart(tip_of(verdict), (0, 5), verdict.judgement, joins=False) is None


def test_a_rejected_candidate_sends_all_to_the_last_good_state(make_chain):
    good, bad = make_chain(0, BAD)
    where = restart(tip_of(bad), (0, 10), bad.judgement, joins=False)
    assert (where.mark.state_root, where.generation) == (good.judgement.candidate, 1)
    assert "verdict 2: reject of epoch 10" in where.reason
    assert restart(tip_of(bad), (1, 5), bad.judgement, joins=False) is None


def test_whoever_joins_begins_at_the_last_good_state(make_chain, genesis):
    [good] = make_chain(0)
    where = restart(tip_of(good), (0, 0), good.judgement, joins=True)
    assert where.mark.epoch == 5
    assert restart(tip_of(good), (0, 5), good.judgement, joins=True) is None
    assert restart(genesis, (0, 0), None, joins=True) is None


def test_what_was_found_is_said_in_nats(make_chain):
    [bad] = make_chain(BAD)
    assert "+0.5000 nats" in explain(bad.judgement)


# ---- which chain


def test_verdicts_that_continue_ours_are_followed(make_chain, rules, genesis):
    row = make_chain(0, 0, BAD)
    assert continued(rules, row[:1], genesis, row[1:], joins=False) == tip_of(row[-1])
    assert continued(rules, [], genesis, row, joins=False) == tip_of(row[-1])


def test_a_chain_that_meets_ours_nowhere_is_for_those_who_join_only(make_chain, rules, genesis):
    row = make_chain(0, 0, 0)
    assert continued(rules, [], genesis, row[1:], joins=False) is None
    assert continued(rules, [], genesis, row[1:], joins=True) == tip_of(row[-1])


def test_whoever_looked_back_as_far_as_it_does_believes_the_oldest(make_chain, rules, genesis):
    row = make_chain(*[0] * (LOOKBACK + 2))
    assert continued(rules, row[:1], genesis, row[2:], joins=False) == tip_of(row[-1])
    assert continued(rules, row[:1], genesis, row[3:], joins=False) is None
    stripped = [row[2].model_copy(update={"assents": ()}), *row[3:]]
    with pytest.raises(MisbehavedError, match="signed"):
        continued(rules, row[:1], genesis, stripped, joins=False)


def test_a_first_verdict_that_too_few_signed_is_for_nobody(make_chain, rules, genesis):
    row = make_chain(0, 0)
    unsigned = row[1].model_copy(update={"assents": row[1].assents[:1]})
    with pytest.raises(MisbehavedError, match="signed"):
        continued(rules, [], genesis, [unsigned], joins=True)


def test_a_chain_that_was_lost_sends_nobody_back(genesis):
    assert restart(genesis, (2, 40), None, joins=False) is None


def test_a_verdict_that_follows_from_nothing_is_refused(make_chain, rules, genesis):
    row = make_chain(0, 0)
    unsigned = row[1].model_copy(update={"assents": ()})
    with pytest.raises(MisbehavedError, match="signed"):
        continued(rules, row[:1], genesis, [unsigned], joins=False)


def test_of_two_chains_the_one_that_more_hold_to_counts(make_chain, identities):
    first, *ours = make_chain(0, 0)
    theirs = make_chain(0, tip=tip_of(first), name="another")
    few, many = identities[:1], identities[1:4]
    unsigned = [v.model_copy(update={"assents": ()}) for v in (*ours, *theirs)]
    good = held(ours[0], few) | held(theirs[0], many)
    chain, row = [first, unsigned[0]], [unsigned[1]]
    assert prefer_chain(chain, row, good, ())[0] is Fork.SWITCH
    good = held(ours[0], many) | held(theirs[0], few)
    assert prefer_chain(chain, row, good, ())[0] is Fork.STAY
    assert prefer_chain([first], row, {}, ())[0] is Fork.SWITCH


def test_a_chain_that_meets_ours_nowhere_is_weighed_against_all_of_ours(make_chain, identities):
    ours = [v.model_copy(update={"assents": ()}) for v in make_chain(0, 0, 0)[1:]]
    theirs = [v.model_copy(update={"assents": ()}) for v in make_chain(0, 0, name="another")[1:]]
    few, many = identities[:1], identities[1:4]
    assert prefer_chain(ours, theirs, held(ours[-1], many) | held(theirs[-1], few), ())[0] is (
        Fork.STAY
    )
    assert prefer_chain(ours, theirs, held(ours[-1], few) | held(theirs[-1], many), ())[0] is (
        Fork.SWITCH
    )
