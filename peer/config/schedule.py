"""When training is allowed, as a person writes it: `22:00-07:00`, `sat,sun 00:00-24:00`."""

import dataclasses
import re
from collections.abc import Iterable

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"(?:([a-z, -]+?)\s+)?(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of local time that comes again each week.

    Attributes:
        days: The days on which it begins, 0 for Monday.
        begin_minute: The minute of the day at which it begins.
        minutes: How long it lasts, at most a day; it may end on the day after.
    """

    days: frozenset[int]
    begin_minute: int
    minutes: int

    def holds(self, weekday: int, minute: int) -> bool:
        """Return whether `minute` of the day `weekday` lies in it."""
        if weekday in self.days and 0 <= minute - self.begin_minute < self.minutes:
            return True
        into_next_day = self.begin_minute + self.minutes - _DAY_MINUTES
        return (weekday - 1) % 7 in self.days and minute < into_next_day


def parse_window(text: str) -> Window:
    """Return the window that `text` names: perhaps days or ranges of them, then two times.

    A window that ends before it begins ends on the next day.

    Raises:
        ValueError: It names none.
    """
    found = _WINDOW.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(
            f"{text!r} is no time to train; write it like 22:00-07:00 or sat,sun 00:00-24:00"
        )
    begin, end = (
        _minute(hour, minute, text) for hour, minute in (found.group(2, 3), found.group(4, 5))
    )
    if begin in (end, _DAY_MINUTES):
        raise ValueError(f"{text!r} lasts no time at all; all day is 00:00-24:00")
    minutes = end - begin if end > begin else end - begin + _DAY_MINUTES
    return Window(_days(found[1], text), begin, minutes)


def is_open(windows: Iterable[Window], weekday: int, minute: int) -> bool:
    """Return whether `minute` of the day `weekday` lies in any of `windows`."""
    return any(window.holds(weekday, minute) for window in windows)


def _minute(hour: str, minute: str, text: str) -> int:
    total = 60 * int(hour) + int(minute)
    if int(minute) >= 60 or total > _DAY_MINUTES:  # noqa: PLR2004 minutes of an hour
        raise ValueError(f"{text!r} has a time that no clock shows")
    return total


def _days(text: str | None, whole: str) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = (name.strip() for name in part.partition("-"))
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{whole!r} names a day that is none of {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last if dash else first)
        days |= {day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)}
    return frozenset(days)
