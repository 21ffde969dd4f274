"""A person's pause and the machine's, put together: the person's word wins."""

import pytest

from peer.clock import FakeClock
from peer.config.settings import PauseSettings
from peer.daemon.manners import Seen
from peer.daemon.pauses import Pauses

BATTERY = Seen(weekday=0, minute=0, on_battery=True)
MAINS = Seen(weekday=0, minute=0, on_battery=False)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def pauses(clock):
    return Pauses(PauseSettings(calm_s=1.0), clock)


def test_the_machine_s_reason_shows(pauses):
    pauses.heed(BATTERY)
    assert "battery" in pauses.reason
    told = pauses.describe()
    assert (told["by"], told["causes"], told["watched"]) == ("battery", ["battery"], ["battery"])


def test_a_person_s_reason_comes_first_and_stays_when_the_machine_s_goes(pauses, clock):
    pauses.heed(BATTERY)
    pauses.say("paused by you")
    assert pauses.reason == "paused by you"
    assert pauses.describe()["by"] == "you"
    for _ in range(3):
        pauses.heed(MAINS)
        clock.advance(10.0)
    assert pauses.reason == "paused by you"


def test_resuming_goes_on_whatever_the_machine_asks_for(pauses):
    pauses.heed(BATTERY)
    pauses.say("paused by you")
    pauses.resume()
    assert pauses.reason is None
    pauses.heed(BATTERY)
    assert pauses.reason is None
    assert pauses.describe()["overruled"] == ["battery"]


def test_a_pause_whose_time_is_over_leaves_the_machine_its_say(pauses, clock):
    pauses.say("paused by you", 60.0)
    pauses.heed(BATTERY)
    assert not pauses.expire()
    clock.advance(60.0)
    assert pauses.expire()
    assert not pauses.expire()
    assert "battery" in pauses.reason


def test_a_pause_for_a_time_says_until_when(pauses, clock):
    pauses.say("paused by you", 60.0)
    assert pauses.reason.startswith("paused by you until ")
    assert pauses.describe()["until_unix_time_s"] == clock.now_s() + 60.0
