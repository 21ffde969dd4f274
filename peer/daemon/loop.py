"""The training loop: work, average, save, evaluate, until there is a reason to leave."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from peer import __version__
from peer.checkpoint.annotation import Ancestor
from peer.checkpoint.descent import Descent
from peer.checkpoint.format import Checkpoint
from peer.checkpoint.journal import Journal, Work
from peer.checkpoint.store import CheckpointStore
from peer.clock import Clock
from peer.config.settings import Settings
from peer.daemon.orders import Orders
from peer.daemon.pace import Pace
from peer.daemon.saving import Saver
from peer.daemon.validation import Validation
from peer.errors import NetworkLostError
from peer.events import (
    BranchLeft,
    Evaluated,
    Finished,
    Heartbeat,
    Message,
    Phase,
    PhaseChanged,
    RolledBack,
    RootComputed,
    RoundCommitted,
    RoundFailed,
)
from peer.tasks.task import HeldOutRows, Task
from peer.training.certificate import Base, Certificate
from peer.training.contribution import Contribution, Tally
from peer.training.memory import is_out_of_memory
from peer.training.round import Committed, Failed, Replaced, Rounds, Waiting
from peer.training.state import GlobalState
from peer.training.trainer import Trainer
from peer.validation.course import Restart

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_HEARTBEAT_S = 1.0
_LONGEST_FAILURE_PAUSE_S = 10.0
_BESIDE_TIMEOUT_S = 600.0
_JOIN_PAUSE_S = 0.5
_EVALUATION_SHARE = 50
"""Evaluation takes at most one part in this many of the time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop drives."""

    run_id: str
    manifest_hash: str
    settings: Settings
    task: Task
    trainer: Trainer
    rounds: Rounds
    validation: Validation
    store: CheckpointStore
    journal: Journal
    heldout: HeldOutRows
    clock: Clock
    emit: Callable[[Message], None]


class _InterruptedError(Exception):
    """An order came that an evaluation must not keep waiting."""


class TrainingLoop:
    """Drives a trainer through epochs.

    Hashing and writing the global state run in one thread beside the next epoch's work; the next
    outer step, which changes that state in place, waits for them.
    """

    def __init__(self, parts: Parts, resumed: Checkpoint | None) -> None:
        self._parts = parts
        self._trainer = parts.trainer
        self._generation = resumed.generation if resumed else 0
        self._certificate = resumed.certificate if resumed else None
        parent = Ancestor(resumed.state.epoch, resumed.state_root) if resumed else None
        self._descent = Descent(parent)
        self._root: Future[str]
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pace = Pace()
        led_by = Certificate.from_json(self._certificate) if self._certificate else None
        self._start_root(led_by)
        self._save: Future[None] | None = None
        interval_s = parts.settings.checkpoint.interval_s
        self._saver = Saver(parts.store, interval_s, parts.clock, parts.emit, self._note_saved)
        if resumed is not None:
            self._saver.saved_epoch = resumed.state.epoch
        self._evaluate_due_s = 0.0
        self._evaluated_epoch = -1
        self._beaten_s = 0.0
        self._failures, self._failing = 0, ""

    def run(self, orders: Orders, max_epochs: int | None, *, hold: bool = False) -> Finished:
        """Train until a command or `max_epochs` says to leave; the last epoch is on the disk.

        Args:
            orders: The commands.
            max_epochs: The last epoch, or None.
            hold: Whether to stay and serve others when it is complete.

        Raises:
            NetworkLostError: The network died; the last epoch is on the disk then, too.
        """
        try:
            return self._run(orders, max_epochs, hold=hold)
        except NetworkLostError:
            self._save_now()
            raise

    def _run(self, orders: Orders, max_epochs: int | None, *, hold: bool) -> Finished:
        self._beside_result(self._root)
        self._parts.rounds.start()
        while True:
            reason = self._train(orders, max_epochs)
            leaves = orders.leave_now is not None or orders.leave_after_epoch
            if leaves or not hold or self._hold(orders, reason):
                return self._leave(orders, reason)

    def _train(self, orders: Orders, max_epochs: int | None) -> str:
        """Train until there is a reason to leave, and return it."""
        while max_epochs is None or self._trainer.state.epoch < max_epochs:
            if orders.leave_now is not None:
                return orders.leave_now
            if orders.paused is not None:
                self._sit_out(orders)
                continue
            if self._heed_verdicts(orders):
                if orders.leave_after_epoch and self._parts.validation.restart is not None:
                    return "asked to finish, and the last good state cannot be had"
                continue
            if self._parts.rounds.behind:
                self._catch_up(orders, max_epochs)
                continue
            self._evaluate_if_due(orders)
            self._enter(Phase.TRAINING, f"gathering the epoch's batch{self._failing}")
            self._pace.begin(self._trainer.tally.weight, self._parts.clock.monotonic_s())
            if not self._trainer.work(lambda: self._interrupted(orders), self._wanted):
                continue
            committed = self._average(orders)
            if orders.leave_after_epoch:
                what = "the epoch is complete" if committed else "the last round failed"
                return f"asked to finish, and {what}"
            if committed:
                self._save_if_due()
            else:
                orders.wait(self._failure_pause_s())
        return f"epoch {max_epochs}, the last one asked for, is complete"

    def _hold(self, orders: Orders, reason: str) -> bool:
        """Serve others what we have until somebody says to leave.

        Returns:
            False if there is more to train: what we held was judged to be bad.
        """
        self._save_now()
        self._evaluate_if_due(orders)
        self._parts.rounds.rest(resting=True)
        while orders.leave_now is None and not orders.leave_after_epoch:
            if self._heed_verdicts(orders):
                self._parts.rounds.rest(resting=False)
                return False
            if self._parts.rounds.behind:  # a fork in the last epoch
                self._catch_up(orders)
            self._enter(Phase.HOLDING, f"{reason}; serving others")
            self._parts.rounds.gather(0, 0.0)
            orders.wait(_HEARTBEAT_S)
        return True

    def _interrupted(self, orders: Orders) -> bool:
        """Note how far this peer is, and return whether to stop between two micro-batches."""
        trainer, rounds = self._trainer, self._parts.rounds
        self._parts.journal.record(Work(trainer.samples_total, trainer.tokens_total))
        weight = trainer.tally.weight
        rounds.gather(weight, self._pace.rate(weight, self._parts.clock.monotonic_s()))
        return self._distracted(orders) or rounds.behind

    def _distracted(self, orders: Orders) -> bool:
        """Return whether there is something better to do than to wait for others."""
        return orders.interrupted() or self._parts.validation.restart is not None

    def _wanted(self) -> bool:
        return self._parts.rounds.wanted

    def _average(self, orders: Orders) -> bool:
        """Run a round; return whether it led to the next epoch."""
        self._enter(Phase.AVERAGING, f"a round on epoch {self._trainer.state.epoch}")
        started_s = self._parts.clock.monotonic_s()
        base = self._base()
        contribution = self._trainer.contribution(base.state_root)
        gathered_s = self._parts.clock.monotonic_s()
        match self._parts.rounds.run(base, contribution, lambda: self._distracted(orders)):
            case Failed() as failed:
                self._note_failure(failed, contribution)
                if not failed.keep:
                    self._trainer.discard()
                return False
            case Committed() as committed:
                self._commit(committed, gather_s=gathered_s - started_s)
        return True

    def _catch_up(self, orders: Orders, max_epochs: int | None = None) -> None:
        """Take in what others committed without us, up to `max_epochs`."""
        rounds, trainer = self._parts.rounds, self._trainer
        while rounds.behind and not self._distracted(orders):
            if max_epochs is not None and trainer.state.epoch >= max_epochs:
                return
            self._enter(Phase.JOINING, f"others are beyond epoch {trainer.state.epoch}")
            match rounds.catch_up(self._base(), lambda: self._distracted(orders)):
                case Committed() as committed:
                    self._commit(committed)
                case Replaced() as replaced:
                    self._replace(replaced)
                case Waiting(reason=reason):
                    self._enter(Phase.JOINING, reason)
                    orders.wait(_JOIN_PAUSE_S)
                case None:
                    return

    def _base(self) -> Base:
        root = self._beside_result(self._root)
        return Base(self._parts.run_id, self._generation, self._trainer.state.epoch, root)

    def _commit(self, committed: Committed, gather_s: float = 0.0) -> None:
        """Take a certified average into the state, whoever made it."""
        trainer, clock = self._trainer, self._parts.clock
        averaged_s = clock.monotonic_s()
        self._wait_for_save()
        inside, done = trainer.inside(committed), trainer.tally
        kept = inside or Tally()
        trainer.commit(
            committed, self._parts.validation.halved(self._generation, trainer.state.epoch)
        )
        phases = dict(committed.seconds_by_phase)
        if phases:
            phases |= {"gather": gather_s, "outer_step": clock.monotonic_s() - averaged_s}
        self._failures, self._failing = 0, ""
        self._certificate = committed.certificate.to_json()
        self._descent.advance(committed.certificate)
        self._start_root(committed.certificate)
        if self._parts.validation.due(trainer.state.epoch):
            self._start_save()
        entries = committed.certificate.vote.entries
        self._parts.emit(
            RoundCommitted(
                epoch=trainer.state.epoch,
                generation=self._generation,
                loss_terms={entry.peer_id: entry.weight for entry in entries},
                loss=inside.loss if inside else None,
                seconds_by_phase=phases,
                dropped_samples=done.samples - kept.samples,
                dropped_tokens=done.tokens - kept.tokens,
            )
        )

    def _replace(self, replaced: Replaced) -> None:
        """Go over to the state that the run holds."""
        dropped = self._trainer.tally
        self._go_on_from(replaced.state, replaced.led_by)
        self._parts.emit(
            BranchLeft(
                reason=replaced.reason,
                epoch=replaced.state.epoch,
                lost_epochs=replaced.lost_epochs,
                lost_weight=replaced.lost_weight,
                dropped_samples=dropped.samples,
                dropped_tokens=dropped.tokens,
            )
        )

    def _heed_verdicts(self, orders: Orders) -> bool:
        """Do what verdicts say; return whether one says to go on from another state."""
        validation = self._parts.validation
        for root, verdict in validation.accepted().items():
            self._beside.submit(self._annotate_accepted, root, verdict)
        where = validation.restart
        if where is not None:
            self._roll_back(where, orders)
        return where is not None

    def _roll_back(self, where: Restart, orders: Orders) -> None:
        """Go on from the last good state, in its generation."""
        self._enter(Phase.JOINING, where.reason)
        state = self._parts.validation.find(where, orders.interrupted)
        if state is None:
            self._enter(Phase.JOINING, f"{where.reason}; waiting for a peer that offers that state")
            orders.wait(_JOIN_PAUSE_S)
            return
        if self._parts.validation.restart != where:
            return  # another verdict took its place
        # What is hashed and written now is of the old generation.
        self._wait_for_save()
        self._beside_result(self._root)
        dropped, before = self._trainer.tally, self._trainer.state.epoch
        self._generation = where.generation
        self._parts.rounds.restart()
        self._go_on_from(state, None)
        self._parts.validation.restarted(where)
        self._start_save()  # others may have to get it here
        self._parts.emit(
            RolledBack(
                reason=where.reason,
                generation=self._generation,
                epoch=state.epoch,
                lost_epochs=max(0, before - state.epoch),
                dropped_samples=dropped.samples,
                dropped_tokens=dropped.tokens,
            )
        )

    def _go_on_from(self, state: GlobalState, led_by: Certificate | None) -> None:
        """Take another state in place of ours; `led_by` is what led to it, if it is known."""
        self._wait_for_save()
        self._trainer.replace(state)
        self._certificate = led_by.to_json() if led_by else None
        self._descent.restart(led_by)
        self._saver.saved_epoch = self._evaluated_epoch = -1
        self._parts.store.leave(state.epoch)
        self._start_root(None)

    def _note_failure(self, failed: Failed, contribution: Contribution) -> None:
        self._failures += 1
        self._failing = f"; {self._failures} rounds in a row failed: {failed.detail}"
        # Powers of two, so that a model that diverged for good does not fill the log.
        if self._failures.bit_count() == 1:
            log.warning("%d rounds in a row failed: %s", self._failures, failed.detail)
        self._parts.emit(
            RoundFailed(
                reason=failed.failure,
                detail=failed.detail,
                dropped_samples=0 if failed.keep else contribution.samples,
                dropped_tokens=0 if failed.keep else contribution.tokens,
            )
        )

    def _failure_pause_s(self) -> float:
        """Return how long to wait after a failed round: not at all at first, then ever longer."""
        return min(_LONGEST_FAILURE_PAUSE_S, 0.01 * (1 << min(self._failures - 1, 20)))

    def _start_root(self, led_by: Certificate | None) -> None:
        """Have the root of the present state computed beside training, and say where we are."""
        epoch = self._trainer.state.epoch
        self._parts.rounds.stand(self._generation, epoch, None, led_by)
        self._root = self._beside.submit(self._compute_root)

    def _compute_root(self) -> str:
        state = self._trainer.state
        root = state.root(self._parts.manifest_hash)
        self._parts.rounds.stand(self._generation, state.epoch, root, None)
        self._parts.emit(RootComputed(epoch=state.epoch, state_root=root))
        return root

    def _save_if_due(self) -> None:
        saving = self._save is not None and not self._save.done()
        if self._saver.due(asked=self._parts.rounds.asked_for_state) and not saving:
            self._start_save()

    def _start_save(self) -> None:
        """Write a checkpoint beside training, while the global state stands still."""
        self._saver.begin()
        self._save = self._beside.submit(self._write, self._root)

    def _write(self, root: Future[str]) -> None:
        checkpoint = Checkpoint(
            state=self._trainer.state,
            state_root=root.result(_BESIDE_TIMEOUT_S),
            generation=self._generation,
            place=self._trainer.place,
            certificate=self._certificate,
            code_version=__version__,
            heritage=self._descent.heritage(self._trainer.state.epoch),
        )
        validation = self._parts.validation
        needed = set(validation.needed())
        if validation.due(checkpoint.state.epoch):
            needed.add(checkpoint.state_root)
        self._parts.store.protect(needed)
        self._saver.write(checkpoint)

    def _note_saved(self, checkpoint: Checkpoint) -> None:
        if self._parts.validation.due(checkpoint.state.epoch):
            self._parts.validation.candidate(checkpoint.state.epoch, checkpoint.state_root)
        self._descent.saved(Ancestor(checkpoint.state.epoch, checkpoint.state_root))
        # Only the last ones: others stay for the lineage, and nobody joins from there.
        own = [stored for stored in self._parts.store.roots() if not stored.fetched]
        last = own[: self._parts.settings.checkpoint.keep]
        self._parts.rounds.saved(min(stored.epoch for stored in last))

    def _wait_for_save(self) -> None:
        if self._save is not None:
            self._beside_result(self._save)
            self._save = None

    def _save_now(self) -> None:
        self._wait_for_save()
        if self._saver.saved_epoch < self._trainer.state.epoch:
            self._start_save()
            self._wait_for_save()

    def _evaluate_if_due(self, orders: Orders) -> None:
        clock, epoch = self._parts.clock, self._trainer.state.epoch
        # Also within an epoch, after a pause: the model is still the epoch's.
        if clock.monotonic_s() >= self._evaluate_due_s and epoch != self._evaluated_epoch:
            self._evaluate(orders)

    def _evaluate(self, orders: Orders) -> None:
        parts, epoch = self._parts, self._trainer.state.epoch
        self._enter(Phase.EVALUATING, f"scoring epoch {epoch} on held-out data")
        started_s = parts.clock.monotonic_s()
        try:
            score = self._trainer.evaluate(parts.heldout, lambda: self._beat(orders))
        except _InterruptedError:
            return
        ended_s = parts.clock.monotonic_s()
        seconds = ended_s - started_s
        interval_s = parts.settings.evaluation.interval_s
        self._evaluate_due_s = ended_s + max(interval_s, _EVALUATION_SHARE * seconds)
        self._evaluated_epoch = epoch
        scores = {parts.task.heldout_name: score.value, **score.metrics}
        self._descent.scored(epoch, scores)
        # Behind a checkpoint that is being written: it lacks the score, and gets it here.
        self._beside.submit(self._annotate, self._root, scores)
        parts.emit(
            Evaluated(
                epoch=epoch,
                name=parts.task.heldout_name,
                value=score.value,
                metrics=dict(score.metrics),
                seconds=seconds,
            )
        )

    def _annotate(self, root: Future[str], scores: Mapping[str, float]) -> None:
        """Write the scores beside the checkpoint of the state, if there is one already."""
        try:
            self._parts.store.annotate(root.result(_BESIDE_TIMEOUT_S), scores)
        except OSError as error:
            log.warning("the scores were not written beside the checkpoint: %s", error)

    def _annotate_accepted(self, state_root: str, verdict: str) -> None:
        """Write beside a checkpoint which verdict accepted it."""
        try:
            self._parts.store.annotate(state_root, accepted_by=verdict)
        except OSError as error:
            log.warning("the verdict was not written beside the checkpoint: %s", error)

    def _beat(self, orders: Orders) -> None:
        """Give a sign of life, at most once a second; do not keep orders waiting."""
        if orders.interrupted():
            raise _InterruptedError
        now_s = self._parts.clock.monotonic_s()
        if now_s - self._beaten_s >= _HEARTBEAT_S:
            self._beaten_s = now_s
            self._parts.emit(Heartbeat())

    def _sit_out(self, orders: Orders) -> None:
        """Pause: give the device back, keep the contribution, say so now and then."""
        self._save_now()
        self._parts.rounds.rest(resting=True)
        self._parts.validation.rest(resting=True)
        self._trainer.suspend()
        while orders.paused is not None and orders.leave_now is None:
            self._enter(Phase.PAUSED, orders.paused)
            orders.wait(_HEARTBEAT_S)
        while orders.leave_now is None and not self._awoken():
            self._enter(Phase.PAUSED, "the device's memory is taken by somebody else")
            orders.wait(_HEARTBEAT_S)
        self._parts.validation.rest(resting=False)
        self._parts.rounds.rest(resting=False)

    def _awoken(self) -> bool:
        """Take the device again; return False if there is no memory on it."""
        try:
            self._trainer.awaken()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._trainer.suspend()
            return False
        return True

    def _leave(self, orders: Orders, reason: str) -> Finished:
        if orders.leave_now is None:
            self._enter(Phase.FINISHING, reason)
            if self._evaluated_epoch != self._trainer.state.epoch:
                self._evaluate(orders)
        self._save_now()
        epoch = self._trainer.state.epoch
        saved = self._saver.saved_epoch == epoch
        if not saved:
            reason += "; its checkpoint could not be written"
        root = self._beside_result(self._root)
        self._beside.shutdown()
        return Finished(epoch=epoch, state_root=root, reason=reason, saved=saved)

    def _beside_result(self, future: "Future[_Result]") -> _Result:
        """Return what the thread beside training makes, with a sign of life while it takes."""
        deadline_s = self._parts.clock.monotonic_s() + _BESIDE_TIMEOUT_S
        while True:
            try:
                return future.result(_HEARTBEAT_S)
            except TimeoutError:
                if self._parts.clock.monotonic_s() > deadline_s:
                    raise
                self._parts.emit(Heartbeat())

    def _enter(self, phase: Phase, reason: str) -> None:
        self._parts.emit(PhaseChanged(phase=phase, reason=reason))
