"""What the training loop knows of validation: candidates out, consequences in."""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from peer.training.state import GlobalState
from peer.validation.course import Restart
from peer.validation.duty import Duty

TRAINS = (Duty.TRAIN, "gathering the epoch's batch")
"""What whoever trains does, and why."""


class Validation(Protocol):
    """The judging of checkpoints, for whoever makes them."""

    @property
    def restart(self) -> Restart | None:
        """Where to go on from instead, if a verdict says so."""
        ...

    def duty(self, epoch: int, worked_epoch: int | None) -> tuple[Duty, str]:
        """Return whether to train from `epoch` on or to follow those who do, and why.

        Args:
            epoch: Where this peer stands.
            worked_epoch: The last epoch of the generation that it contributed to, if any.
        """
        ...

    def due(self, epoch: int) -> bool:
        """Return whether the state of `epoch` is a candidate, which must be written."""
        ...

    def candidate(self, epoch: int, state_root: str) -> None:
        """Note that the state of `epoch`, a candidate, is on the disk."""
        ...

    def accepted(self) -> Mapping[str, str]:
        """Return the verdicts by the states that they accepted, since this was last asked."""
        ...

    def needed(self) -> Collection[str]:
        """Return the states that must stay on the disk."""
        ...

    def halved(self, generation: int, epoch: int) -> int:
        """Return how often the outer learning rate is halved in the step from `epoch` on."""
        ...

    def find(self, where: Restart, abandon: Callable[[], bool]) -> GlobalState | None:
        """Return the state to go on from; None if it cannot be had now."""
        ...

    def restarted(self, where: Restart) -> None:
        """Note that training goes on from there."""
        ...

    def rest(self, *, resting: bool) -> None:
        """Note that the device is given back, or taken again."""
        ...


class NoValidation:
    """A run without validation, or a peer without a network."""

    restart: Restart | None = None

    def duty(self, epoch: int, worked_epoch: int | None) -> tuple[Duty, str]:  # noqa: ARG002
        """Everybody trains."""
        return TRAINS

    def due(self, epoch: int) -> bool:  # noqa: ARG002
        """No state is judged."""
        return False

    def candidate(self, epoch: int, state_root: str) -> None:
        """Nobody judges it."""

    def accepted(self) -> Mapping[str, str]:
        """None is."""
        return {}

    def needed(self) -> Collection[str]:
        """None is."""
        return ()

    def halved(self, generation: int, epoch: int) -> int:  # noqa: ARG002
        """No verdict says so."""
        return 0

    def find(self, where: Restart, abandon: Callable[[], bool]) -> GlobalState | None:  # noqa: ARG002
        """Nobody says where."""
        return None

    def restarted(self, where: Restart) -> None:
        """Nobody waits for it."""

    def rest(self, *, resting: bool) -> None:
        """Nothing is scored."""
