"""Peers whose word that the run is elsewhere led nowhere are asked less and less often."""

from peer.training.leads import Leads

PEERS = {"one", "other"}


def rests_s(leads, now_s):
    """Return for how long `one` is not listened to."""
    return next(s for s in range(10**4) if "one" in leads.open(PEERS, now_s + s))


def test_everybody_is_listened_to_at_first():
    assert Leads().open(PEERS, 0.0) == PEERS


def test_only_the_one_whose_word_led_nowhere_has_to_wait():
    leads = Leads()
    leads.vain("one", 100.0, tenured=False)
    assert leads.open(PEERS, 100.0) == {"other"}


def test_a_stranger_waits_twice_as_long_each_time_up_to_ten_minutes():
    leads, waits_s = Leads(), []
    for now_s in range(0, 10**6, 10**5):
        leads.vain("one", now_s, tenured=False)
        waits_s.append(rests_s(leads, now_s))
    assert waits_s == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]


def test_a_peer_that_works_with_us_never_waits_long():
    leads = Leads()
    for now_s in range(0, 10**6, 10**5):
        leads.vain("one", now_s, tenured=True)
        assert rests_s(leads, now_s) == 10


def test_who_is_forgiven_is_listened_to_and_waits_longer_the_next_time():
    leads = Leads()
    leads.vain("one", 0.0, tenured=False)
    leads.forgive()
    assert leads.open(PEERS, 0.0) == PEERS
    leads.vain("one", 0.0, tenured=False)
    assert rests_s(leads, 0.0) == 20


def test_nothing_is_kept_of_peers_that_are_gone():
    leads = Leads()
    for number in range(100):
        leads.vain(str(number), 0.0, tenured=False)
    leads.vain("one", 0.0, tenured=False)
    leads.forget({"one"})
    assert leads.open({"one", "7"}, 0.0) == {"7"}
    leads.vain("7", 0.0, tenured=False)
    assert "7" in leads.open({"7"}, 10.0)
