import pytest

from peer.sandbox.chronicle import Chronicle, Commit
from peer.sandbox.plan import Fault, Kind


def expected(chronicle, peer, last=12):
    return [epoch for epoch in range(last + 1) if chronicle.expected(peer, epoch)]


def made(commits, generation=0):
    return {epoch: Commit(generation, terms) for epoch, terms in commits.items()}


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
    commits = made({5: {"a": 1}, 6: {"a": 1, "b": 1}, 7: {"a": 1}})
    assert chronicle.regrouped_s(one, "b", commits) == pytest.approx(2.5)
    assert chronicle.regrouped_s(one, "b", made({6: {"b": 1}})) is None


def test_a_joiner_has_regrouped_the_swarm_once_it_is_in_a_commit(chronicle):
    chronicle.inject(Fault(Kind.JOIN, 2, 5), 5.5)
    chronicle.saw(6, 6.0)
    chronicle.saw(7, 8.0)
    commits = made({6: {"a": 1}, 7: {"a": 1, "c": 1}})
    (one,) = chronicle.injected
    assert chronicle.regrouped_s(one, "c", commits) == pytest.approx(2.5)
    assert chronicle.returned_s(one, "c", commits) is None


def test_a_thawed_peer_has_returned_once_it_is_in_a_commit_after_the_thaw(chronicle):
    chronicle.inject(Fault(Kind.FREEZE, 1, 5, 2.0), 5.5)
    chronicle.saw(6, 6.0)
    (one,) = chronicle.injected
    commits = made({6: {"a": 1, "b": 1}, 7: {"a": 1}, 8: {"a": 1, "b": 1}})
    assert chronicle.returned_s(one, "b", commits) is None
    chronicle.thaws(1, 7.5)
    chronicle.saw(7, 8.0)
    chronicle.saw(8, 9.0)
    assert chronicle.regrouped_s(one, "b", commits) == pytest.approx(2.5)
    assert chronicle.returned_s(one, "b", commits) == pytest.approx(1.5)


def test_a_rollback_takes_the_swarm_back_in_another_generation(chronicle):
    chronicle.saw(3, 6.0, generation=1)
    assert chronicle.position == (1, 3)
    chronicle.saw(6, 6.1)  # somebody is still in the old one
    chronicle.saw(5, 7.0, generation=1)
    assert (chronicle.position, chronicle.epoch) == ((1, 5), 5)


def test_an_epoch_that_is_made_again_is_expected_of_those_who_are_live_then(chronicle):
    chronicle.inject(Fault(Kind.KILL, 1, 5), 5.1)
    chronicle.saw(3, 6.0, generation=1)
    assert chronicle.expected(1, 4, generation=0)
    assert not chronicle.expected(1, 4, generation=1)
    assert chronicle.expected(0, 4, generation=1)


def test_a_joiner_before_a_rollback_is_expected_in_all_commits_after_it(chronicle):
    chronicle.inject(Fault(Kind.JOIN, 2, 5), 5.1)
    chronicle.catches_up(2, 5.5)
    chronicle.saw(3, 6.0, generation=1)
    assert chronicle.expected(2, 4, generation=1)
    assert not chronicle.expected(2, 6, generation=0)


def test_the_epoch_that_a_rollback_goes_back_to_is_no_commit(chronicle):
    chronicle.inject(Fault(Kind.KILL, 1, 5), 5.5)
    chronicle.saw(3, 6.0, generation=1)
    (one,) = chronicle.injected
    assert chronicle.next_commit_s(one) is None
    chronicle.saw(4, 7.0, generation=1)
    assert chronicle.next_commit_s(one) == pytest.approx(1.5)
    commits = made({4: {"a": 1}}, generation=1) | made({5: {"a": 1}})
    assert chronicle.regrouped_s(one, "b", commits) == pytest.approx(1.5)


def test_a_verdict_is_timed_from_the_candidate_of_its_generation(chronicle):
    assert chronicle.verdict_s(1, 0, 5) is None
    assert chronicle.saw_verdict(1, 7.5)
    assert not chronicle.saw_verdict(1, 8.5)
    assert chronicle.verdict_s(1, 0, 5) == pytest.approx(2.5)
    assert chronicle.verdict_s(1, 1, 5) is None


def test_all_are_back_when_the_last_of_them_works_in_the_generation(chronicle):
    chronicle.saw_verdict(2, 7.5)
    chronicle.saw_generation(0, 1, 8.0)
    assert chronicle.back_s(2, 1, [0, 1]) is None
    chronicle.saw_generation(1, 1, 9.0)
    chronicle.saw_generation(1, 1, 10.0)
    assert chronicle.back_s(2, 1, [0, 1]) == pytest.approx(1.5)
    assert chronicle.back_s(3, 1, [0, 1]) is None
