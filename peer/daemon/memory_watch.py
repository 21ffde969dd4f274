"""Watches, from outside, that a worker stays within the memory that the settings allow."""

import asyncio

from peer.training.footprint import tree_bytes

_OVERSHOOT = 1.05
"""The worker sees to it by itself, but only between two micro-batches."""
_LOOKS = 2
"""So often in a row it must be too much: an allocation may be given back at once."""


class MemoryWatch:
    """Says when a worker takes too much.

    Args:
        limit_bytes: What the worker and all that it started take for themselves; None does not
            bound it.
    """

    def __init__(self, limit_bytes: float | None) -> None:
        self._limit_bytes = limit_bytes
        self._looks = 0

    async def look(self, pid: int) -> str | None:
        """Return why the process `pid` should end now, in words, or None."""
        if self._limit_bytes is None:
            return None
        taken_bytes = await asyncio.to_thread(tree_bytes, pid)
        self._looks = self._looks + 1 if taken_bytes > _OVERSHOOT * self._limit_bytes else 0
        if self._looks < _LOOKS:
            return None
        self._looks = 0
        return (
            f"the worker took {taken_bytes / 1e6:,.0f} MB of memory where limits.memory_mb allows "
            f"{self._limit_bytes / 1e6:,.0f}"
        )
