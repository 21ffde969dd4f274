"""Who may sit, and how many."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.run.canonical import to_base64
from peer.swarm.testimony import Ticket
from peer.training.certificate import Base, Certificate, Entry, PartDigest, Vote
from peer.validation.committee import (
    Committee,
    Ground,
    Size,
    attendance,
    elect,
    members_of,
    roster_of,
    size_of,
)
from peer.validation.ticket import first_entropy, in_order, lot, seed_of

SEED = seed_of("tiny-1", 3, 15, first_entropy("tiny-1"))


def ticket_of(number):
    return Ticket(
        seed=SEED,
        public_key=to_base64(b"key %d" % number),
        signature=to_base64(b"signature %d" % number),
    )


def certificate_of(*members, refused=()):
    part = PartDigest("", 3, "ab" * 32, 1.0, refused, "")
    entries = tuple(Entry(peer, "c1", 5, 0) for peer in members)
    return Certificate(Vote(Base("tiny-1", 0, 7, "ab" * 32), entries, (part,)), ())


@pytest.mark.parametrize(
    ("eligible", "size"),
    [
        (1, Size(1, 0, 1)),
        (2, Size(2, 0, 2)),
        (3, Size(3, 0, 3)),
        (4, Size(4, 0, 3)),
        (5, Size(5, 0, 4)),
        (6, Size(6, 0, 5)),
        (7, Size(7, 0, 5)),
        (8, Size(7, 1, 5)),
        (12, Size(7, 5, 5)),
        (512, Size(7, 5, 5)),
    ],
)
def test_a_committee_has_seven_seats_or_all_there_are(eligible, size):
    assert size_of(eligible) == size
    assert size.is_small == (eligible < 7)


@pytest.mark.parametrize(("revealed", "needed"), [(0, 5), (5, 5), (8, 5), (9, 5), (10, 6), (12, 7)])
def test_a_quorum_and_more_than_half_must_agree(revealed, needed):
    assert size_of(20).agreement(revealed) == needed


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True), st.randoms())
def test_the_lowest_lots_sit_in_whatever_order_tickets_come(numbers, chance):
    tickets = [ticket_of(number) for number in numbers]
    roster = [ticket.peer_id for ticket in tickets]
    committee, drawn = elect(tickets, roster)
    shuffled = chance.sample(tickets, len(tickets))
    assert elect(shuffled, roster) == (committee, drawn)
    assert drawn == in_order(tickets)[: len(committee.called)]
    left_out = set(roster) - set(committee.called)
    highest = lot(drawn[-1])
    assert all(lot(t) > highest for t in tickets if t.peer_id in left_out)
    assert len(committee.called) == min(len(roster), 12)


def test_the_size_goes_by_the_roster_and_not_by_who_came():
    committee, _ = elect([ticket_of(1)], [f"peer {i}" for i in range(20)])
    assert committee.size.quorum == 5
    assert len(committee.called) == 1


def test_places_are_told_in_words():
    committee = Committee(tuple("abcdefghi"), Size(7, 2, 5))
    assert committee.place("c") == "validator 3 of 7"
    assert committee.place("i") == "reserve 2 of 2"
    assert committee.place("z") is None


def test_reserves_stand_in_for_who_is_absent():
    committee = Committee(tuple("abcdefghi"), Size(7, 2, 5))
    assert committee.standing_in(()) == tuple("abcdefg")
    assert committee.standing_in({"b", "d"}) == tuple("acefghi")
    assert committee.standing_in(set("abcd")) == tuple("efghi")


def test_a_refused_contribution_is_no_attendance():
    assert members_of(certificate_of("a", "b", "c", refused=("b",))) == {"a", "c"}
    row = [certificate_of("a", "b"), certificate_of("a", refused=()), certificate_of("b")]
    assert attendance(row) == {"a": 2, "b": 2}


def test_who_signed_a_certificate_changes_nobodys_tenure():
    one = certificate_of("a", "b")
    other = dataclasses.replace(one, signatures=("whatever",))
    assert attendance([one]) == attendance([other])


def test_the_first_rounds_are_judged_by_the_members_of_the_certificate(rules):
    assert roster_of([], [], "ba", 5, rules) == (("a", "b"), Ground.GENESIS)


def test_the_drawn_sit_until_candidates_lapsed(rules):
    patience = 3 * rules.every_epochs
    assert roster_of("ab", "abc", "bcz", patience, rules) == (("a", "b"), Ground.TENURE)
    late = patience + rules.every_epochs
    assert roster_of("ab", "abc", "bcz", late, rules) == (("b", "c"), Ground.LAPSE)
    assert roster_of("ab", "abc", "yz", late, rules) == (("y", "z"), Ground.LAPSE)
