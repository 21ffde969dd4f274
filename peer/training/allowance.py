"""The memory that the volunteer allows, as the worker sees it: between any two micro-batches."""

import contextlib
import os
import time
from pathlib import Path

import psutil

from peer.training.footprint import own_bytes, resident, started_bytes

_CLEAR = Path("/proc/self/clear_refs")
_CHILDREN_EVERY_S = 10.0


class Allowance:
    """Measures the most memory that this process took, and all that it started, against a limit.

    Args:
        limit_bytes: Of the host, without mapped files; None does not bound it.
    """

    def __init__(self, limit_bytes: float | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._mapped_bytes = 0
        self._children_bytes, self._looked_s = 0, float("-inf")

    def begin(self) -> None:
        """Forget what was taken before (proc_pid_clear_refs(5), value 5)."""
        if self.limit_bytes is not None:
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")
            self._mapped_bytes = resident(os.getpid()).get("RssFile", 0)

    def excess(self) -> str | None:
        """Return in words that what was taken since `begin` is more than allowed, or None."""
        if self.limit_bytes is None:
            return None
        taken_bytes = self._peak_bytes() + self._started_bytes()
        if taken_bytes <= self.limit_bytes:
            return None
        return (
            f"it took {taken_bytes / 1e6:,.0f} MB where limits.memory_mb allows "
            f"{self.limit_bytes / 1e6:,.0f}"
        )

    def _peak_bytes(self) -> int:
        """Return the most that this process took for itself since `begin`.

        The kernel keeps the peak of everything, mapped files included: of those counts what was
        mapped at the beginning, or is now, whatever is more, since another thread may map a shard
        meanwhile. Where they were fewer at the peak, this is too little; what stays is seen by the
        next micro-batch, and by `MemoryWatch`.
        """
        now_bytes, sizes = own_bytes(psutil.Process()), resident(os.getpid())
        mapped_bytes = max(self._mapped_bytes, sizes.get("RssFile", 0))
        return max(now_bytes, sizes.get("VmHWM", 0) - mapped_bytes)

    def _started_bytes(self) -> int:
        if time.monotonic() - self._looked_s > _CHILDREN_EVERY_S:
            self._looked_s, self._children_bytes = time.monotonic(), started_bytes()
        return self._children_bytes
