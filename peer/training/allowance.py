"""The memory that the volunteer allows, as the worker sees it: between any two micro-batches."""

import contextlib
import time
from pathlib import Path

import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CHILDREN_EVERY_S = 10.0


class Allowance:
    """Measures the most memory that this process took, and all that it started, against a limit.

    Args:
        limit_bytes: Resident memory on the host; None does not bound it.
    """

    def __init__(self, limit_bytes: float | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._children_bytes, self._looked_s = 0, float("-inf")

    def begin(self) -> None:
        """Forget what was taken before (proc_pid_clear_refs(5), value 5)."""
        if self.limit_bytes is not None:
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")

    def excess(self) -> str | None:
        """Return in words that what was taken since `begin` is more than allowed, or None."""
        if self.limit_bytes is None:
            return None
        taken_bytes = _peak_bytes() + self._started_bytes()
        if taken_bytes <= self.limit_bytes:
            return None
        return (
            f"it took {taken_bytes / 1e6:,.0f} MB where limits.memory_mb allows "
            f"{self.limit_bytes / 1e6:,.0f}"
        )

    def _started_bytes(self) -> int:
        if time.monotonic() - self._looked_s > _CHILDREN_EVERY_S:
            self._looked_s, total = time.monotonic(), 0
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
            self._children_bytes = total
        return self._children_bytes


def _peak_bytes() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
