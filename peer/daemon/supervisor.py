"""The supervisor: keeps a worker running, and answers for it whatever the worker does.

It loads neither torch nor hivemind. It owns the state, the counters, the signals and the log; the
worker owns the model. Everything runs in one asyncio loop.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from peer.clock import Clock
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.lifecycle import TRIGGER_OF_PHASE, State, Trigger, follow
from peer.daemon.process import WORKER_COMMAND, Junk, WorkerProcess, kernel_oom_kills
from peer.daemon.restart import Death, FailureClass, GiveUp, decide
from peer.errors import ConfigurationError
from peer.events import (
    Begin,
    Finish,
    Finished,
    LogLine,
    Message,
    OutOfMemory,
    Pause,
    PhaseChanged,
    Refused,
    Resume,
    RoundCommitted,
    RoundFailure,
    Stop,
)
from peer.observe.metrics import Metrics
from peer.observe.status import Snapshot, Surroundings, render

log = logging.getLogger(__name__)

EXIT_OUT_OF_MEMORY = 75
EXIT_REFUSED = 78

_TICK_S = 0.5
_QUIET_AFTER_S = 10.0
_LAST_STATUS_INTERVAL_S = 10.0
_EPOCH_LOG_INTERVAL_S = 10.0


class Supervisor:
    """Runs one run's worker until told to leave.

    Args:
        home: Where everything lies; locked by the caller.
        settings: The volunteer's choices.
        run_id: The run, already in the home.
        max_epochs: Where to end, or None.
        clock: The time.
        command: How to start a worker.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        run_id: str,
        *,
        max_epochs: int | None,
        clock: Clock,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._home = home
        self._settings = settings
        self._run_id = run_id
        self._max_epochs = max_epochs
        self._clock = clock
        self._command = command
        self.metrics = Metrics(State, RoundFailure, FailureClass)
        self.metrics_url = ""
        self.snapshot = Snapshot(clock.monotonic_s())
        self.state = State.RESTARTING
        self._reason = "starting"
        self._worker: WorkerProcess | None = None
        self._heard_s = clock.monotonic_s()
        self._deaths: list[Death] = []
        self._divisor = 1
        self._paused: str | None = None
        self._resume_timer: asyncio.TimerHandle | None = None
        self._leaving: Trigger | None = None
        self._wake = asyncio.Event()
        self._refused: str | None = None
        self._finished: Finished | None = None
        self._out_of_memory = False
        self._hung = False
        self._status_saved_s = self._epoch_logged_s = -_LAST_STATUS_INTERVAL_S

    # ---- what others ask for

    def pause(self, reason: str, for_s: float | None = None) -> None:
        """Pause, until `resume` or for `for_s`; kept over restarts of the worker."""
        if for_s is not None:
            until = _clock_time(self._clock.now_s() + for_s)
            reason = f"{reason} until {until}"
        self._cancel_timer()
        if for_s is not None:
            loop = asyncio.get_running_loop()
            self._resume_timer = loop.call_later(for_s, self.resume)
        self._paused = reason
        self._send(Pause(reason=reason))

    def resume(self) -> None:
        """Undo `pause`."""
        self._cancel_timer()
        self._paused = None
        self._send(Resume())

    def finish(self) -> None:
        """Complete the epoch, write a checkpoint and end."""
        if self._leaving is None:
            self._leaving = Trigger.FINISH
        self._follow(Trigger.FINISH, "completing the epoch, as asked")
        self._send(Finish())
        self._wake.set()

    def stop(self) -> None:
        """Write a checkpoint of the last epoch and end; a second call ends at once."""
        if self._leaving is Trigger.STOP:
            if self._worker is not None:
                self._worker.kill()
            return
        self._leaving = Trigger.STOP
        self._follow(Trigger.STOP, "stopping, as asked")
        self._wake.set()
        if self._worker is not None:
            self._stop_worker(self._worker)

    def status(self) -> dict[str, Any]:
        """Return the status as JSON has it."""
        return render(
            self.snapshot,
            Surroundings(
                state=self.state,
                reason=self._words(),
                now_s=self._clock.monotonic_s(),
                unix_time_s=self._clock.now_s(),
                rss_bytes=self.rss_bytes(),
                metrics_url=self.metrics_url,
                run_id=self._run_id,
                pid=os.getpid(),
                worker_pid=self._worker.pid if self._worker else None,
            ),
        )

    def rss_bytes(self) -> Mapping[str, int]:
        """Return the resident memory of our processes."""
        pids = {"supervisor": os.getpid()}
        if self._worker is not None:
            pids["worker"] = self._worker.pid
        sizes = {}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.Error):
                sizes[name] = psutil.Process(pid).memory_info().rss
        return sizes

    # ---- running

    async def run(self, *, paused: bool = False) -> int:
        """Keep a worker running until told to leave; return the daemon's exit code.

        Raises:
            ConfigurationError: The worker cannot run as configured.
        """
        if paused:
            self._paused = "started paused; `ctpeer resume` begins"
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)
        ticking = asyncio.create_task(self._tick())
        try:
            while self._leaving is not Trigger.STOP:
                delay_s = await self._one_worker()
                if delay_s is None:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), delay_s)
                self._wake.clear()
        finally:
            ticking.cancel()
            if self._worker is not None:
                self._worker.kill()
            self._cancel_timer()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            self._save_last_status()
        if self._refused is not None:
            raise ConfigurationError(self._refused)
        return 0

    async def _one_worker(self) -> float | None:
        """Run a worker to its end; return the seconds to wait for the next, or None to leave."""
        self._refused = self._finished = None
        self._out_of_memory = self._hung = False
        self._follow(Trigger.BEGIN, "starting the worker")
        oom_kills = kernel_oom_kills()
        worker = self._worker = await WorkerProcess.start(self._command)
        self._heard_s = self._clock.monotonic_s()
        worker.send(self._begin())
        if self._leaving is Trigger.FINISH:
            worker.send(Finish())
        elif self._leaving is Trigger.STOP:  # asked for while the process was being started
            self._stop_worker(worker)
        tasks = [
            asyncio.create_task(self._log_output(worker)),
            asyncio.create_task(self._watch(worker)),
        ]
        try:
            async for message in worker.messages():
                self._take(message)
            code = await worker.ended()
        finally:
            worker.kill()
            self._worker = None
            for task in tasks:
                task.cancel()
        killed_by_kernel = code == -signal.SIGKILL and kernel_oom_kills() > oom_kills
        return self._judge(code, out_of_memory=self._out_of_memory or killed_by_kernel)

    def _begin(self) -> Begin:
        return Begin(
            home=str(self._home.path),
            run_id=self._run_id,
            paused=self._paused,
            max_epochs=self._max_epochs,
            micro_batch_divisor=self._divisor,
            settings=self._settings.model_dump(mode="json"),
        )

    def _judge(self, code: int, *, out_of_memory: bool) -> float | None:
        """Decide what follows a worker's end."""
        if code == 0 and self._finished is not None:
            self._follow(Trigger.END, self._finished.reason)
            log.info("finished at epoch %d: %s", self._finished.epoch, self._finished.reason)
            return None
        if self._leaving is Trigger.STOP:
            self._follow(Trigger.END, "stopped; the worker did not end by itself and was killed")
            return None
        failure = FailureClass.CRASH
        if code == EXIT_REFUSED:
            failure = FailureClass.CONFIGURATION
        elif self._hung:
            failure = FailureClass.HANG
        elif out_of_memory:
            failure = FailureClass.OUT_OF_MEMORY
        self._deaths.append(Death(failure, self._clock.monotonic_s()))
        self.snapshot.worker_died(failure)
        self.metrics.worker_died(failure)
        decision, reason = decide(self._deaths, self._divisor)
        if isinstance(decision, GiveUp):
            self._refused = self._refused or reason
            self._follow(Trigger.GIVE_UP, self._refused)
            return None
        self._divisor = decision.micro_batch_divisor
        self._follow(Trigger.DIE, f"{reason} ({_ending(code)})")
        log.error("%s (%s)", reason, _ending(code))
        return decision.delay_s

    # ---- listening to the worker

    def _take(self, message: Message | Junk) -> None:
        now_s = self._heard_s = self._clock.monotonic_s()
        if isinstance(message, Junk):
            self.metrics.junk.inc()
            log.warning("the worker said something that makes no sense: %s", message.text[:200])
            return
        self.snapshot.apply(message, now_s)
        self.metrics.apply(message)
        match message:
            case PhaseChanged():
                self._follow(TRIGGER_OF_PHASE[message.phase], message.reason)
            case LogLine():
                level = logging.getLevelNamesMapping().get(message.level, logging.INFO)
                logging.getLogger(message.logger).log(level, "%s", message.text)
            case RoundCommitted():
                self._log_epoch(now_s)
            case Refused():
                self._refused = message.text
            case OutOfMemory():
                self._out_of_memory = True
                log.error("%s", message.text)
            case Finished():
                self._finished = message

    def _log_epoch(self, now_s: float) -> None:
        if now_s - self._epoch_logged_s < _EPOCH_LOG_INTERVAL_S:
            return
        self._epoch_logged_s = now_s
        seen = self.snapshot
        score = f", held-out {seen.evaluated.value:.3f}" if seen.evaluated else ""
        rate = seen.tokens_per_second(now_s)
        log.info("epoch %d, loss %.3f%s, %.0f tokens/s", seen.epoch, seen.loss or 0.0, score, rate)

    async def _log_output(self, worker: WorkerProcess) -> None:
        async for line in worker.output():
            log.info("worker: %s", line)

    async def _watch(self, worker: WorkerProcess) -> None:
        """Kill a worker that says nothing for too long."""
        while True:
            await asyncio.sleep(_TICK_S)
            limits = self._settings.worker
            loading = self.state is State.STARTING
            limit_s = limits.start_timeout_s if loading else limits.hang_timeout_s
            if self._clock.monotonic_s() - self._heard_s > limit_s:
                log.error("the worker said nothing for %.0f s: it is killed", limit_s)
                self._hung = True
                await worker.dump_and_kill()
                return

    # ---- small parts

    def _follow(self, trigger: Trigger, reason: str) -> None:
        self.state, self._reason = follow(self.state, trigger), reason

    def _words(self) -> str:
        """Return the reason for the state, with what a person should know beside it."""
        words = self._reason
        quiet_s = self._clock.monotonic_s() - self._heard_s
        if self._worker is not None and quiet_s > _QUIET_AFTER_S:
            loading = self.state is State.STARTING
            limits = self._settings.worker
            limit_s = limits.start_timeout_s if loading else limits.hang_timeout_s
            words += f"; no word from the worker for {quiet_s:.0f} s"
            words += f" (it is started again after {limit_s:.0f} s)"
        if self.snapshot.checkpoint_problem is not None:
            words += f"; {self.snapshot.checkpoint_problem}"
        return words

    def _stop_worker(self, worker: WorkerProcess) -> None:
        worker.send(Stop())
        timeout_s = self._settings.worker.stop_timeout_s
        asyncio.get_running_loop().call_later(timeout_s, worker.kill)

    def _send(self, message: Message) -> None:
        if self._worker is not None:
            self._worker.send(message)

    def _cancel_timer(self) -> None:
        if self._resume_timer is not None:
            self._resume_timer.cancel()
            self._resume_timer = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if self._clock.monotonic_s() - self._status_saved_s > _LAST_STATUS_INTERVAL_S:
                self._save_last_status()

    def _save_last_status(self) -> None:
        self._status_saved_s = self._clock.monotonic_s()
        fresh = self._home.last_status_path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(self.status()))
            fresh.replace(self._home.last_status_path)
        except OSError as error:
            log.warning("the last status was not kept: %s", error)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _clock_time(unix_time_s: float) -> str:
    return time.strftime("%H:%M", time.localtime(unix_time_s))
