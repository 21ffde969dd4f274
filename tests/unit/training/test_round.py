"""A round of one: the same contribution, average, vote and certificate as in a group."""

import hashlib
import math

import numpy as np
import pytest

from peer.events import RoundFailure
from peer.training.certificate import Base, problem
from peer.training.codec import encode
from peer.training.contribution import Contribution
from peer.training.reducer import square_sum
from peer.training.round import Committed, Failed, LoneRounds

BASE = Base("tiny-1", 0, 7, "ab" * 32)


def contribution(values, weight=64):
    return Contribution("c1", np.array(values, np.float32), weight, 4, weight, 3.0)


def never():
    return False


@pytest.fixture(scope="module")
def rounds(identities):
    return LoneRounds(identities[0], "none")


def test_the_average_of_one_is_its_contribution_with_a_certificate(rounds, identities):
    given = contribution([1.0, -2.5, 1e-40, 3e18])
    committed = rounds.run(BASE, given, never)
    assert isinstance(committed, Committed)
    assert committed.average.tobytes() == given.values.tobytes()
    assert problem(committed.certificate) is None
    vote = committed.certificate.vote
    assert vote.base == BASE
    assert vote.group == (identities[0].peer_id,)
    assert [(e.peer_id, e.contribution_id, e.weight) for e in vote.entries] == [
        (identities[0].peer_id, "c1", 64)
    ]
    (part,) = vote.parts
    assert part.elements == 4
    assert part.digest == hashlib.sha256(encode(given.values, "none")).hexdigest()
    assert vote.square_sums == (part.square_sum,) == (square_sum(given.values),)
    assert part.refused == ()
    assert committed.parts == (encode(given.values, "none"),)
    assert committed.consumed("c1")
    assert not committed.consumed("c2")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_contribution_that_is_not_finite_fails_the_round(rounds, bad):
    failed = rounds.run(BASE, contribution([1.0, bad]), never)
    assert failed == Failed(RoundFailure.NOT_FINITE, "own contribution not finite", keep=False)


@pytest.mark.parametrize("weight", [0, -1])
def test_a_contribution_that_weighs_nothing_fails_the_round(rounds, weight):
    failed = rounds.run(BASE, contribution([1.0], weight), never)
    detail = f"own contribution wrong weight: {weight}"
    assert failed == Failed(RoundFailure.REFUSED, detail, keep=False)


def test_without_a_network_nobody_asks_wants_or_is_ahead(rounds):
    rounds.start()
    rounds.stand(0, 3, None, None)
    rounds.gather(10, 1.0)
    rounds.rest(resting=True)
    rounds.saved(3)
    assert not rounds.wanted
    assert not rounds.behind
    assert not rounds.asked_for_state
    assert rounds.catch_up(BASE, never) is None
