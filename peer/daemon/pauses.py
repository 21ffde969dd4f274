"""Why training rests: by a person's word, which wins, or by the manners that were asked for."""

import time
from typing import Any

from peer.clock import Clock
from peer.config.limits import PauseSettings
from peer.daemon.manners import Seen, Standing, decide, overrule

BY_A_PERSON = "you"
_HALF_A_DAY_S = 43_200.0


class Pauses:
    """A person's pause and the machine's, put together.

    A person's pause holds until that person resumes, or for as long as was said. Who resumes also
    overrules what the machine asks for just now, until that is gone; when a pause for a time ends
    by itself, it does not.

    Args:
        settings: What the volunteer asks for.
        clock: The time.
    """

    def __init__(self, settings: PauseSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._said: str | None = None
        self._until_s: float | None = None
        self._standing = Standing()

    @property
    def reason(self) -> str | None:
        """Why training rests, in words, or None."""
        return self._said if self._said is not None else self._standing.reason

    def say(self, reason: str, for_s: float | None = None) -> None:
        """Pause by a person's word, until `resume` or for `for_s`."""
        self._until_s = None
        if for_s is not None:
            # On the wall clock, which goes on while a laptop sleeps.
            self._until_s = self._clock.now_s() + for_s
            reason = f"{reason} until {_clock_time(self._until_s, for_s)}"
        self._said = reason

    def resume(self) -> None:
        """Go on by a person's word, whatever the machine asks for just now."""
        self._said = self._until_s = None
        self._standing = overrule(self._standing)

    def expire(self) -> bool:
        """End a person's pause whose time is over; return whether that was so."""
        over = self._until_s is not None and self._clock.now_s() >= self._until_s
        if over:
            self._said = self._until_s = None
        return over

    def heed(self, seen: Seen) -> None:
        """Take in how the machine is."""
        self._standing, _ = decide(self._clock.monotonic_s(), seen, self._settings, self._standing)

    def describe(self) -> dict[str, Any]:
        """Return who asks for a pause, and what else is looked at, as JSON has it."""
        settings, causes = self._settings, self._standing.causes
        by = BY_A_PERSON if self._said is not None else str(causes[0]) if causes else None
        watched = {
            "schedule": bool(settings.schedule),
            "battery": settings.on_battery,
            "in_use": settings.when_in_use,
            "busy": settings.when_busy,
        }
        return {
            "by": by,
            "reason": self.reason,
            "until_unix_time_s": self._until_s,
            "causes": [str(cause) for cause in causes],
            "overruled": sorted(self._standing.overruled),
            "watched": [name for name, on in watched.items() if on],
        }


def _clock_time(unix_time_s: float, ahead_s: float) -> str:
    """Return the local time, with its date if it lies more than half a day ahead."""
    spelling = "%H:%M" if ahead_s < _HALF_A_DAY_S else "%Y-%m-%d %H:%M"
    return time.strftime(spelling, time.localtime(unix_time_s))
