"""A bound on how fast something goes out, shared by all who take from it."""

import asyncio

_BURST_S = 0.25
"""Whoever has been idle may send so many seconds' worth at once."""


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

    async def take(self, n: int) -> None:
        """Wait until `n` bytes may go out."""
        if self.bytes_per_s is None:
            return
        now_s = asyncio.get_running_loop().time()
        self._paid_until_s = max(self._paid_until_s, now_s - _BURST_S) + n / self.bytes_per_s
        if self._paid_until_s > now_s:
            await asyncio.sleep(self._paid_until_s - now_s)
