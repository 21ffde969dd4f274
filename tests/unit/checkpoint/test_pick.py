"""Which state a person means, of those that peers offer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.checkpoint.pick import Pick, check_wish, pick
from peer.errors import UsageError

ONE, TWO, THREE = "a1" * 32, "a2" * 32, "b3" * 32
OFFERED = {"x": {ONE: 1, TWO: 2}, "y": {TWO: 2, THREE: 3}, "z": {}}


def test_the_newest_comes_first_and_the_others_after_it():
    assert pick("newest", OFFERED) == [
        Pick(THREE, 3, ("y",)),
        Pick(TWO, 2, ("x", "y")),
        Pick(ONE, 1, ("x",)),
    ]


def test_a_root_may_be_abbreviated_as_long_as_it_is_unique():
    assert pick("b", OFFERED) == [Pick(THREE, 3, ("y",))]
    assert pick("a2", OFFERED) == [Pick(TWO, 2, ("x", "y"))]
    assert pick("c", OFFERED) == []
    with pytest.raises(UsageError, match="a is the beginning of 2 roots that peers offer"):
        pick("a", OFFERED)


def test_a_whole_root_is_asked_of_everybody_where_nobody_names_it():
    assert pick(ONE, OFFERED) == [Pick(ONE, 1, ("x",))]
    assert pick("cd" * 32, OFFERED) == [Pick("cd" * 32, None, ("x", "y", "z"))]


@pytest.mark.parametrize("wish", ["newest", "a", ONE])
def test_where_nobody_answers_there_is_nothing_to_pick(wish):
    assert pick(wish, {}) == []


def test_a_liar_alone_does_not_settle_the_epoch_of_a_state():
    offered = {"liar": {ONE: 10**9}, "x": {ONE: 1}, "y": {ONE: 1, TWO: 2}}
    assert [one.state_root for one in pick("newest", offered)] == [TWO, ONE]
    assert pick("newest", offered)[1] == Pick(ONE, 1, ("liar", "x", "y"))


@given(st.dictionaries(st.text(), st.dictionaries(st.text("ab", min_size=1), st.integers(0, 9))))
def test_every_state_that_is_offered_is_among_the_newest_once(offered):
    picks = pick("newest", offered)
    assert sorted(p.state_root for p in picks) == sorted({r for s in offered.values() for r in s})
    assert [p.epoch for p in picks] == sorted((p.epoch for p in picks), reverse=True)
    assert all(set(p.donors) == {d for d, s in offered.items() if p.state_root in s} for p in picks)


@pytest.mark.parametrize("wish", ["", "newer", "AB", "xyz", "a" * 65, "../..", "NEWEST"])
def test_what_is_no_root_is_refused(wish):
    with pytest.raises(UsageError, match="is no state root"):
        check_wish(wish)


@pytest.mark.parametrize("wish", ["newest", "good", "a", "0" * 64])
def test_what_may_be_a_root_passes(wish):
    check_wish(wish)
