"""Time as a part that is passed in, so that tests decide what time it is."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where a component reads the time."""

    def now_s(self) -> float:
        """Return the wall-clock time in seconds since the Unix epoch."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        """Return the wall-clock time in seconds since the Unix epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


class FakeClock:
    """A clock that stands still until told otherwise."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self._now_s = now_s
        self._monotonic_s = 0.0

    def now_s(self) -> float:
        """Return the wall-clock time in seconds since the Unix epoch."""
        return self._now_s

    def monotonic_s(self) -> float:
        """Return seconds since this clock was made."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both readings forward by `seconds`."""
        self._now_s += seconds
        self._monotonic_s += seconds
