"""Whether, when and how a dead worker is started again. Pure."""

import dataclasses
from collections.abc import Sequence
from enum import StrEnum

_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0
_FORGOTTEN_AFTER_S = 600.0
_LARGEST_DIVISOR = 1 << 16


class FailureClass(StrEnum):
    """How a worker ended that should not have."""

    CRASH = "crash"
    HANG = "hang"
    OUT_OF_MEMORY = "out_of_memory"
    CONFIGURATION = "configuration"
    NETWORK = "network"


@dataclasses.dataclass(frozen=True)
class Death:
    """One end of a worker: its class, and when, on the monotonic clock."""

    failure: FailureClass
    at_s: float


@dataclasses.dataclass(frozen=True)
class Restart:
    """Start again after `delay_s`, with the micro-batch divided by `micro_batch_divisor`."""

    delay_s: float
    micro_batch_divisor: int


@dataclasses.dataclass(frozen=True)
class GiveUp:
    """Do not start again: it would fail in the same way."""


def decide(deaths: Sequence[Death], divisor: int) -> tuple[Restart | GiveUp, str]:
    """Return what to do after the last of `deaths`, and why in words.

    The delay doubles with each death that follows the one before it within ten minutes, from one
    second up to a minute.

    Args:
        deaths: All deaths so far, oldest first; at least one.
        divisor: What the micro-batch is divided by at present.
    """
    last = deaths[-1]
    if last.failure is FailureClass.CONFIGURATION:
        return GiveUp(), "the worker cannot run as configured"
    streak = 1
    for earlier, later in zip(reversed(deaths[:-1]), reversed(deaths), strict=False):
        if later.at_s - earlier.at_s > _FORGOTTEN_AFTER_S:
            break
        streak += 1
    # Past this the delay is at its longest, and a larger exponent would only overflow.
    delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(streak - 1, 10))
    match last.failure:
        case FailureClass.OUT_OF_MEMORY:
            divisor = min(divisor * 2, _LARGEST_DIVISOR)
            reason = "the worker ran out of memory; it starts again with half the micro-batch"
        case FailureClass.NETWORK:
            reason = "the network was lost; the worker starts again"
        case FailureClass.HANG:
            reason = "the worker hung; it starts again"
        case _:
            reason = "the worker crashed; it starts again"
    return Restart(delay_s, divisor), f"{reason} in {delay_s:.0f} s"
