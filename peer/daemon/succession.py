"""One worker after the other: how each is started, told, ended, and what follows its end."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Sequence

from peer.clock import Clock
from peer.daemon.beside import beside
from peer.daemon.hearing import Hearing
from peer.daemon.life import Life, ending
from peer.daemon.lifecycle import Course, Trigger
from peer.daemon.process import WorkerProcess, kernel_oom_kills
from peer.daemon.restart import Death, GiveUp, decide
from peer.daemon.watch import Watch
from peer.errors import ConfigurationError
from peer.events import Begin, Finish, Message, Stop

log = logging.getLogger(__name__)

_DEATHS_KEPT = 32


class Succession:
    """Keeps a worker running until it is to end.

    Args:
        command: How to start a worker.
        begin: Returns the first words to it, with its micro-batch divided by so much.
        stop_timeout_s: How long one that was told to stop may take.
        course: Where the daemon is.
        hearing: Takes in what workers say.
        watch: Ends those that hang or take too much.
        clock: The time.

    Attributes:
        leaving: Whether the present worker is the last one, and why: FINISH, STOP or None.
    """

    def __init__(
        self,
        command: Sequence[str],
        begin: Callable[[int], Begin],
        stop_timeout_s: float,
        course: Course,
        hearing: Hearing,
        watch: Watch,
        clock: Clock,
    ) -> None:
        self.leaving: Trigger | None = None
        self._command = command
        self._begin = begin
        self._stop_timeout_s = stop_timeout_s
        self._course = course
        self._hearing = hearing
        self._watch = watch
        self._clock = clock
        self._worker: WorkerProcess | None = None
        self._deaths: list[Death] = []
        self._divisor = 1
        self._wake = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process id of the present worker; None between two."""
        return self._worker.pid if self._worker is not None else None

    def send(self, message: Message) -> None:
        """Say `message` to the present worker, if there is one."""
        if self._worker is not None:
            self._worker.send(message)

    def finish(self) -> None:
        """Let the worker complete its epoch and end, and start no other after that."""
        if self.leaving is None:
            self.leaving = Trigger.FINISH
        self._course.follow(Trigger.FINISH, "completing the epoch, as asked")
        self.send(Finish())
        self._wake.set()

    def stop(self) -> None:
        """Let the worker write a checkpoint and end, in a bounded time, and start no other."""
        self.leaving = Trigger.STOP
        self._course.follow(Trigger.STOP, "stopping, as asked")
        self._wake.set()
        if self._worker is not None:
            self._stop_worker(self._worker)

    def kill(self) -> bool:
        """End the present worker at once; return whether there was one."""
        if self._worker is None:
            return False
        self._worker.kill()
        return True

    async def run(self) -> int:
        """Run one worker after the other; return the daemon's exit code.

        It is 1 if the last epoch is not on the disk.

        Raises:
            ConfigurationError: The worker cannot run as configured.
        """
        while self.leaving is not Trigger.STOP:
            life, code = await self._one_worker()
            if (exit_code := self._last_word(life, code)) is not None:
                return exit_code
            delay_s = self._mourn(life, code)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay_s)
            self._wake.clear()
        return 0

    async def _one_worker(self) -> tuple[Life, int]:
        """Run a worker to its end; return what is known of it, and its exit code."""
        life = Life()
        self._course.follow(Trigger.BEGIN, "starting the worker")
        oom_kills = kernel_oom_kills()
        worker = self._worker = await WorkerProcess.start(self._command)
        self._watch.begin()
        worker.send(self._begin(self._divisor))
        if self.leaving is Trigger.FINISH:
            worker.send(Finish())
        elif self.leaving is Trigger.STOP:  # asked for while the process was being started
            self._stop_worker(worker)
        try:
            async with beside(self._hearing.log_output(worker), self._watch.guard(worker, life)):
                async for message in worker.messages():
                    self._hearing.take(message, life)
                code = await worker.ended()
        except BaseException:
            worker.kill()
            await worker.ended()
            raise
        finally:
            self._worker = None
        if code == -signal.SIGKILL and kernel_oom_kills() > oom_kills:
            life.out_of_memory = True
        return life, code

    def _stop_worker(self, worker: WorkerProcess) -> None:
        worker.send(Stop())
        asyncio.get_running_loop().call_later(self._stop_timeout_s, worker.kill)

    def _last_word(self, life: Life, code: int) -> int | None:
        """Return the daemon's exit code if there is to be no other worker."""
        if code == 0 and life.finished is not None:
            self._course.follow(Trigger.END, life.finished.reason)
            log.info("finished at epoch %d: %s", life.finished.epoch, life.finished.reason)
            return 0 if life.finished.saved else 1
        if self.leaving is not Trigger.STOP:
            return None
        reason = f"stopped; the worker did not end well ({ending(code)})"
        self._course.follow(Trigger.END, reason)
        if life.refused is not None:
            raise ConfigurationError(life.refused)
        return 1

    def _mourn(self, life: Life, code: int) -> float:
        """Return how long to wait for the next worker, in seconds.

        Raises:
            ConfigurationError: The next one would die as this one did.
        """
        failure, why = life.failure(code)
        self._hearing.count_death(failure)
        self._deaths = [*self._deaths[-_DEATHS_KEPT:], Death(failure, self._clock.monotonic_s())]
        decision, reason = decide(self._deaths, self._divisor)
        if isinstance(decision, GiveUp):
            self._course.follow(Trigger.GIVE_UP, why or reason)
            raise ConfigurationError(why or reason)
        self._divisor = decision.micro_batch_divisor
        self._course.follow(Trigger.DIE, f"{reason} ({ending(code)})")
        log.error("%s (%s)", reason, ending(code))
        return decision.delay_s
