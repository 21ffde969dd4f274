"""Whether training should rest for the sake of whoever owns the machine. Pure.

Each cause is followed by itself: it must be there for a while before training rests, and be gone
for a while before it goes on. A person who resumes overrules the causes that are there, each until
it is gone; only the limit of the disk, which that person set, is not overruled.
"""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum

from peer.config.limits import PauseSettings
from peer.config.schedule import is_open

_BUSY_ONSET_S = 20.0
"""So long other programs must need the machine: starting one is no reason to rest."""
_CALM_SHARE = 0.6
"""They need it no longer below this part of the share from which on they do."""
_DISK_ONSET_S = 30.0
"""A checkpoint is written before the one that it takes the place of is dropped."""
_DISK_CALM_S = 10.0


class Cause(StrEnum):
    """Why training rests by itself; the first one in this order is what a person is told."""

    DISK = "disk"
    SCHEDULE = "schedule"
    BATTERY = "battery"
    IN_USE = "in_use"
    BUSY = "busy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """The machine, as it is at a moment; None is what cannot be known.

    Attributes:
        weekday: 0 is Monday, in local time.
        minute: Of the local day.
        on_battery: Whether it runs on its battery.
        others_share: What share of all cores other programs used lately, 0.0 to 1.0.
        idle_s: How long nobody has touched it.
        disk_share: What lies in the home, as a share of the limit.
    """

    weekday: int
    minute: int
    on_battery: bool | None = None
    others_share: float | None = None
    idle_s: float | None = None
    disk_share: float | None = None


@dataclasses.dataclass(frozen=True)
class Hold:
    """How one cause stands.

    Attributes:
        reason: In words, as it was when it set in; None if it is not there.
        turning_s: Since when it has been otherwise, on the monotonic clock; None if it has not.
    """

    reason: str | None = None
    turning_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Standing:
    """All causes, and which of them a person overruled."""

    holds: Mapping[Cause, Hold] = dataclasses.field(default_factory=dict)
    overruled: frozenset[Cause] = frozenset()

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes for which training rests, the weightiest first."""
        return tuple(
            cause
            for cause in Cause
            if self.holds.get(cause, Hold()).reason is not None and cause not in self.overruled
        )

    @property
    def reason(self) -> str | None:
        """Why training rests, in words, or None."""
        return next((self.holds[cause].reason for cause in self.causes), None)


@dataclasses.dataclass(frozen=True)
class _Sign:
    """What is seen of a cause: whether it is there (None: neither), and how soon it counts."""

    there: bool | None
    words: str = ""
    onset_s: float = 0.0
    calm_s: float = 0.0


def decide(
    now_s: float, seen: Seen, settings: PauseSettings, before: Standing
) -> tuple[Standing, str | None]:
    """Return how things stand now, and why training should rest, or None.

    Args:
        now_s: The monotonic clock.
        seen: The machine.
        settings: What the volunteer asks for.
        before: What this returned last; `Standing()` at first.
    """
    holds = {
        cause: _settle(now_s, sign, before.holds.get(cause, Hold()))
        for cause, sign in _signs(seen, settings).items()
    }
    overruled = frozenset(c for c in before.overruled if holds[c].reason is not None)
    standing = Standing(holds, overruled)
    return standing, standing.reason


def overrule(before: Standing) -> Standing:
    """Return how things stand once a person said to go on all the same."""
    return dataclasses.replace(
        before, overruled=before.overruled | (set(before.causes) - {Cause.DISK})
    )


def _settle(now_s: float, sign: _Sign, before: Hold) -> Hold:
    there = before.reason is not None
    if sign.there is None or sign.there == there:
        return Hold(before.reason)
    turning_s = now_s if before.turning_s is None else before.turning_s
    if now_s - turning_s < (sign.onset_s if sign.there else sign.calm_s):
        return Hold(before.reason, turning_s)
    return Hold(sign.words if sign.there else None)


def _signs(seen: Seen, settings: PauseSettings) -> dict[Cause, _Sign]:
    return {
        Cause.DISK: _disk(seen),
        Cause.SCHEDULE: _schedule(seen, settings),
        Cause.BATTERY: _Sign(
            settings.on_battery and bool(seen.on_battery),
            "the machine runs on its battery (pause.on_battery)",
            calm_s=settings.calm_s,
        ),
        Cause.IN_USE: _in_use(seen, settings),
        Cause.BUSY: _busy(seen, settings),
    }


def _schedule(seen: Seen, settings: PauseSettings) -> _Sign:
    closed = bool(settings.schedule) and not is_open(settings.windows, seen.weekday, seen.minute)
    return _Sign(closed, f"it trains at {'; '.join(settings.schedule)} (pause.schedule)")


def _in_use(seen: Seen, settings: PauseSettings) -> _Sign:
    if not settings.when_in_use or seen.idle_s is None:
        return _Sign(there=False)
    words = f"somebody uses the machine, or did in the last {settings.idle_s:.0f} s"
    return _Sign(seen.idle_s < settings.idle_s, f"{words} (pause.when_in_use)")


def _busy(seen: Seen, settings: PauseSettings) -> _Sign:
    if not settings.when_busy:
        return _Sign(there=False)
    if seen.others_share is None:
        return _Sign(there=None)  # as before a first measurement
    percent, limit = 100.0 * seen.others_share, settings.busy_percent
    there = True if percent >= limit else False if percent < _CALM_SHARE * limit else None
    words = f"other programs use {percent:.0f} % of the machine (pause.when_busy)"
    return _Sign(there, words, _BUSY_ONSET_S, settings.calm_s)


def _disk(seen: Seen) -> _Sign:
    if seen.disk_share is None:
        return _Sign(there=False)
    words = (
        f"the home takes {100.0 * seen.disk_share:.0f} % of limits.disk_mb; raise it, or drop "
        "checkpoints with `ctpeer checkpoint gc`"
    )
    return _Sign(seen.disk_share > 1.0, words, _DISK_ONSET_S, _DISK_CALM_S)
