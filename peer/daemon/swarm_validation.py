"""The judging of checkpoints for the training loop: its questions go to the network's thread."""

from collections.abc import Callable, Collection, Mapping

from peer.checkpoint.states import States
from peer.daemon.network import Network
from peer.daemon.validation import TRAINS
from peer.daemon.validator import Validator
from peer.errors import AbandonedError
from peer.training.state import GlobalState
from peer.validation.course import Restart
from peer.validation.duty import Duty
from peer.validation.rules import Rules


class SwarmValidation:
    """See `peer.daemon.validation.Validation`; called by the training thread.

    Args:
        network: Where the validator lives.
        validator: Takes part in the judging.
        states: Finds states.
        rules: The run's.
        trains: Whether this peer trains whatever it is as a validator.
    """

    def __init__(
        self,
        network: Network,
        validator: Validator,
        states: States,
        rules: Rules,
        *,
        trains: bool,
    ) -> None:
        self._network = network
        self._validator = validator
        self._states = states
        self._rules = rules
        self._trains = trains
        self._ledger = validator.tip.ledger

    @property
    def restart(self) -> Restart | None:
        """Where to go on from instead, if a verdict says so."""
        return self._validator.restart

    def duty(self, epoch: int, worked_epoch: int | None) -> tuple[Duty, str]:
        """Return whether to train from `epoch` on or to follow those who do, and why."""
        return TRAINS if self._trains else self._validator.duty(epoch, worked_epoch)

    def due(self, epoch: int) -> bool:
        """Return whether the state of `epoch` is a candidate, which must be written."""
        return epoch > 0 and epoch % self._rules.every_epochs == 0

    def candidate(self, epoch: int, state_root: str) -> None:
        """Note that the state of `epoch`, a candidate, is on the disk."""
        self._network.post(self._validator.note_candidate, epoch, state_root)

    def accepted(self) -> Mapping[str, str]:
        """Return the verdicts by the states that they accepted, since this was last asked."""
        accepted = self._validator.accepted
        return {root: accepted.pop(root) for root in list(accepted)}

    def needed(self) -> Collection[str]:
        """Return the states that must stay on the disk."""
        return self._validator.needed

    def halved(self, generation: int, epoch: int) -> int:
        """Return how often the outer learning rate is halved in the step from `epoch` on."""
        newest = self._validator.tip.ledger
        if newest.generation == generation:  # else the newest verdict has just begun another one
            self._ledger = newest
        return self._ledger.halved(epoch, self._rules)

    def find(self, where: Restart, abandon: Callable[[], bool]) -> GlobalState | None:
        """Return the state to go on from; None if it cannot be had now."""
        mark = where.mark
        try:
            return self._network.wait(self._states.find(mark.state_root, mark.epoch), abandon)
        except AbandonedError:
            return None

    def restarted(self, where: Restart) -> None:
        """Note that training goes on from there."""
        self._ledger = where.ledger

        async def note() -> None:
            self._validator.note_restarted()

        self._network.wait(note())

    def rest(self, *, resting: bool) -> None:
        """Note that the device is given back, or taken again."""

        async def note() -> None:
            self._validator.note_rest(resting=resting)

        self._network.wait(note())
