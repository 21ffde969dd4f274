"""The supervisor: keeps a worker running, and answers for it whatever the worker does.

It loads neither torch nor hivemind. It owns the state, the counters, the signals and the log; the
worker owns the model. Everything runs in one asyncio loop.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from peer.clock import Clock
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.curves import load_history, save_history
from peer.daemon.herald import Herald
from peer.daemon.lifecycle import TRIGGER_OF_PHASE, State, Trigger, follow
from peer.daemon.memory_watch import MemoryWatch
from peer.daemon.pauses import Pauses
from peer.daemon.process import EXIT_NETWORK, WORKER_COMMAND, Junk, WorkerProcess, kernel_oom_kills
from peer.daemon.restart import Death, FailureClass, GiveUp, decide
from peer.daemon.senses import Senses
from peer.daemon.vitals import Patience, Pulse, Vitals, judge
from peer.errors import ConfigurationError, UsageError
from peer.events import (
    Begin,
    BranchLeft,
    Finish,
    Finished,
    Loaded,
    LogLine,
    Message,
    MicroBatchChanged,
    OutOfMemory,
    Pause,
    PhaseChanged,
    Refused,
    Resume,
    RoundCommitted,
    RoundFailure,
    Stop,
    WorkRepeated,
)
from peer.observe.metrics import Metrics
from peer.observe.notify import ServiceManager
from peer.observe.status import Snapshot, Surroundings, render
from peer.run.invite import Invite, dump_invite
from peer.swarm.records import Refusal

log = logging.getLogger(__name__)

_TICK_S = 0.5
_SURE_AFTER_TICKS = 4
"""How often in a row a worker must seem to hang: what it said while we slept comes in first."""
_QUIET_AFTER_S = 10.0
_LAST_STATUS_INTERVAL_S = 10.0
_EPOCH_LOG_INTERVAL_S = 10.0
_STOPPING_SILENCE_S = 5.0
"""How long a worker that was told to stop may say nothing; a checkpoint under way speaks."""
_FROZEN_S = 10.0
_DEATHS_KEPT = 32
_SENSE_S = 5.0


class Supervisor:
    """Runs one run's worker until told to leave.

    Args:
        home: Where everything lies; locked by the caller.
        settings: The volunteer's choices.
        run_id: The run, already in the home.
        addresses: Where an invite says that its peers are.
        max_epochs: Where to end, or None.
        hold: Whether to stay and serve then.
        clock: The time.
        command: How to start a worker.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        run_id: str,
        *,
        addresses: tuple[str, ...] = (),
        max_epochs: int | None,
        hold: bool = False,
        clock: Clock,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._home = home
        self._settings = settings
        self._run_id = run_id
        self._addresses = addresses
        self._max_epochs = max_epochs
        self._hold = hold
        self._clock = clock
        self._command = command
        self.metrics = Metrics(State, RoundFailure, FailureClass, Refusal)
        self.metrics_url = ""
        self.page_url: str | None = None
        self.snapshot = Snapshot(clock.monotonic_s())
        self.state = State.RESTARTING
        self._reason = "starting"
        self._worker: WorkerProcess | None = None
        self._vitals = Vitals(clock.monotonic_s())
        self._herald = Herald(ServiceManager())
        self._deaths: list[Death] = []
        self._divisor = 1
        self._pauses = Pauses(settings.pause, clock)
        self._senses = Senses(home, settings)
        self._memory = MemoryWatch(settings.limits.memory_bytes)
        self._over_limit: str | None = None
        self._began = False  # the present worker has loaded the model
        self._leaving: Trigger | None = None
        self._wake = asyncio.Event()
        self._refused: str | None = None
        self._finished: Finished | None = None
        self._unsaved = False
        self._out_of_memory = False
        self._hung = False
        self._status_saved_s = self._epoch_logged_s = -_LAST_STATUS_INTERVAL_S

    # ---- what others ask for

    def pause(self, reason: str, for_s: float | None = None) -> None:
        """Pause, until `resume` or for `for_s`; kept over restarts of the worker.

        Raises:
            ValueError: The daemon is about to end.
        """
        if self._leaving is not None:
            raise ValueError(f"the daemon is {self.state} and will end; there is nothing to pause")
        self._pauses.say(reason, for_s)
        self._tell_pause()

    def resume(self) -> None:
        """Undo `pause`, and overrule what the machine asks for just now."""
        self._pauses.resume()
        self._tell_pause()

    def _tell_pause(self) -> None:
        reason = self._pauses.reason
        self._send(Pause(reason=reason) if reason is not None else Resume())

    def finish(self) -> None:
        """Complete the epoch, write a checkpoint and end."""
        if self._leaving is None:
            self._leaving = Trigger.FINISH
        self._follow(Trigger.FINISH, "completing the epoch, as asked")
        self._send(Finish())
        self._wake.set()

    def stop(self) -> None:
        """Write a checkpoint of the last epoch and end."""
        if self._leaving is Trigger.STOP:
            return
        self._leaving = Trigger.STOP
        log.info("stopping, as asked")
        self._follow(Trigger.STOP, "stopping, as asked")
        self._herald.stop(self._settings.worker.stop_timeout_s)
        self._wake.set()
        if self._worker is not None:
            self._stop_worker(self._worker)

    def interrupt(self) -> None:
        """Stop; at the second time, end at once without a checkpoint."""
        if self._leaving is Trigger.STOP and self._worker is not None:
            log.warning("interrupted twice: the worker is killed")
            self._worker.kill()
        self.stop()

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
                page_url=self.page_url,
                run_id=self._run_id,
                role=self._settings.validation.role,
                pid=os.getpid(),
                worker_pid=self._worker.pid if self._worker else None,
                invite=self._invite(),
                disk_free_bytes=self._home.disk_free_bytes(),
                pause=self._pauses.describe(),
                limits=self._settings.limits.model_dump(mode="json")
                | {"threads": self._settings.compute.threads},
            ),
        )

    def _invite(self) -> str | None:
        seen = self.snapshot.peers
        if seen is None or not seen.addresses:
            return None
        # Others are named, too: the invite is to be good when this peer is not there.
        there = (p["address"] for p in seen.peers if p["state"] != "unreachable" and p["address"])
        with contextlib.suppress(UsageError):  # no address that others could dial
            return dump_invite(Invite.of(self._run_id, (*seen.addresses[:4], *there)))
        return None

    @property
    def paused(self) -> str | None:
        """Why it is to be paused, whatever the worker does; None if it is not."""
        return self._pauses.reason

    @property
    def quiet_s(self) -> float | None:
        """How long the worker has said nothing, if that is longer than it should be."""
        quiet_s = self._vitals.signs(self.state, self._clock.monotonic_s()).silent_s
        return quiet_s if self._worker is not None and quiet_s > _QUIET_AFTER_S else None

    def commits(self) -> list[dict[str, Any]]:
        """Return the last certificates that the worker took in, oldest first."""
        return [dataclasses.asdict(commit) for commit in self.snapshot.commits]

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
        """Keep a worker running until told to leave.

        Returns:
            The daemon's exit code: 1 if the last epoch is not on the disk.

        Raises:
            ConfigurationError: The worker cannot run as configured.
        """
        if paused:
            self._pauses.say("started paused; `ctpeer resume` begins")
        self.snapshot.history = load_history(self._home.history_path, self._run_id)
        if self._senses.needed:
            await self._look_around()
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self.stop,
            signal.SIGHUP: self.stop,
            signal.SIGINT: self.interrupt,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        ticking = asyncio.create_task(self._tick())
        sensing = asyncio.create_task(self._sense())
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
            sensing.cancel()
            self._herald.stop(self._settings.worker.stop_timeout_s)
            if self._worker is not None:
                self._worker.kill()
            for number in handlers:
                loop.remove_signal_handler(number)
            self._save_last_status()
        log.info("%s: %s", self.state, self._reason)
        if self._refused is not None:
            raise ConfigurationError(self._refused)
        return 1 if self._unsaved else 0

    async def _one_worker(self) -> float | None:
        """Run a worker to its end; return the seconds to wait for the next, or None to leave."""
        self._refused = self._finished = None
        self._out_of_memory = self._hung = self._began = False
        self._over_limit = None
        self._follow(Trigger.BEGIN, "starting the worker")
        oom_kills = kernel_oom_kills()
        worker = self._worker = await WorkerProcess.start(self._command)
        self._vitals.begin(self._clock.monotonic_s())
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
            paused=self._pauses.reason,
            max_epochs=self._max_epochs,
            hold=self._hold,
            addresses=self._addresses,
            micro_batch_divisor=self._divisor,
            settings=self._settings.model_dump(mode="json"),
        )

    def _judge(self, code: int, *, out_of_memory: bool) -> float | None:
        """Decide what follows a worker's end."""
        if code == 0 and self._finished is not None:
            self._unsaved = not self._finished.saved
            self._follow(Trigger.END, self._finished.reason)
            log.info("finished at epoch %d: %s", self._finished.epoch, self._finished.reason)
            return None
        if self._leaving is Trigger.STOP:
            self._unsaved = True
            self._follow(Trigger.END, f"stopped; the worker did not end well ({_ending(code)})")
            return None
        failure = FailureClass.CRASH
        if code == ConfigurationError.exit_code:
            failure = FailureClass.CONFIGURATION
        elif code == EXIT_NETWORK:
            failure = FailureClass.NETWORK
        elif self._hung:
            failure = FailureClass.HANG
        elif self._over_limit is not None and (not self._began or self.snapshot.micro_batch <= 1):
            failure = FailureClass.CONFIGURATION
            when = "with no smaller micro-batch left"
            if not self._began:
                when = "before it trained anything"
            self._refused = f"{self._over_limit}, {when}; raise limits.memory_mb"
        elif out_of_memory or self._over_limit is not None:
            failure = FailureClass.OUT_OF_MEMORY
        self._deaths = [*self._deaths[-_DEATHS_KEPT:], Death(failure, self._clock.monotonic_s())]
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

    def _take(self, message: Message | Junk) -> None:  # noqa: C901 one case a message
        now_s = self._clock.monotonic_s()
        if isinstance(message, Junk):
            self._vitals.hear(now_s)
            self.metrics.message_refused()
            log.warning("the worker said something that makes no sense: %s", message.text[:200])
            return
        self._vitals.take(message, self.state, now_s)
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
            case MicroBatchChanged():
                log.warning(
                    "the micro-batch is %d instead of %d: %s",
                    message.samples_after,
                    message.samples_before,
                    message.reason,
                )
            case BranchLeft():
                log.warning(
                    "went over to epoch %d of the run's state (%s); %d epochs of ours are lost",
                    message.epoch,
                    message.reason,
                    message.lost_epochs,
                )
            case WorkRepeated():
                log.warning("%d tokens of lost work are trained on again", message.tokens)
            case Refused():
                self._refused = message.text
            case OutOfMemory():
                self._out_of_memory = True
                log.error("%s", message.text)
            case Finished():
                self._finished = message
            case Loaded():
                self._began = True

    def _log_epoch(self, now_s: float) -> None:
        if now_s - self._epoch_logged_s < _EPOCH_LOG_INTERVAL_S:
            return
        self._epoch_logged_s = now_s
        seen = self.snapshot
        loss = f"loss {seen.loss:.3f}" if seen.loss is not None else "no loss of its own yet"
        score = f", held-out {seen.evaluated.value:.3f}" if seen.evaluated else ""
        rate = seen.tokens_per_second(now_s)
        log.info("epoch %d, %s%s, %.0f tokens/s", seen.epoch, loss, score, rate)

    async def _log_output(self, worker: WorkerProcess) -> None:
        async for line in worker.output():
            log.info("worker: %s", line)

    async def _watch(self, worker: WorkerProcess) -> None:
        """Kill a worker that says nothing for too long, or whose DHT or training stands still."""
        ticks, looked_s = 0, self._clock.monotonic_s()
        while True:
            await asyncio.sleep(_TICK_S)
            slept_s = self._clock.monotonic_s() - looked_s
            looked_s += slept_s
            if slept_s > _FROZEN_S:  # with the machine, or by SIGSTOP; so was the worker
                self._vitals.sleep(slept_s)
            pulse, why = self._pulse()
            ticks = ticks + 1 if pulse is Pulse.HUNG else 0
            if ticks >= _SURE_AFTER_TICKS:
                log.error("%s: it is killed", why)
                self._hung = True
                await worker.dump_and_kill()
                return
            if (over := await self._memory.look(worker.pid)) is not None:
                log.error("%s: it is killed", over)
                self._over_limit = over
                worker.kill()
                return

    def _pulse(self) -> tuple[Pulse, str]:
        limits = self._settings.worker
        patience = Patience(
            silence_s=self._silence_limit_s(),
            still_s=limits.hang_timeout_s,
            start_s=limits.start_timeout_s,
        )
        return judge(self._vitals.signs(self.state, self._clock.monotonic_s()), patience)

    def _silence_limit_s(self) -> float:
        """Return how long the worker may say nothing at present."""
        limits = self._settings.worker
        if self._leaving is Trigger.STOP:
            return _STOPPING_SILENCE_S
        if self.state is State.STARTING:
            return limits.start_timeout_s
        # A watchdog is there to see a hang within its time: the worker's, too.
        return min(limits.hang_timeout_s, self._herald.watchdog_s or limits.hang_timeout_s)

    # ---- small parts

    def _follow(self, trigger: Trigger, reason: str) -> None:
        self.state, self._reason = follow(self.state, trigger), reason

    def _words(self) -> str:
        """Return the reason for the state, with what a person should know beside it."""
        words = self._reason
        if (quiet_s := self.quiet_s) is not None:
            words += f"; no word from the worker for {quiet_s:.0f} s"
            words += f" (it is killed after {self._silence_limit_s():.0f} s)"
        if self._pauses.reason is not None and self.state is State.RESTARTING:
            words += f"; {self._pauses.reason}"
        if self.snapshot.checkpoint_problem is not None:
            words += f"; {self.snapshot.checkpoint_problem}"
        return words

    def _line(self) -> str:
        """Return what a service manager shows of us."""
        epoch = f"; epoch {self.snapshot.epoch}" if self.snapshot.loaded is not None else ""
        return f"{self.state}: {self._words()}{epoch}"

    def _stop_worker(self, worker: WorkerProcess) -> None:
        worker.send(Stop())
        timeout_s = self._settings.worker.stop_timeout_s
        asyncio.get_running_loop().call_later(timeout_s, worker.kill)

    def _send(self, message: Message) -> None:
        if self._worker is not None:
            self._worker.send(message)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if self._pauses.expire():
                self._tell_pause()
            if self._clock.monotonic_s() - self._status_saved_s > _LAST_STATUS_INTERVAL_S:
                self._save_last_status()
            self._herald.tell(
                self._clock.monotonic_s(),
                ready=self.snapshot.loaded is not None or self.state is State.PAUSED,
                words=self._line(),
                pulse=self._pulse()[0],
            )

    async def _sense(self) -> None:
        """Pause and resume by what the settings ask for of the machine."""
        while self._senses.needed:
            await asyncio.sleep(_SENSE_S)
            await self._look_around()

    async def _look_around(self) -> None:
        before = self._pauses.reason
        self._pauses.heed(await asyncio.to_thread(self._senses.look))
        if (reason := self._pauses.reason) != before:
            log.info("%s", f"paused: {reason}" if reason else "nothing asks to pause any more")
            if self._leaving is None:
                self._tell_pause()

    def _save_last_status(self) -> None:
        self._status_saved_s = self._clock.monotonic_s()
        fresh = self._home.last_status_path.with_suffix(".new")
        try:
            # Whoever may read the home may not command: the page's address holds its key.
            fresh.write_text(json.dumps(self.status() | {"page_url": None}))
            fresh.replace(self._home.last_status_path)
        except OSError as error:
            log.warning("the last status was not kept: %s", error)
        save_history(self._home.history_path, self._run_id, self.snapshot.history)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
