"""What the worker says and prints, taken into the counters, the log, and what is known of it."""

import logging

from peer.clock import Clock
from peer.daemon.life import Life
from peer.daemon.lifecycle import TRIGGER_OF_PHASE, Course
from peer.daemon.process import Junk, WorkerProcess
from peer.daemon.vitals import Vitals
from peer.events import (
    BranchLeft,
    Finished,
    Loaded,
    LogLine,
    Message,
    MicroBatchChanged,
    OutOfMemory,
    PhaseChanged,
    Refused,
    RoundCommitted,
    WorkRepeated,
)
from peer.observe.metrics import Metrics
from peer.observe.status import Snapshot

log = logging.getLogger(__name__)

_EPOCH_LOG_INTERVAL_S = 10.0


class Hearing:
    """Takes in what each worker says.

    Args:
        snapshot: The sum of it, over all workers.
        metrics: Its counts.
        vitals: When it came.
        course: Follows the worker's phases.
        clock: The time.
    """

    def __init__(
        self, snapshot: Snapshot, metrics: Metrics, vitals: Vitals, course: Course, clock: Clock
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._vitals = vitals
        self._course = course
        self._clock = clock
        self._epoch_logged_s = -_EPOCH_LOG_INTERVAL_S

    def take(self, message: Message | Junk, life: Life) -> None:
        """Take in what the worker with that `life` said."""
        now_s = self._clock.monotonic_s()
        if isinstance(message, Junk):
            self._vitals.hear(now_s)
            self._metrics.message_refused()
            log.warning("the worker said something that makes no sense: %s", message.text[:200])
            return
        self._vitals.take(message, now_s)
        self._snapshot.apply(message, now_s)
        self._metrics.apply(message)
        match message:
            case PhaseChanged():
                self._course.follow(TRIGGER_OF_PHASE[message.phase], message.reason)
            case Loaded():
                life.loaded, life.micro_batch = True, message.micro_batch
            case MicroBatchChanged():
                life.micro_batch = message.samples_after
                log.warning(
                    "the micro-batch is %d instead of %d: %s",
                    message.samples_after,
                    message.samples_before,
                    message.reason,
                )
            case Finished():
                life.finished = message
            case Refused():
                life.refused = message.text
            case OutOfMemory():
                life.out_of_memory = True
                log.error("%s", message.text)
            case RoundCommitted():
                self._log_epoch(now_s)
            case _:
                _log(message)

    def count_death(self, failure: str) -> None:
        """Count a worker's death of class `failure`."""
        self._snapshot.worker_died(failure)
        self._metrics.worker_died(failure)

    async def log_output(self, worker: WorkerProcess) -> None:
        """Log what the worker and its libraries print, until they end."""
        async for line in worker.output():
            log.info("worker: %s", line)

    def _log_epoch(self, now_s: float) -> None:
        if now_s - self._epoch_logged_s < _EPOCH_LOG_INTERVAL_S:
            return
        self._epoch_logged_s = now_s
        seen = self._snapshot
        loss = f"loss {seen.loss:.3f}" if seen.loss is not None else "no loss of its own yet"
        score = f", held-out {seen.evaluated.value:.3f}" if seen.evaluated else ""
        rate = seen.tokens_per_second(now_s)
        log.info("epoch %d, %s%s, %.0f tokens/s", seen.epoch, loss, score, rate)


def _log(message: Message) -> None:
    """Log what a person should read of `message`, if that is anything."""
    match message:
        case LogLine():
            level = logging.getLevelNamesMapping().get(message.level, logging.INFO)
            logging.getLogger(message.logger).log(level, "%s", message.text)
        case BranchLeft():
            log.warning(
                "went over to epoch %d of the run's state (%s); %d epochs of ours are lost",
                message.epoch,
                message.reason,
                message.lost_epochs,
            )
        case WorkRepeated():
            log.warning("%d tokens of lost work are trained on again", message.tokens)
