"""Watches that the worker lives and keeps to its memory, and ends one that does not.

What to make of the signs, `peer.daemon.vitals` decides.
"""

import asyncio
import logging

from peer.clock import Clock
from peer.config.settings import Settings
from peer.daemon.life import Life
from peer.daemon.lifecycle import Course
from peer.daemon.memory_watch import MemoryWatch
from peer.daemon.process import WorkerProcess
from peer.daemon.vitals import Patience, Pulse, Signs, Vitals, judge, silence_limit_s

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_SURE_AFTER_LOOKS = 4
"""How often in a row a worker must seem to hang: what it said while we slept comes in first."""
_FROZEN_S = 10.0


class Watch:
    """Says how the worker is, and ends it if it must be.

    Args:
        settings: How long to wait for it, and what it may take.
        watchdog_s: How long a service manager waits for a word of ours; None if it does not.
        course: What the daemon does.
        vitals: What the worker said when.
        clock: The time.
    """

    def __init__(
        self,
        settings: Settings,
        watchdog_s: float | None,
        course: Course,
        vitals: Vitals,
        clock: Clock,
    ) -> None:
        worker = settings.worker
        # A watchdog is there to see a hang within its time: the worker's, too.
        silence_s = min(worker.hang_timeout_s, watchdog_s or worker.hang_timeout_s)
        self._patience = Patience(
            silence_s=silence_s, still_s=worker.hang_timeout_s, start_s=worker.start_timeout_s
        )
        self._limit_bytes = settings.limits.memory_bytes
        self._course = course
        self._vitals = vitals
        self._clock = clock

    def begin(self) -> None:
        """Note that a worker was started."""
        self._vitals.begin(self._clock.monotonic_s())

    def pulse(self) -> tuple[Pulse, str]:
        """Return what is to be done, and why in words."""
        return judge(self._signs(), self._patience)

    def silence_s(self) -> tuple[float, float]:
        """Return how long the worker has said nothing, and how long it may."""
        signs = self._signs()
        return signs.silent_s, silence_limit_s(signs, self._patience)

    async def guard(self, worker: WorkerProcess, life: Life) -> None:
        """Kill a worker that hangs or takes too much memory, and note why in its `life`."""
        memory = MemoryWatch(self._limit_bytes)
        suspicions, looked_s = 0, self._clock.monotonic_s()
        while True:
            await asyncio.sleep(_LOOK_S)
            slept_s = self._clock.monotonic_s() - looked_s
            looked_s += slept_s
            if slept_s > _FROZEN_S:  # with the machine, or by SIGSTOP; so was the worker
                self._vitals.sleep(slept_s, looked_s)
            pulse, why = self.pulse()
            suspicions = suspicions + 1 if pulse is Pulse.HUNG else 0
            if suspicions >= _SURE_AFTER_LOOKS:
                log.error("%s: it is killed", why)
                life.hung = True
                await worker.dump_and_kill()
                return
            if (over := await memory.look(worker.pid)) is not None:
                log.error("%s: it is killed", over)
                life.over_limit = over
                worker.kill()
                return

    def _signs(self) -> Signs:
        return self._vitals.signs(self._course.state, self._clock.monotonic_s())
