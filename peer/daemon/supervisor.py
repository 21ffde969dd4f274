"""The supervisor: keeps a worker running, and answers for it whatever the worker does.

It loads neither torch nor hivemind. It owns the state, the counters, the signals and the log; the
worker owns the model. Everything runs in one asyncio loop.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil

from peer.clock import Clock
from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.beside import beside
from peer.daemon.hearing import Hearing
from peer.daemon.herald import Herald
from peer.daemon.keepsakes import load_history, save_history, save_status
from peer.daemon.lifecycle import Course, State, Trigger
from peer.daemon.pauses import Pauses
from peer.daemon.process import WORKER_COMMAND
from peer.daemon.restart import FailureClass
from peer.daemon.senses import Senses
from peer.daemon.succession import Succession
from peer.daemon.vitals import Vitals
from peer.daemon.watch import Watch
from peer.errors import ConfigurationError, UsageError
from peer.events import Begin, Pause, Resume, RoundFailure
from peer.observe.metrics import Metrics
from peer.observe.notify import ServiceManager
from peer.observe.status import Snapshot, Surroundings, render
from peer.run.invite import Invite, dump_invite
from peer.swarm.records import Refusal

log = logging.getLogger(__name__)

_TICK_S = 0.5
_QUIET_AFTER_S = 10.0
_STATUS_KEPT_EVERY_S = 10.0
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
        self.metrics = Metrics(State, RoundFailure, FailureClass, Refusal)
        self.metrics_url = ""
        self.page_url: str | None = None
        self.snapshot = Snapshot(clock.monotonic_s())
        self._course = Course()
        self._herald = Herald(ServiceManager())
        self._pauses = Pauses(settings.pause, clock)
        self._senses = Senses(home, settings)
        vitals = Vitals(clock.monotonic_s())
        self._watch = Watch(settings, self._herald.watchdog_s, self._course, vitals, clock)
        self._workers = Succession(
            command,
            self._begin,
            settings.worker.stop_timeout_s,
            self._course,
            Hearing(self.snapshot, self.metrics, vitals, self._course, clock),
            self._watch,
            clock,
        )
        self._failing: set[str] = set()

    # ---- what others ask for

    def pause(self, reason: str, for_s: float | None = None) -> None:
        """Pause, until `resume` or for `for_s`; kept over restarts of the worker.

        Raises:
            ValueError: The daemon is about to end.
        """
        if self._workers.leaving is not None:
            raise ValueError(f"the daemon is {self.state} and will end; there is nothing to pause")
        self._pauses.say(reason, for_s)
        self._tell_pause()

    def resume(self) -> None:
        """Undo `pause`, and overrule what the machine asks for just now."""
        self._pauses.resume()
        self._tell_pause()

    def _tell_pause(self) -> None:
        reason = self._pauses.reason
        self._workers.send(Pause(reason=reason) if reason is not None else Resume())

    def finish(self) -> None:
        """Complete the epoch, write a checkpoint and end."""
        self._workers.finish()

    def stop(self) -> None:
        """Write a checkpoint of the last epoch and end."""
        if self._workers.leaving is not Trigger.STOP:
            log.info("stopping, as asked")
            self._workers.stop()
            self._herald.stop(self._settings.worker.stop_timeout_s)

    def interrupt(self) -> None:
        """Stop; at the second time, end at once without a checkpoint."""
        if self._workers.leaving is Trigger.STOP and self._workers.kill():
            log.warning("interrupted twice: the worker is killed")
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
                worker_pid=self._workers.pid,
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
    def state(self) -> State:
        """What the daemon does."""
        return self._course.state

    @property
    def paused(self) -> str | None:
        """Why it is to be paused, whatever the worker does; None if it is not."""
        return self._pauses.reason

    @property
    def quiet_s(self) -> float | None:
        """How long the worker has said nothing, if that is longer than it should be."""
        quiet_s, _ = self._watch.silence_s()
        return quiet_s if self._workers.pid is not None and quiet_s > _QUIET_AFTER_S else None

    def commits(self) -> list[dict[str, Any]]:
        """Return the last certificates that the worker took in, oldest first."""
        return [dataclasses.asdict(commit) for commit in self.snapshot.commits]

    def rss_bytes(self) -> Mapping[str, int]:
        """Return the resident memory of our processes."""
        pids = {"supervisor": os.getpid()}
        if self._workers.pid is not None:
            pids["worker"] = self._workers.pid
        sizes = {}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.Error):
                sizes[name] = psutil.Process(pid).memory_info().rss
        return sizes

    # ---- running

    async def run(self, *, paused: bool = False) -> int:
        """Keep a worker running until told to leave.

        Returns:
            The daemon's exit code: 1 if the last epoch is not on the disk, or if we failed.

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
        try:
            async with beside(self._tick(), self._sense(), self._keep_status()):
                return await self._workers.run()
        except ConfigurationError:
            raise
        except Exception as error:
            # Not on to our caller, to whom some exceptions mean that another start is of no use.
            log.exception("the supervisor failed, and the daemon ends")
            self._course.follow(Trigger.BREAK, f"the supervisor failed: {error!r}")
            return 1
        finally:
            self._herald.stop(self._settings.worker.stop_timeout_s)
            self._workers.kill()
            for number in handlers:
                loop.remove_signal_handler(number)
            self._save_status()
            log.info("%s: %s", self.state, self._course.reason)

    def _begin(self, micro_batch_divisor: int) -> Begin:
        return Begin(
            home=str(self._home.path),
            run_id=self._run_id,
            paused=self._pauses.reason,
            max_epochs=self._max_epochs,
            hold=self._hold,
            addresses=self._addresses,
            micro_batch_divisor=micro_batch_divisor,
            settings=self._settings.model_dump(mode="json"),
        )

    # ---- what goes on beside it

    async def _tick(self) -> None:
        """End pauses whose time is over, and tell the service manager how we are."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self._pauses.expire():
                self._tell_pause()
            self._herald.tell(
                self._clock.monotonic_s(),
                ready=self.snapshot.loaded is not None or self.state is State.PAUSED,
                words=self._line(),
                pulse=self._watch.pulse()[0],
            )

    async def _sense(self) -> None:
        """Pause and resume by what the settings ask for of the machine."""
        while self._senses.needed:
            await asyncio.sleep(_SENSE_S)
            await self._look_around()

    async def _look_around(self) -> None:
        before = self._pauses.reason
        with self._surviving("senses"):
            self._pauses.heed(await asyncio.to_thread(self._senses.look))
        if (reason := self._pauses.reason) != before:
            log.info("%s", f"paused: {reason}" if reason else "nothing asks to pause any more")
            if self._workers.leaving is None:
                self._tell_pause()

    async def _keep_status(self) -> None:
        """Keep the status on the disk, for whoever asks when we are gone."""
        while True:
            self._save_status()
            await asyncio.sleep(_STATUS_KEPT_EVERY_S)

    def _save_status(self) -> None:
        with self._surviving("status"):
            # Whoever may read the home may not command: the page's address holds its key.
            save_status(self._home.last_status_path, self.status() | {"page_url": None})
            save_history(self._home.history_path, self._run_id, self.snapshot.history)

    @contextlib.contextmanager
    def _surviving(self, part: str) -> Iterator[None]:
        """Count a failure of a part that training can do without, and say it once in a row."""
        try:
            yield
        except Exception:
            self.metrics.part_failed(part)
            if part not in self._failing:
                log.exception("a part of the supervisor failed (%s), and is tried again", part)
            self._failing.add(part)
        else:
            self._failing.discard(part)

    # ---- small parts

    def _words(self) -> str:
        """Return the reason for the state, with what a person should know beside it."""
        words = self._course.reason
        if self.quiet_s is not None:
            quiet_s, limit_s = self._watch.silence_s()
            words += f"; no word from the worker for {quiet_s:.0f} s"
            words += f" (it is killed after {limit_s:.0f} s)"
        if self._pauses.reason is not None and self.state is State.RESTARTING:
            words += f"; {self._pauses.reason}"
        if self.snapshot.checkpoint_problem is not None:
            words += f"; {self.snapshot.checkpoint_problem}"
        return words

    def _line(self) -> str:
        """Return what a service manager shows of us."""
        epoch = f"; epoch {self.snapshot.epoch}" if self.snapshot.loaded is not None else ""
        return f"{self.state}: {self._words()}{epoch}"
