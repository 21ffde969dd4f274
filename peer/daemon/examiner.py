"""Scoring the model on held-out data now and then, for people to see."""

from peer.daemon.orders import Orders
from peer.daemon.parts import HEARTBEAT_S, Parts
from peer.daemon.position import Position
from peer.events import Evaluated, Heartbeat, Phase, PhaseChanged

_SHARE = 50
"""It takes at most one part in this many of the time."""


class _InterruptedError(Exception):
    """An order came that an evaluation must not keep waiting."""


class Examiner:
    """Evaluates each epoch that it comes to.

    Args:
        parts: Whose model, and what on.
        position: Keeps the scores.
    """

    def __init__(self, parts: Parts, position: Position) -> None:
        self._parts = parts
        self._position = position
        self._due_s = 0.0
        self._scored_epoch = -1
        self._beaten_s = 0.0

    def forget(self) -> None:
        """Note that the state is another one, whatever its epoch."""
        self._scored_epoch = -1

    def evaluate_if_due(self, orders: Orders) -> None:
        """Evaluate the present epoch if it is time, and if that has not been done."""
        # Also within an epoch, after a pause: the model is still the epoch's.
        if self._parts.clock.monotonic_s() >= self._due_s:
            self.evaluate(orders)

    def evaluate(self, orders: Orders) -> None:
        """Evaluate the present epoch if that has not been done; orders end it."""
        parts, epoch = self._parts, self._position.epoch
        if epoch == self._scored_epoch:
            return
        reason = f"scoring epoch {epoch} on held-out data"
        parts.emit(PhaseChanged(phase=Phase.EVALUATING, reason=reason))
        started_s = parts.clock.monotonic_s()
        try:
            score = parts.trainer.evaluate(parts.heldout, lambda: self._beat(orders))
        except _InterruptedError:
            return
        ended_s = parts.clock.monotonic_s()
        seconds = ended_s - started_s
        interval_s = parts.settings.evaluation.interval_s
        self._due_s = ended_s + max(interval_s, _SHARE * seconds)
        self._scored_epoch = epoch
        name = parts.task.heldout_name
        self._position.note_scores({name: score.value, **score.metrics})
        parts.emit(
            Evaluated(
                epoch=epoch,
                name=name,
                value=score.value,
                metrics=dict(score.metrics),
                seconds=seconds,
            )
        )

    def _beat(self, orders: Orders) -> None:
        """Give a sign of life, at most once a second; do not keep orders waiting."""
        if orders.interrupted():
            raise _InterruptedError
        now_s = self._parts.clock.monotonic_s()
        if now_s - self._beaten_s >= HEARTBEAT_S:
            self._beaten_s = now_s
            self._parts.emit(Heartbeat())
