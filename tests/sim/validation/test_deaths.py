"""Elected validators die at their worst moments, and a verdict comes within twice the time."""

import random

import pytest

from peer.validation.actions import (
    Evaluate,
    Propose,
    PublishCommit,
    PublishReveal,
    PublishTicket,
    SignVerdict,
)

MOMENTS = [
    (PublishTicket, False),
    (Evaluate, True),
    (PublishCommit, True),
    (PublishCommit, False),
    (PublishReveal, True),
    (PublishReveal, False),
    (Propose, True),
    (Propose, False),
    (SignVerdict, True),
    (SignVerdict, False),
]
"""At which action a peer is killed, and whether before it is done."""
TRIALS = {8: 140, 14: 60}


@pytest.fixture
def trial(sim, crowd):
    """Run a round twice, the second time with elected peers killed; return both times."""
    normal = {}

    def run(peers, seed, kills, moments):
        if peers not in normal:
            swarm = sim.Swarm(crowd(peers), 0)
            swarm.run()
            normal[peers] = max(peer.adopted_s for peer in swarm.peers)
        rng = random.Random(seed)
        swarm = sim.Swarm(crowd(peers), seed)
        elected = swarm.elected()[:7]
        for victim in rng.sample(elected, kills):
            swarm.by_id[victim].dies = rng.choice(moments)
        swarm.run()
        assert len(swarm.verdicts()) == 1, "the living hold to different verdicts"
        times = [peer.adopted_s for peer in swarm.living]
        last = max((float("inf") if t is None else t) for t in times)
        return last, normal[peers], swarm

    return run


@pytest.mark.parametrize(("peers", "kills"), [(8, 3), (14, 7)])
def test_a_verdict_comes_within_twice_the_normal_time(trial, peers, kills):
    late = 0
    for seed in range(TRIALS[peers]):
        last, normal, _ = trial(peers, seed, 1 + seed % kills, MOMENTS)
        late += last > 2 * normal
    assert late <= 0.01 * TRIALS[peers]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: f"{m[0].__name__}-{m[1]}")
def test_all_seven_that_were_elected_may_die_at_one_moment(trial, moment):
    last, normal, swarm = trial(14, 5, 7, [moment])
    assert last <= 2 * normal
    dead = sum(not peer.alive for peer in swarm.peers)
    assert dead == 7 or moment[0] in {Propose, SignVerdict}


def test_where_more_than_the_reserves_die_there_is_no_verdict_and_no_wrong_one(trial):
    last, _, swarm = trial(8, 1, 4, [(Evaluate, True)])
    assert last == float("inf")
    assert all(peer.state.reason for peer in swarm.living)
