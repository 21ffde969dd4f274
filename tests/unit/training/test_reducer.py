"""The weighted mean of the slices that pass, and the reason for each that does not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.training.reducer import check, reduce, square_sum

VALUES = st.lists(
    st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=5, max_size=5
).map(lambda values: np.array(values, np.float32))
PEERS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(VALUES, st.integers(1, 10**12)), min_size=1
)
GOOD = np.ones(5, np.float32)


@given(PEERS)
def test_the_mean_is_weighted_by_the_agreed_weights(peers):
    slices = {peer: values for peer, (values, _) in peers.items()}
    weights = {peer: weight for peer, (_, weight) in peers.items()}
    reduced = reduce(slices, weights, 5)
    exact = np.average(
        np.stack(list(slices.values())).astype(np.float64), axis=0, weights=list(weights.values())
    )
    assert not reduced.refused
    assert reduced.mean.dtype == np.float32
    np.testing.assert_allclose(reduced.mean, exact, rtol=1e-5, atol=1.0)


@given(PEERS, st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(peers, random):
    weights = {peer: weight for peer, (_, weight) in peers.items()}
    arrivals = [(peer, values) for peer, (values, _) in peers.items()]
    first = reduce(dict(arrivals), weights, 5)
    random.shuffle(arrivals)
    assert reduce(dict(arrivals), weights, 5).mean.tobytes() == first.mean.tobytes()


def test_a_lone_slice_is_its_own_mean_bit_for_bit():
    values = np.random.default_rng(0).normal(size=5).astype(np.float32)
    assert reduce({"a": values}, {"a": 7}, 5).mean.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("values", "weight", "reason"),
    [
        (np.ones(4, np.float32), 1, "wrong shape: float32 [4] instead of float32 [5]"),
        (np.ones(0, np.float32), 1, "wrong shape: float32 [0] instead of float32 [5]"),
        (np.ones((5, 1), np.float32), 1, "wrong shape: float32 [5, 1] instead of float32 [5]"),
        (np.ones(5, np.float64), 1, "wrong shape: float64 [5] instead of float32 [5]"),
        (np.array([1, 1, math.nan, 1, 1], np.float32), 1, "not finite"),
        (np.array([1, 1, 1, 1, math.inf], np.float32), 1, "not finite"),
        (np.array([-math.inf, 1, 1, 1, 1], np.float32), 1, "not finite"),
        (GOOD, 0, "wrong weight: 0"),
        (GOOD, -3, "wrong weight: -3"),
    ],
)
def test_a_bad_slice_is_refused_and_the_others_still_count(values, weight, reason):
    assert check(values, weight, 5) == reason
    reduced = reduce({"bad": values, "good": 2 * GOOD}, {"bad": weight, "good": 4}, 5)
    assert reduced.refused == {"bad": reason}
    assert np.array_equal(reduced.mean, 2 * GOOD)
    assert reduce({"bad": values}, {"bad": weight}, 5).mean is None


def test_numbers_count_as_finite_as_long_as_their_squares_are():
    assert check(np.full(3, 1e19, np.float32), 1, 3) is None
    assert check(np.full(4, 1e19, np.float32), 1, 4) == "not finite"
    assert check(np.full(1, 3e38, np.float32), 1, 1) == "not finite"


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=30))
def test_the_square_sum_is_taken_in_fp64(values):
    exact = math.fsum(float(np.float32(v)) ** 2 for v in values)
    assert square_sum(np.array(values, np.float32)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("place", [0, (1 << 16) - 1, 1 << 16, (1 << 17) + 4])
def test_the_square_sum_reaches_every_block(place):
    values = np.zeros((1 << 17) + 5, np.float32)
    values[place] = 3.0
    assert square_sum(values) == 9.0
