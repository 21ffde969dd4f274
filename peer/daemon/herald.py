"""What a service manager is told of the daemon, and when."""

from peer.daemon.vitals import Pulse
from peer.observe.notify import ServiceManager

_STATUS_EVERY_S = 2.0
_EXTEND_BY_S = 60.0
_PINGS_A_LIMIT = 4
_LAST_MOMENTS_S = 15.0
"""What the daemon needs to end beside the worker's own time for its last checkpoint."""


class Herald:
    """Tells the service manager that started us, if one did, how we are.

    Args:
        manager: Takes it.
    """

    def __init__(self, manager: ServiceManager) -> None:
        self._manager = manager
        self._ready = self._stops = False
        self._words, self._told_s, self._pinged_s = "", float("-inf"), float("-inf")

    @property
    def watchdog_s(self) -> float | None:
        """How long the manager waits for a sign of life; None if it does not."""
        return self._manager.watchdog_s

    def tell(self, now_s: float, *, ready: bool, words: str, pulse: Pulse) -> None:
        """Say how we are; called often, it says what is new or due.

        Args:
            now_s: The monotonic clock.
            ready: Whether a worker has loaded, or rests for a stated reason.
            words: What the daemon does, and why.
            pulse: Whether it lives.
        """
        if not self._manager.listens or self._stops:
            return
        if ready and not self._ready:
            self._ready = True
            self._manager.ready()
        if words != self._words and now_s - self._told_s >= _STATUS_EVERY_S:
            self._words, self._told_s = words, now_s
            self._manager.status(words)
        if pulse is Pulse.ALIVE:
            self._ping(now_s)

    def stop(self, worker_timeout_s: float) -> None:
        """Say that the daemon ends, and how long its worker may take for that."""
        if self._manager.listens and not self._stops:
            self._stops = True
            self._manager.stopping()
            self._manager.extend(worker_timeout_s + _LAST_MOMENTS_S)

    def _ping(self, now_s: float) -> None:
        """Say that we live; before we are ready, that the start may take longer."""
        every_s = (self.watchdog_s or _EXTEND_BY_S) / _PINGS_A_LIMIT
        if now_s - self._pinged_s < every_s:
            return
        self._pinged_s = now_s
        self._manager.alive()
        if not self._ready:
            self._manager.extend(_EXTEND_BY_S)
