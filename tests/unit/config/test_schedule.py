"""When training is allowed, as a person writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.config.schedule import DAYS, Window, is_open, parse_window

MON, TUE, FRI, SAT, SUN = 0, 1, 4, 5, 6
minutes = st.integers(0, 1439)


def test_a_night_lasts_into_the_next_day():
    night = parse_window("22:00-07:00")
    assert night.holds(MON, 22 * 60)
    assert night.holds(MON, 0)
    assert night.holds(TUE, 6 * 60 + 59)
    assert not night.holds(TUE, 7 * 60)
    assert not night.holds(TUE, 21 * 60 + 59)


def test_a_night_of_some_days_ends_on_the_day_after():
    night = parse_window("fri,sat 22:00-07:00")
    assert night.holds(FRI, 23 * 60)
    assert night.holds(SUN, 60)
    assert not night.holds(FRI, 60)
    assert not night.holds(SUN, 23 * 60)


def test_a_whole_weekend_is_written_so():
    weekend = parse_window("sat,sun 00:00-24:00")
    assert all(weekend.holds(day, minute) for day in (SAT, SUN) for minute in range(1440))
    assert not any(weekend.holds(day, minute) for day in range(5) for minute in range(1440))


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-fri 9:00-17:00", {0, 1, 2, 3, 4}),
        ("Fri-Mon 9:00-17:00", {4, 5, 6, 0}),
        ("mon, wed-thu 9:00 - 17:00", {0, 2, 3}),
        ("9:00-17:00", set(range(7))),
    ],
)
def test_days_are_named_one_by_one_or_as_a_range(text, days):
    assert parse_window(text) == Window(frozenset(days), 540, 480)


@pytest.mark.parametrize(
    "text",
    ["", "night", "22-7", "25:00-26:00", "22:60-23:00", "8:00-8:00", "24:00-08:00",
     "sunday 8:00-9:00", "mon- 8:00-9:00", "8:00-9:00 mon", "\uff18:00-9:00"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"no time|no clock|none of"):
        parse_window(text)


@given(st.sets(st.sampled_from(DAYS), min_size=1), minutes, minutes, st.integers(0, 6), minutes)
def test_a_window_and_its_complement_never_hold_at_once(days, begin, end, weekday, minute):
    if begin == end:
        return
    spell = [f"{t // 60:02}:{t % 60:02}" for t in (begin, end)]
    there = parse_window(f"{','.join(days)} {spell[0]}-{spell[1]}")
    back = parse_window(f"{spell[1]}-{spell[0]}")
    every = parse_window(f"{spell[0]}-{spell[1]}")
    assert every.holds(weekday, minute) != back.holds(weekday, minute)
    assert not (there.holds(weekday, minute) and back.holds(weekday, minute))
    assert is_open([every, back], weekday, minute)
