"""Which certificate may move a peer, and which of two rows is the run's."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.training.certificate import Base, Certificate, Entry, Vote, group_id, sign_part, sign_vote
from peer.training.chain import Fork, Row, choose, left_behind, objection, row_problem

PEERS = "abcdef"
BASE = Base("tiny-1", 0, 7, "ab" * 32)

rows = st.builds(
    Row,
    st.dictionaries(st.sampled_from(PEERS), st.integers(5, 9), min_size=1),
    st.integers(0, 3),
    st.sampled_from(["aa", "bb", "cc"]),
)
some_peers = st.sets(st.sampled_from(PEERS))


def row(weight=1, root="aa", **last_signed):
    return Row(last_signed, weight, root)


def decision(*arguments):
    return choose(*arguments)[0]


# ---- fork choice


@given(rows, rows, some_peers)
def test_of_two_rows_exactly_one_side_goes_over(ours, theirs, tenured):
    if ours.root == theirs.root:
        theirs = dataclasses.replace(theirs, root="dd")
    both = [decision(ours, theirs, tenured), decision(theirs, ours, tenured)]
    assert sorted(both) == [Fork.STAY, Fork.SWITCH]


@given(rows, rows, some_peers, some_peers)
def test_of_two_rows_without_a_past_exactly_one_side_goes_over(ours, theirs, tenured, founders):
    if ours.root == theirs.root:
        theirs = dataclasses.replace(theirs, root="dd")
    both = [decision(ours, theirs, tenured, founders), decision(theirs, ours, tenured, founders)]
    assert sorted(both) == [Fork.STAY, Fork.SWITCH]


def test_without_a_past_the_founders_count_before_any_number_of_strangers():
    strangers, founder = row(10**9, a=5, b=5, c=5, d=5), row(1, e=5)
    assert decision(strangers, founder, ("a", "b"), ("e",)) is Fork.SWITCH
    assert decision(founder, strangers, ("e",), ("e",)) is Fork.STAY


@given(rows, some_peers)
def test_nobody_leaves_a_row_for_the_same_one(one, tenured):
    assert decision(one, one, tenured) is Fork.STAY


@given(rows, rows, some_peers)
def test_the_choice_hangs_on_nothing_but_the_rows(ours, theirs, tenured):
    turned = Row(dict(reversed(ours.last_signed.items())), ours.weight, ours.root)
    assert choose(turned, theirs, sorted(tenured)) == choose(ours, theirs, tenured)


def test_more_peers_that_signed_last_count_before_weight_and_root():
    few, many = row(10**9, "aa", a=5), row(1, "bb", b=5, c=5)
    assert decision(few, many, ()) is Fork.SWITCH
    assert decision(many, few, ()) is Fork.STAY


def test_a_peer_that_went_on_elsewhere_does_not_count_for_what_it_left():
    left, new = row(5, "aa", a=5, b=5, c=5), row(1, "bb", b=8, c=8)
    assert decision(left, new, ()) is Fork.SWITCH
    assert decision(new, left, ()) is Fork.STAY


def test_only_tenured_peers_count_where_there_are_any():
    strangers, ours = row(10**12, "aa", x=9, y=9, z=9), row(1, "bb", a=5)
    assert decision(ours, strangers, {"a", "b"}) is Fork.STAY
    assert decision(strangers, ours, {"a", "b"}) is Fork.SWITCH
    assert decision(ours, strangers, ()) is Fork.SWITCH


def test_at_equal_peers_the_heavier_row_counts_and_then_the_lower_root():
    light, heavy = row(1, "aa", a=5), row(2, "bb", b=5)
    assert decision(light, heavy, ()) is Fork.SWITCH
    low, high = row(1, "aa", a=5), row(1, "bb", b=5)
    assert decision(high, low, ()) is Fork.SWITCH
    assert decision(low, high, ()) is Fork.STAY


def test_the_reason_names_the_numbers():
    assert choose(row(a=5), row(b=5, c=5), ())[1] == "2 peers went on there, 1 here"
    assert choose(row(1, a=5), row(7, b=5), ())[1] == "7 loss terms went in there, 1 here"
    assert "lower root" in choose(row(root="aa", a=5), row(root="bb", b=5), ())[1]


def test_peers_that_stand_still_hold_their_place_against_fewer():
    standing = Row.still({"a", "b", "c"}, 7)
    assert decision(standing, row(10**12, "aa", d=9), "abcd") is Fork.STAY
    assert decision(standing, row(1, "aa", d=9, e=9, f=9), "abcdef") is Fork.SWITCH
    assert decision(Row.still((), 7), row(1, "aa", x=9), ()) is Fork.SWITCH


@given(some_peers, some_peers, some_peers)
def test_left_behind_are_the_tenured_that_stand_and_did_not_sign(signers, standing, tenured):
    left = left_behind(signers, standing, tenured)
    assert left == {p for p in PEERS if p in standing and p in tenured and p not in signers}


# ---- certificates


def certify(members, base=BASE, weight=10, signers=None):
    entries = tuple(Entry(m.peer_id, f"c{i}", weight, 0) for i, m in enumerate(members))
    part = sign_part(members[0], group_id(base, entries), b"data", 1, 1.0)
    vote = Vote(base, entries, (part,))
    return Certificate(vote, tuple(sign_vote(s, vote) for s in signers or members))


@pytest.fixture(scope="module")
def names(identities):
    return [identity.peer_id for identity in identities]


def test_a_row_is_who_signed_last_the_weight_and_the_newest_root(identities, names):
    chain = [
        certify(identities[:3], dataclasses.replace(BASE, epoch=7)),
        certify(identities[:2], dataclasses.replace(BASE, epoch=8, state_root="cd" * 32)),
    ]
    made = Row.of(chain)
    assert made.last_signed == {names[0]: 8, names[1]: 8, names[2]: 7}
    assert made.weight == 50
    assert made.root == "cd" * 32
    assert Row.of([]) == Row({}, 0, "")


def test_a_signature_of_somebody_outside_the_group_gives_no_place_in_the_row(identities, names):
    certificate = certify(identities[:2], signers=identities[:3])
    assert set(Row.of([certificate]).last_signed) == set(names[:2])


def test_a_good_certificate_on_our_base_may_be_taken(identities, names):
    certificate = certify(identities[:3])
    for standing in ([], names[3:], names):
        assert objection(certificate, BASE, names[3], standing, names) is None


def test_one_that_proves_nothing_may_not(identities, names):
    certificate = certify(identities[:3], signers=identities[:1])
    assert "members signed" in objection(certificate, BASE, names[0], [], names)


@pytest.mark.parametrize(
    "change",
    [{"run_id": "tiny-2"}, {"generation": 1}, {"epoch": 8}, {"state_root": "cd" * 32}],
    ids=lambda change: next(iter(change)),
)
def test_one_on_another_base_may_not(identities, names, change):
    certificate = certify(identities[:3], dataclasses.replace(BASE, **change))
    assert objection(certificate, BASE, names[0], [], names) == "it extends another state"


def test_one_quick_peer_does_not_drag_the_others_along(identities, names):
    lone = certify(identities[:1])
    assert objection(lone, BASE, names[1], names[1:], names) is not None
    pair = certify(identities[:2])
    assert objection(pair, BASE, names[3], names[2:], names) is None


def test_whoever_stands_alone_takes_what_one_other_made(identities, names):
    lone = certify(identities[:1])
    assert objection(lone, BASE, names[1], [names[1]], names) is None
    assert objection(lone, BASE, names[1], [], names) is None


def test_a_certificate_that_we_signed_counts_whoever_stands_here(identities, names):
    pair = certify(identities[:2])
    tenured = names[1:]
    assert objection(pair, BASE, names[1], names[1:], tenured) is None
    assert objection(pair, BASE, names[2], names[1:], tenured) is not None


def test_strangers_move_nobody_who_has_a_past(identities, names):
    strangers = certify(identities[2:])
    assert objection(strangers, BASE, names[0], names[:1], names[:2]) is not None
    assert objection(strangers, BASE, names[0], [], ()) is None


def test_strangers_that_stand_beside_us_keep_nobody_back(identities, names):
    certificate = certify(identities[:2])
    crowd = [f"Qm{i}" for i in range(100)]
    assert objection(certificate, BASE, names[2], [*crowd, names[2]], names) is None


# ---- rows


@pytest.fixture(scope="module")
def chain(identities):
    return [
        certify(identities[:1], dataclasses.replace(BASE, epoch=epoch)) for epoch in range(3, 6)
    ]


def test_epochs_in_a_row_are_a_row(chain):
    assert row_problem(chain, "tiny-1", 0) is None
    assert row_problem([], "tiny-1", 0) is None


def test_every_other_order_is_none(chain):
    for other in itertools.permutations(chain):
        if list(other) != chain:
            assert "do not follow" in row_problem(other, "tiny-1", 0)
    assert row_problem([chain[0], chain[2]], "tiny-1", 0) is not None
    assert row_problem([chain[0], *chain], "tiny-1", 0) is not None


def test_a_row_of_another_run_or_generation_is_none(chain):
    assert "another run" in row_problem(chain, "tiny-2", 0)
    assert "another run" in row_problem(chain, "tiny-1", 1)
