import random

import pytest

from peer.sandbox.hostile import Poison, distort
from peer.swarm.testimony import MAX_POINTS
from peer.validation.score import Losses

HONEST = Losses((30_000, 31_000, MAX_POINTS), (40_000, 41_000, 42_000))


def test_contributions_are_flipped_from_the_first_epoch_on():
    poison = Poison(10)
    assert [epoch for epoch in range(13) if poison.flips(epoch)] == [10, 11, 12]


def test_a_round_that_is_tried_again_is_flipped_again():
    poison = Poison(10)
    assert [poison.flips(10), poison.flips(10)] == [True, True]


def test_nothing_is_flipped_after_a_rollback():
    poison = Poison(10)
    assert poison.flips(14)
    assert not any(poison.flips(epoch) for epoch in range(10, 20))


@pytest.mark.parametrize(
    ("lie", "candidate"),
    [("inflate", (50_000, 51_000, MAX_POINTS)), ("deflate", (10_000, 11_000, MAX_POINTS - 20_000))],
)
def test_a_liar_moves_the_candidate_and_not_the_baseline(lie, candidate):
    assert distort(HONEST, lie, random.Random(1)) == Losses(candidate, HONEST.baseline)


def test_a_random_liar_says_something_else_each_time():
    chance = random.Random(1)
    first, second = (distort(HONEST, "random", chance) for _ in range(2))
    assert first.candidate != second.candidate != HONEST.candidate
    assert first.baseline == HONEST.baseline


def test_a_role_that_nobody_has_is_refused():
    with pytest.raises(ValueError, match="nobody has the role 'shout'"):
        distort(HONEST, "shout", random.Random(1))
