"""The training loop: work, average, save, evaluate, until there is a reason to leave."""

import logging

from peer.checkpoint.format import Checkpoint
from peer.checkpoint.journal import Work
from peer.daemon.examiner import Examiner
from peer.daemon.orders import Orders
from peer.daemon.pace import Pace
from peer.daemon.parts import HEARTBEAT_S, Parts
from peer.daemon.position import Position
from peer.errors import NetworkLostError
from peer.events import (
    BranchLeft,
    Finished,
    Phase,
    PhaseChanged,
    RolledBack,
    RoundCommitted,
    RoundFailed,
)
from peer.training.certificate import Certificate
from peer.training.contribution import Contribution, Tally
from peer.training.memory import is_out_of_memory
from peer.training.round import Committed, Failed, Replaced, Waiting
from peer.training.state import GlobalState
from peer.validation.committee import members_of
from peer.validation.course import Restart
from peer.validation.duty import Duty

log = logging.getLogger(__name__)

_LONGEST_FAILURE_PAUSE_S = 10.0
_JOIN_PAUSE_S = 0.5


class TrainingLoop:
    """Drives a trainer through epochs."""

    def __init__(self, parts: Parts, resumed: Checkpoint | None) -> None:
        self._parts = parts
        self._trainer = parts.trainer
        self._position = Position(parts, resumed)
        self._examiner = Examiner(parts, self._position)
        self._pace = Pace()
        self._resting = False
        self._worked_epoch: int | None = None
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
            self._position.save_now()
            raise

    def _run(self, orders: Orders, max_epochs: int | None, *, hold: bool) -> Finished:
        self._position.root()
        self._parts.rounds.start()
        while True:
            reason = self._train(orders, max_epochs)
            leaves = orders.leave_now is not None or orders.leave_after_epoch
            if leaves or not hold or self._hold(orders, reason):
                return self._leave(orders, reason)

    def _train(self, orders: Orders, max_epochs: int | None) -> str:
        """Train until there is a reason to leave, and return it."""
        while max_epochs is None or self._trainer.state.epoch < max_epochs:
            duty, why = self._duty()
            if orders.leave_now is not None:
                return orders.leave_now
            if orders.paused is not None:
                self._sit_out(orders)
            elif self._heed_verdicts(orders):
                if orders.leave_after_epoch and self._parts.validation.restart is not None:
                    return "asked to finish, and the last good state cannot be had"
            elif duty is Duty.FOLLOW:
                if orders.leave_after_epoch:
                    return "asked to finish, and it trains nothing now"
                self._follow(orders, max_epochs, why)
            elif self._parts.rounds.behind:
                self._catch_up(orders, max_epochs)
            elif (reason := self._make_epoch(orders, why)) is not None:
                return reason
        return f"epoch {max_epochs}, the last one asked for, is complete"

    def _make_epoch(self, orders: Orders, why: str) -> str | None:
        """Work, and average what came of it; return a reason to leave, if there is one then."""
        self._rest(resting=False)
        self._examiner.evaluate_if_due(orders)
        self._enter(Phase.TRAINING, f"{why}{self._failing}")
        self._pace.begin(self._trainer.tally.weight, self._parts.clock.monotonic_s())
        if not self._trainer.work(lambda: self._interrupted(orders), self._wanted):
            return None
        committed = self._average(orders)
        if orders.leave_after_epoch:
            what = "the epoch is complete" if committed else "the last round failed"
            return f"asked to finish, and {what}"
        if committed:
            self._position.save_if_due()
        else:
            orders.wait(self._failure_pause_s())
        return None

    def _duty(self) -> tuple[Duty, str]:
        """Return whether to train or to follow; what was gathered is brought first."""
        trainer = self._trainer
        duty, why = self._parts.validation.duty(trainer.state.epoch, self._worked_epoch)
        if duty is Duty.FOLLOW and trainer.tally.weight:
            return Duty.TRAIN, "completing the epoch's batch before it only follows"
        return duty, why

    def _follow(self, orders: Orders, max_epochs: int | None, why: str) -> None:
        """Take in what others make, keep it and serve it, for a moment."""
        self._rest(resting=True)
        self._examiner.evaluate_if_due(orders)
        if not self._parts.rounds.others_train:
            why += "; nobody trains, so there is nothing to judge"
        self._enter(Phase.FOLLOWING, why)
        self._catch_up(orders, max_epochs, Phase.FOLLOWING)
        self._position.save_if_due()
        self._parts.rounds.gather(0, 0.0)
        orders.wait(_JOIN_PAUSE_S)

    def _rest(self, *, resting: bool) -> None:
        """Tell the others whether to wait for us, when that changes."""
        if resting != self._resting:
            self._resting = resting
            self._parts.rounds.rest(resting=resting)

    def _hold(self, orders: Orders, reason: str) -> bool:
        """Serve others what we have until somebody says to leave.

        Returns:
            False if there is more to train: what we held was judged to be bad.
        """
        self._position.save_now()
        self._examiner.evaluate_if_due(orders)
        while orders.leave_now is None and not orders.leave_after_epoch:
            # Whoever is back first must see that we come, too: it would go on alone.
            self._rest(resting=not self._is_called_back())
            if self._heed_verdicts(orders):
                return False
            if self._parts.rounds.behind:  # a fork in the last epoch
                self._catch_up(orders)
            self._enter(Phase.HOLDING, f"{reason}; serving others")
            self._parts.rounds.gather(0, 0.0)
            orders.wait(HEARTBEAT_S)
        return True

    def _is_called_back(self) -> bool:
        """Return whether a verdict says to train on from another state."""
        return self._parts.validation.restart is not None and self._duty()[0] is Duty.TRAIN

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
        base = self._position.base()
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

    def _catch_up(
        self, orders: Orders, max_epochs: int | None = None, phase: Phase = Phase.JOINING
    ) -> None:
        """Take in what others committed without us, up to `max_epochs`."""
        rounds, trainer = self._parts.rounds, self._trainer

        def distracted() -> bool:
            # Whoever only follows has no epoch to complete first.
            leaves = phase is Phase.FOLLOWING and orders.leave_after_epoch
            return leaves or self._distracted(orders)

        while rounds.behind and not distracted():
            if max_epochs is not None and trainer.state.epoch >= max_epochs:
                return
            self._enter(phase, f"others are beyond epoch {trainer.state.epoch}")
            match rounds.catch_up(self._position.base(), distracted):
                case Committed() as committed:
                    self._commit(committed)
                    self._position.save_if_due()
                case Replaced() as replaced:
                    self._replace(replaced)
                case Waiting(reason=reason):
                    self._enter(phase, reason)
                    orders.wait(_JOIN_PAUSE_S)
                case None:
                    return

    def _commit(self, committed: Committed, gather_s: float = 0.0) -> None:
        """Take a certified average into the state, whoever made it."""
        trainer, clock = self._trainer, self._parts.clock
        averaged_s = clock.monotonic_s()
        self._position.settle()
        inside, done = trainer.inside(committed), trainer.tally
        kept = inside or Tally()
        trainer.commit(
            committed,
            self._parts.validation.halved(self._position.generation, trainer.state.epoch),
        )
        phases = dict(committed.seconds_by_phase)
        if phases:
            phases |= {"gather": gather_s, "outer_step": clock.monotonic_s() - averaged_s}
        self._failures, self._failing = 0, ""
        self._position.advance(committed.certificate)
        vote = committed.certificate.vote
        if trainer.peer_id in members_of(committed.certificate):
            self._worked_epoch = vote.base.epoch
        self._parts.emit(
            RoundCommitted(
                epoch=trainer.state.epoch,
                generation=self._position.generation,
                loss_terms={entry.peer_id: entry.weight for entry in vote.entries},
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
        self._position.save_candidate()
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
            self._position.note_accepted(root, verdict)
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
        dropped, before = self._trainer.tally, self._trainer.state.epoch
        self._position.begin_generation(where.generation)
        self._parts.rounds.restart()
        self._go_on_from(state, None)
        self._parts.validation.restarted(where)
        self._position.save()  # others may have to get it here
        self._parts.emit(
            RolledBack(
                reason=where.reason,
                generation=self._position.generation,
                epoch=state.epoch,
                lost_epochs=max(0, before - state.epoch),
                dropped_samples=dropped.samples,
                dropped_tokens=dropped.tokens,
            )
        )

    def _go_on_from(self, state: GlobalState, led_by: Certificate | None) -> None:
        """Take another state in place of ours; `led_by` is what led to it, if it is known."""
        self._position.move(state, led_by)
        self._examiner.forget()
        self._worked_epoch = None

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

    def _sit_out(self, orders: Orders) -> None:
        """Pause: give the device back, keep the contribution, say so now and then."""
        self._position.save_now()
        self._rest(resting=True)
        self._parts.validation.rest(resting=True)
        self._trainer.suspend()
        while orders.paused is not None and orders.leave_now is None:
            self._enter(Phase.PAUSED, orders.paused)
            orders.wait(HEARTBEAT_S)
        while orders.leave_now is None and not self._awoken():
            self._enter(Phase.PAUSED, "the device's memory is taken by somebody else")
            orders.wait(HEARTBEAT_S)
        self._parts.validation.rest(resting=False)
        self._rest(resting=False)

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
            self._examiner.evaluate(orders)
        self._position.save_now()
        saved = self._position.is_saved
        if not saved:
            reason += "; its checkpoint could not be written"
        epoch, root = self._position.epoch, self._position.root()
        self._position.close()
        return Finished(epoch=epoch, state_root=root, reason=reason, saved=saved)

    def _enter(self, phase: Phase, reason: str) -> None:
        self._parts.emit(PhaseChanged(phase=phase, reason=reason))
