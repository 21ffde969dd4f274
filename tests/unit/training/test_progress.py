"""What liars can do to the guess of how much the swarm has gathered: little."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.training.progress import gathered, wait_s

CREDIT = 4
WEIGHTS = st.integers(0, 10**6)
HONEST = st.lists(st.integers(1, 10**6), min_size=3, max_size=20)
RATES = st.lists(st.floats(0.0, 1e12), min_size=1, max_size=20)


@given(WEIGHTS)
def test_alone_only_ones_own_counts(own):
    assert gathered(own, []) == own


@given(st.integers(1, 10**6), st.integers(1, 10))
def test_peers_that_are_much_alike_count_in_full(own, others):
    claims = [own + i for i in range(others)]
    assert gathered(own, claims) == own + sum(claims)


@given(HONEST, st.integers(0, 10**12))
def test_one_liar_adds_at_most_a_few_honest_peers_to_what_is_there(honest, lie):
    own, *others = honest
    assert gathered(own, [*others, lie]) <= sum(honest) + CREDIT * max(honest)


@given(HONEST, st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_larger_claim_never_makes_the_sum_smaller(honest, lie, larger):
    own, *others = honest
    low, high = sorted((lie, larger))
    assert gathered(own, [*others, low]) <= gathered(own, [*others, high])


@given(HONEST)
def test_a_liar_cannot_take_away_what_others_have(honest):
    own, *others = honest
    capped = [min(claim, CREDIT * min(honest)) for claim in others]
    assert gathered(own, [*others, 0]) >= own + sum(capped)


@given(st.integers(-10, 10**12), RATES)
def test_the_wait_is_always_short_and_never_nothing(missing, rates):
    assert 0.02 <= wait_s(missing, rates) <= 2.0


def test_the_wait_is_what_is_missing_over_all_rates():
    assert wait_s(100, [50.0, 50.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("lie", [0.0, 1e12])
def test_one_liars_rate_does_not_count(lie):
    honest = [50.0] * 3
    assert wait_s(100, [*honest, lie]) == pytest.approx(100 / 200)


@pytest.mark.parametrize("rates", [[], [0.0], [0.0, 0.0, 5.0]])
def test_where_nobody_knows_a_rate_it_looks_again_soon(rates):
    assert wait_s(100, rates) == 0.5
