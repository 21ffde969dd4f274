"""What the service manager hears, and when."""

import pytest

from peer.daemon.herald import Herald
from peer.daemon.vitals import Pulse
from peer.observe.notify import ServiceManager


@pytest.fixture
def herald(listener):
    environment = {"NOTIFY_SOCKET": str(listener.path), "WATCHDOG_USEC": "120000000"}
    return Herald(ServiceManager(environment))


def tell(herald, now_s, *, ready=True, words="training", pulse=Pulse.ALIVE):
    herald.tell(now_s, ready=ready, words=words, pulse=pulse)


def test_before_it_is_ready_more_time_is_asked_for_while_it_lives(herald, listener):
    for tick in range(121):
        tell(herald, tick / 2, ready=False, words="starting: importing")
    heard = listener.heard()
    assert "READY=1" not in heard
    assert heard.count("EXTEND_TIMEOUT_USEC=60000000") == 3
    tell(herald, 200.0, ready=False, words="starting: importing", pulse=Pulse.LOST)
    assert listener.heard() == []


def test_it_is_ready_once(herald, listener):
    tell(herald, 0.0, ready=False)
    tell(herald, 1.0)
    tell(herald, 2.0, ready=False)
    tell(herald, 3.0)
    assert listener.heard().count("READY=1") == 1


def test_the_watchdog_is_pinged_four_times_a_limit_and_only_while_it_lives(herald, listener):
    for tick in range(241):
        tell(herald, tick / 2)
    heard = listener.heard()
    assert heard.count("WATCHDOG=1") == 5
    assert not [word for word in heard if word.startswith("EXTEND")]
    for pulse in (Pulse.HUNG, Pulse.LOST):
        for second in range(130, 500):
            tell(herald, float(second), pulse=pulse)
    assert listener.heard() == []
    tell(herald, 501.0)
    assert listener.heard() == ["WATCHDOG=1"]


def test_words_are_told_when_they_change_and_not_too_often(herald, listener):
    for tick in range(20):
        tell(herald, tick / 2, words=f"training: epoch {tick // 2}")
    told = [word for word in listener.heard() if word.startswith("STATUS=")]
    assert told == [f"STATUS=training: epoch {epoch}" for epoch in (0, 2, 4, 6, 8)]


def test_an_end_is_told_once_with_the_time_it_takes_and_nothing_after_it(herald, listener):
    herald.stop(300.0)
    herald.stop(300.0)
    tell(herald, 1.0)
    assert listener.heard() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=315000000"]


def test_with_nobody_who_listens_nothing_is_said(listener):
    herald = Herald(ServiceManager({}))
    tell(herald, 0.0)
    herald.stop(1.0)
    assert herald.watchdog_s is None
    assert listener.heard() == []
