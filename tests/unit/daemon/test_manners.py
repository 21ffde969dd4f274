"""When training rests by itself: each cause with its hysteresis, and a person's word above them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.config.settings import PauseSettings
from peer.daemon.manners import Cause, Seen, Standing, decide, overrule

ALL = PauseSettings(when_busy=True, when_in_use=True, schedule=("22:00-07:00",), calm_s=60.0)
QUIET = Seen(weekday=0, minute=0, on_battery=False, others_share=0.0, idle_s=1e6, disk_share=0.5)

seen = st.builds(
    Seen,
    weekday=st.integers(0, 6),
    minute=st.integers(0, 1439),
    on_battery=st.none() | st.booleans(),
    others_share=st.none() | st.floats(0.0, 1.0),
    idle_s=st.none() | st.floats(0.0, 1e6),
    disk_share=st.none() | st.floats(0.0, 2.0),
)
steps = st.lists(st.tuples(st.floats(0.0, 100.0), seen, st.booleans()), max_size=30)


def play(course, settings=ALL, standing=None):
    """Return the standing after a course of (at_s, changes to a quiet machine)."""
    standing = standing or Standing()
    for at_s, changes in course:
        standing, _ = decide(at_s, dataclasses.replace(QUIET, **changes), settings, standing)
    return standing


def test_a_quiet_machine_gives_no_reason():
    assert play([(0.0, {}), (100.0, {})]).reason is None


@pytest.mark.parametrize(
    ("changes", "cause", "words"),
    [
        ({"on_battery": True}, Cause.BATTERY, "battery"),
        ({"idle_s": 5.0}, Cause.IN_USE, "in the last 180 s"),
        ({"minute": 12 * 60}, Cause.SCHEDULE, "22:00-07:00"),
    ],
)
def test_these_set_in_at_once_with_their_reason(changes, cause, words):
    standing = play([(0.0, changes)])
    assert standing.causes == (cause,)
    assert words in standing.reason


def test_other_programs_count_only_once_they_needed_the_machine_for_a_while():
    busy = {"others_share": 0.8}
    assert play([(0.0, busy), (19.0, busy)]).reason is None
    standing = play([(0.0, busy), (20.0, busy)])
    assert standing.reason == "other programs use 80 % of the machine (pause.when_busy)"


def test_a_spike_that_passes_begins_anew():
    busy = {"others_share": 0.8}
    assert play([(0.0, busy), (15.0, {}), (20.0, busy), (35.0, busy)]).reason is None


def test_between_the_two_shares_nothing_changes():
    busy, between = {"others_share": 0.6}, {"others_share": 0.4}
    assert play([(0.0, between), (100.0, between)]).reason is None
    held = play([(0.0, busy), (20.0, busy), *((t, between) for t in range(30, 1000, 10))])
    assert held.causes == (Cause.BUSY,)


def test_calm_must_last_before_training_goes_on():
    battery = [(0.0, {"on_battery": True}), (10.0, {})]
    assert play([*battery, (69.0, {})]).causes == (Cause.BATTERY,)
    assert play([*battery, (70.0, {})]).reason is None
    assert play([*battery, (60.0, {"on_battery": True}), (70.0, {})]).causes == (Cause.BATTERY,)


def test_what_nobody_asked_for_is_never_a_reason():
    settings = PauseSettings(on_battery=False)
    course = [(t, {"on_battery": True, "idle_s": 0.0, "others_share": 1.0}) for t in range(200)]
    assert play(course, settings).reason is None


def test_what_cannot_be_known_is_never_a_reason():
    nothing = {"on_battery": None, "idle_s": None, "others_share": None, "disk_share": None}
    assert play([(float(t), nothing) for t in range(200)]).reason is None


def test_resuming_overrules_a_cause_until_it_is_gone():
    standing = overrule(play([(0.0, {"on_battery": True})]))
    assert standing.reason is None
    standing = play([(100.0, {"on_battery": True})], standing=standing)
    assert (standing.reason, standing.overruled) == (None, {Cause.BATTERY})
    standing = play([(200.0, {}), (260.0, {}), (270.0, {"on_battery": True})], standing=standing)
    assert standing.causes == (Cause.BATTERY,)


def test_resuming_overrules_no_cause_that_comes_later():
    standing = overrule(play([(0.0, {"on_battery": True})]))
    standing = play([(10.0, {"on_battery": True, "idle_s": 1.0})], standing=standing)
    assert standing.causes == (Cause.IN_USE,)


def test_the_disk_s_limit_is_not_overruled():
    full = {"disk_share": 1.5, "on_battery": True}
    standing = overrule(play([(0.0, full), (30.0, full)]))
    assert standing.causes == (Cause.DISK,)


def test_a_home_that_is_too_large_while_a_checkpoint_is_written_is_no_reason():
    full = {"disk_share": 1.3}
    assert play([(0.0, full), (25.0, full), (30.0, {"disk_share": 0.97})]).reason is None
    held = play([(0.0, full), (30.0, full)])
    assert "130 % of limits.disk_mb" in held.reason
    room = {"disk_share": 0.97}
    assert play([(31.0, room), (41.0, room)], standing=held).reason is None


@given(steps)
def test_a_pause_has_a_reason_that_was_seen_and_asked_for(course):
    now_s, standing = 0.0, Standing()
    for after_s, now, resumes in course:
        now_s += after_s
        standing, reason = decide(now_s, now, ALL, standing)
        assert (reason is None) == (not standing.causes)
        if now.on_battery and Cause.BATTERY not in standing.overruled:
            assert Cause.BATTERY in standing.causes
        assert standing.overruled <= {c for c, h in standing.holds.items() if h.reason}
        if resumes:
            standing = overrule(standing)
            assert set(standing.causes) <= {Cause.DISK}


@given(steps, st.floats(200.0, 1e4))
def test_a_machine_that_stays_quiet_trains_at_last(course, quiet_s):
    now_s, standing = 0.0, Standing()
    for after_s, now, _ in course:
        now_s += after_s
        standing, _ = decide(now_s, now, ALL, standing)
    for at_s in (now_s + 1.0, now_s + 1.0 + quiet_s):
        standing, _ = decide(at_s, QUIET, ALL, standing)
    assert standing == Standing(standing.holds)
    assert standing.reason is None


@given(steps)
def test_causes_do_not_depend_on_how_often_is_looked(course):
    now_s, once, often = 0.0, Standing(), Standing()
    for after_s, now, _ in course:
        now_s += after_s
        once, _ = decide(now_s, now, ALL, once)
        for _ in range(3):
            often, _ = decide(now_s, now, ALL, often)
    assert once.causes == often.causes
