"""What adds up over crawls, whatever peers say."""

import dataclasses

import pytest

from monitoring.totals import Totals
from peer.training.certificate import Base, Certificate, Entry, Vote


def counts(committed=0, failed=0, refused=0):
    return {"committed": committed, "failed": failed, "refused": refused}


def certificate(epoch, weight, generation=0):
    base = Base("tiny-1", generation, epoch, "ab" * 32)
    return Certificate(Vote(base, (Entry("a", "c", weight, 0),), ()), ())


def test_what_peers_did_before_we_looked_is_not_counted():
    totals = Totals()
    totals.take_counts({"a": counts(100), "b": counts(100)})
    assert totals.counts == counts()
    totals.take_counts({"a": counts(103), "b": counts(101, 2)})
    assert totals.counts == counts(4, 2)


def test_a_peer_that_starts_again_counts_from_nothing():
    totals = Totals()
    totals.take_counts({"a": counts(100)})
    totals.take_counts({"a": counts(3)})
    assert totals.counts["committed"] == 3


def test_a_peer_that_says_too_much_is_bounded_by_the_middle_one():
    totals = Totals()
    totals.take_counts(dict.fromkeys("abc", counts()))
    totals.take_counts({"a": counts(10), "b": counts(10), "c": counts(10**9)})
    assert totals.counts["committed"] == 10 + 10 + 48


def test_peers_that_are_forgotten_bring_no_jump():
    totals = Totals()
    totals.take_counts({f"p{i}": counts(10**6) for i in range(2000)})
    totals.take_counts({f"p{i}": counts(10**6) for i in range(2000)})
    assert totals.counts == counts()


def test_loss_terms_are_those_of_new_certificates():
    totals = Totals()
    totals.take_row([certificate(0, 5), certificate(1, 5)])
    assert totals.loss_terms == 0
    totals.take_row([certificate(1, 5), certificate(2, 7)])
    totals.take_row([certificate(1, 5), certificate(2, 7)])
    totals.take_row([])
    assert totals.loss_terms == 7
    totals.take_row([certificate(0, 2, generation=1)])  # rolled back, and made anew
    assert totals.loss_terms == 9


def test_a_verdict_is_counted_once(make_decided):
    totals = Totals()
    totals.take_verdicts([])
    totals.take_verdicts([make_decided(1, "accept")])
    totals.take_verdicts([make_decided(1, "accept"), make_decided(2, "reject")])
    totals.take_verdicts([make_decided(2, "reject"), make_decided(3, "accept")])
    assert totals.decisions == {"accept": 2, "reject": 1, "inconclusive": 0}


def test_what_was_found_before_the_exporter_was_started_is_no_news(make_decided):
    totals = Totals()
    totals.take_verdicts([make_decided(1, "accept"), make_decided(2, "reject")])
    assert totals.decisions == {"accept": 0, "reject": 0, "inconclusive": 0}
    totals.take_verdicts([make_decided(2, "reject"), make_decided(3, "accept")])
    assert totals.decisions == {"accept": 1, "reject": 0, "inconclusive": 0}


def test_the_good_state_has_been_known_since_it_changed():
    totals = Totals()
    totals.take_good("aa", 10.0)
    totals.take_good("aa", 20.0)
    assert totals.good_since_s == 10.0
    totals.take_good("bb", 30.0)
    assert totals.good_since_s == 30.0


@pytest.mark.parametrize(
    ("at_s", "epoch"), [(9.0, None), (10.0, 4), (15.0, 6), (20.0, 8), (99.0, 8)]
)
def test_where_the_head_was_is_known_between_two_looks(at_s, epoch):
    totals = Totals()
    totals.take_head(0, 4, 10.0)
    totals.take_head(0, 8, 20.0)
    assert totals.head_at(at_s) == epoch


def test_a_new_generation_forgets_where_the_head_was():
    totals = Totals()
    totals.take_head(0, 100, 10.0)
    totals.take_head(1, 50, 20.0)
    assert totals.head_at(15.0) is None
    assert totals.head_at(20.0) == 50


@pytest.fixture
def make_decided():
    """Return what of a verdict is counted."""

    @dataclasses.dataclass
    class Value:
        value: str

    @dataclasses.dataclass
    class Judged:
        round: int
        decision: Value

    @dataclasses.dataclass
    class Decided:
        judgement: Judged

    return lambda number, decision: Decided(Judged(number, Value(decision)))
