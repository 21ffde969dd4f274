"""Which state a person means, of those that peers offer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.checkpoint.pick import Pick, check_wish, pick
from peer.errors import UsageError

ONE, TWO, THREE = "a1" * 32, "a2" * 32, "b3" * 32
OFFERED = {"x": {ONE: 1, TWO: 2}, "y": {TWO: 2, THREE: 3}, "z": {}}


def test_the_newest_that_several_offer_comes_first_and_the_others_after_it():
    assert pick("newest", OFFERED) == [
        Pick(TWO, 2, ("x", "y")),
        Pick(THREE, 3, ("y",)),
        Pick(ONE, 1, ("x",)),
    ]


def test_a_root_may_be_abbreviated_as_long_as_it_is_unique():
    assert pick("b", OFFERED) == [Pick(THREE, None, ("y",))]
    assert pick("a2", OFFERED) == [Pick(TWO, None, ("x", "y"))]
    assert pick("c", OFFERED) == []
    with pytest.raises(UsageError, match="a is the beginning of 2 roots that peers offer"):
        pick("a", OFFERED)


def test_a_whole_root_is_asked_of_everybody_those_that_name_it_first():
    assert pick(ONE, OFFERED) == [Pick(ONE, None, ("x", "y", "z"))]
    assert pick(THREE, OFFERED) == [Pick(THREE, None, ("y", "x", "z"))]
    assert pick("cd" * 32, OFFERED) == [Pick("cd" * 32, None, ("x", "y", "z"))]


@pytest.mark.parametrize("wish", ["newest", "a", ONE])
def test_where_nobody_answers_there_is_nothing_to_pick(wish):
    assert pick(wish, {}) == []


def test_a_liar_alone_does_not_settle_the_epoch_of_a_state():
    offered = {"liar": {ONE: 10**9}, "x": {ONE: 1}, "y": {ONE: 1, TWO: 2}}
    assert pick("newest", offered) == [
        Pick(ONE, 1, ("x", "y")),
        Pick(ONE, 10**9, ("liar",)),
        Pick(TWO, 2, ("y",)),
    ]


def test_a_peer_that_offers_many_states_does_not_fill_the_list_alone():
    offered = {"liar": {f"{n:064x}": 10**9 + n for n in range(64)}, "x": {ONE: 1}}
    picks = pick("newest", offered)
    assert [one.donors for one in picks] == [("liar",)] * 3 + [("x",)]


@given(st.dictionaries(st.text(), st.dictionaries(st.text("ab", min_size=1), st.integers(0, 9))))
def test_whoever_offers_a_state_is_asked_for_one_of_the_newest(offered):
    picks = pick("newest", offered)
    said = {(root, epoch) for states in offered.values() for root, epoch in states.items()}
    assert len({(p.state_root, p.epoch) for p in picks}) == len(picks)
    assert {(p.state_root, p.epoch) for p in picks} <= said
    assert {donor for p in picks for donor in p.donors} == {d for d, s in offered.items() if s}
    for p in picks:
        assert set(p.donors) == {d for d, s in offered.items() if s.get(p.state_root) == p.epoch}


@pytest.mark.parametrize("wish", ["", "newer", "AB", "xyz", "a" * 65, "../..", "NEWEST"])
def test_what_is_no_root_is_refused(wish):
    with pytest.raises(UsageError, match="is no state root"):
        check_wish(wish)


@pytest.mark.parametrize("wish", ["newest", "good", "a", "0" * 64])
def test_what_may_be_a_root_passes(wish):
    check_wish(wish)
