"""A bound on how fast something moves, shared by all who take from it."""

import asyncio
import dataclasses
import math

_BURST_S = 0.25
"""Whoever has been idle may send so many seconds' worth at once."""

OVERHEAD = 1.05
"""What a byte in a frame takes on the wire: headers of TCP and IP at 1,500 bytes a packet, and of
libp2p's encryption and streams."""


class Throttle:
    """Tokens that come at a fixed rate; those who want some are served in order.

    Args:
        bytes_per_s: The rate; None does not bound it.
    """

    def __init__(self, bytes_per_s: float | None) -> None:
        if bytes_per_s is not None and not bytes_per_s > 0:
            raise ValueError(f"a rate of {bytes_per_s} bytes per second never lets anything out")
        self.bytes_per_s = bytes_per_s
        self._paid_until_s = float("-inf")
        self._turn = asyncio.Lock()

    @property
    def debt_s(self) -> float:
        """How long whoever takes something now waits at least."""
        if self.bytes_per_s is None:
            return 0.0
        return max(0.0, self._paid_until_s - asyncio.get_running_loop().time())

    def charge(self, n: int) -> None:
        """Count `n` bytes that go at once; who comes later waits for them."""
        if self.bytes_per_s is None:
            return
        now_s = asyncio.get_running_loop().time()
        self._paid_until_s = max(self._paid_until_s, now_s - _BURST_S) + n / self.bytes_per_s

    async def take(self, n: int) -> None:
        """Wait until `n` bytes may go out."""
        if self.bytes_per_s is None:
            return
        # Nothing is owed for those who still queue: what goes at once waits for one at most.
        async with self._turn:
            self.charge(n)
            if (debt_s := self.debt_s) > 0.0:
                await asyncio.sleep(debt_s)


@dataclasses.dataclass(frozen=True)
class Line:
    """What bounds all that this peer sends, and all that it receives."""

    up: Throttle
    down: Throttle

    @classmethod
    def of(cls, up_bytes_per_s: float | None, down_bytes_per_s: float | None) -> "Line":
        """Return a line of these rates, measured on the wire; None does not bound one."""
        up, down = (
            Throttle(None if rate is None else rate / OVERHEAD)
            for rate in (up_bytes_per_s, down_bytes_per_s)
        )
        return cls(up, down)

    def given(self, most_bytes_per_s: float) -> Throttle:
        """Return what bounds all that others fetch: rounds have the other half of the line."""
        return Throttle(min(most_bytes_per_s, (self.up.bytes_per_s or math.inf) / 2))
