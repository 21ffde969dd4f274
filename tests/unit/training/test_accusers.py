"""Whose word is not taken any more: who accuses a peer alone, and for long."""

from peer.training.accusers import PATIENCE_S, Accusers

SAID = {"a": {"b"}, "b": set(), "c": set()}


def test_an_accusation_is_taken_at_first():
    assert Accusers().doubted(SAID, (), 0.0) == set()


def test_who_accuses_for_long_is_doubted():
    accusers = Accusers()
    accusers.doubted(SAID, (), 0.0)
    assert accusers.doubted(SAID, (), PATIENCE_S) == set()
    assert accusers.doubted(SAID, (), PATIENCE_S + 0.1) == {"a"}


def test_an_accusation_that_ended_counts_from_its_new_beginning():
    accusers = Accusers()
    accusers.doubted(SAID, (), 0.0)
    accusers.doubted({"a": set(), "b": set()}, (), 5.0)
    accusers.doubted(SAID, (), 6.0)
    assert accusers.doubted(SAID, (), PATIENCE_S + 1.0) == set()


def test_a_link_that_both_ends_name_is_nobodys_lie():
    accusers, both = Accusers(), {"a": {"b"}, "b": {"a"}}
    accusers.doubted(both, (), 0.0)
    assert accusers.doubted(both, (), 10 * PATIENCE_S) == set()


def test_two_clients_need_not_reach_each_other():
    accusers = Accusers()
    accusers.doubted(SAID, {"a", "b"}, 0.0)
    assert accusers.doubted(SAID, {"a", "b"}, 10 * PATIENCE_S) == set()
