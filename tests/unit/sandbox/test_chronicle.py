import pytest

from peer.sandbox.chronicle import Chronicle
from peer.sandbox.plan import Fault, Kind


def expected(chronicle, peer, last=12):
    return [epoch for epoch in range(last + 1) if chronicle.expected(peer, epoch)]


@pytest.fixture
def chronicle():
    """Peers 0 and 1 from epoch 0 on; the swarm is at epoch 5 after 5 s."""
    chronicle = Chronicle()
    for peer in (0, 1):
        chronicle.starts(peer)
    for epoch in range(1, 6):
        chronicle.saw(epoch, float(epoch))
    return chronicle


def test_who_is_there_from_the_beginning_is_expected_in_every_commit(chronicle):
    assert expected(chronicle, 0) == list(range(1, 13))
    assert expected(chronicle, 7) == []


def test_a_run_that_goes_on_begins_with_the_next_commit():
    chronicle = Chronicle(first_epoch=4)
    chronicle.starts(0)
    assert expected(chronicle, 0, 7) == [5, 6, 7]


def test_who_is_killed_is_expected_up_to_the_epoch_that_was_seen(chronicle):
    chronicle.inject(Fault(Kind.KILL, 1, 5), 5.1)
    chronicle.saw(8, 9.0)
    assert expected(chronicle, 1) == [1, 2, 3, 4, 5]
    assert not chronicle.is_live(1)
    assert chronicle.is_live(0)


def test_who_is_thawed_is_expected_from_the_second_commit_after_it_caught_up(chronicle):
    chronicle.inject(Fault(Kind.FREEZE, 1, 5, 2.0), 5.1)
    chronicle.saw(6, 6.0)
    chronicle.thaws(1, 7.1)
    chronicle.saw(8, 8.0)
    assert not chronicle.is_live(1)
    chronicle.catches_up(1, 8.2)
    assert chronicle.is_live(1)
    assert expected(chronicle, 1) == [1, 2, 3, 4, 5, 10, 11, 12]
    (one,) = chronicle.injected
    assert one.catch_up_s == pytest.approx(1.1)


def test_who_joins_is_expected_from_the_second_commit_after_it_caught_up(chronicle):
    chronicle.inject(Fault(Kind.JOIN, 2, 5), 5.1)
    assert not chronicle.is_live(2)
    chronicle.saw(9, 9.0)
    chronicle.catches_up(2, 9.1)
    assert expected(chronicle, 2) == [11, 12]
    assert chronicle.injected[0].catch_up_s == pytest.approx(4.0)


def test_who_is_killed_before_it_caught_up_is_expected_nowhere(chronicle):
    chronicle.inject(Fault(Kind.JOIN, 2, 5), 5.1)
    chronicle.inject(Fault(Kind.KILL, 2, 5), 5.2)
    assert expected(chronicle, 2) == []
    assert chronicle.injected[0].catch_up_s is None


def test_who_is_frozen_again_is_live_between_the_freezes(chronicle):
    chronicle.inject(Fault(Kind.FREEZE, 1, 5, 1.0), 5.1)
    chronicle.thaws(1, 6.1)
    chronicle.catches_up(1, 6.2)
    chronicle.saw(9, 9.0)
    chronicle.inject(Fault(Kind.KILL, 1, 9), 9.1)
    assert expected(chronicle, 1) == [1, 2, 3, 4, 5, 7, 8, 9]


def test_the_next_commit_is_the_first_that_was_seen_after_the_fault(chronicle):
    chronicle.inject(Fault(Kind.KILL, 1, 5), 5.5)
    (one,) = chronicle.injected
    assert chronicle.next_commit_s(one) is None
    chronicle.saw(8, 7.0)
    chronicle.saw(9, 8.0)
    assert chronicle.next_commit_s(one) == pytest.approx(1.5)


def test_an_epoch_that_was_seen_is_not_seen_again(chronicle):
    chronicle.inject(Fault(Kind.KILL, 1, 5), 5.5)
    chronicle.saw(6, 6.0)
    chronicle.saw(3, 6.5)
    chronicle.saw(6, 7.0)
    assert chronicle.epoch == 6
    assert chronicle.next_commit_s(chronicle.injected[0]) == pytest.approx(0.5)


def test_a_round_that_the_dead_peer_was_in_is_not_the_regrouped_one(chronicle):
    chronicle.inject(Fault(Kind.KILL, 1, 5), 5.5)
    chronicle.saw(6, 6.0)
    chronicle.saw(7, 8.0)
    (one,) = chronicle.injected
    commits = {5: {"a": 1}, 6: {"a": 1, "b": 1}, 7: {"a": 1}}
    assert chronicle.regrouped_s(one, "b", commits) == pytest.approx(2.5)
    assert chronicle.regrouped_s(one, "b", {6: {"b": 1}}) is None


def test_a_joiner_has_regrouped_the_swarm_once_it_is_in_a_commit(chronicle):
    chronicle.inject(Fault(Kind.JOIN, 2, 5), 5.5)
    chronicle.saw(6, 6.0)
    chronicle.saw(7, 8.0)
    commits = {6: {"a": 1}, 7: {"a": 1, "c": 1}}
    (one,) = chronicle.injected
    assert chronicle.regrouped_s(one, "c", commits) == pytest.approx(2.5)
    assert chronicle.returned_s(one, "c", commits) is None


def test_a_thawed_peer_has_returned_once_it_is_in_a_commit_after_the_thaw(chronicle):
    chronicle.inject(Fault(Kind.FREEZE, 1, 5, 2.0), 5.5)
    chronicle.saw(6, 6.0)
    (one,) = chronicle.injected
    commits = {6: {"a": 1, "b": 1}, 7: {"a": 1}, 8: {"a": 1, "b": 1}}
    assert chronicle.returned_s(one, "b", commits) is None
    chronicle.thaws(1, 7.5)
    chronicle.saw(7, 8.0)
    chronicle.saw(8, 9.0)
    assert chronicle.regrouped_s(one, "b", commits) == pytest.approx(2.5)
    assert chronicle.returned_s(one, "b", commits) == pytest.approx(1.5)
