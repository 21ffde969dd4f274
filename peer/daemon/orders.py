"""What the supervisor wants of the worker, as the training loop reads it."""

import threading

from peer.events import Finish, Message, Pause, Resume, Stop


class Orders:
    """The commands in force; written by the pipe's reader, read by the training loop."""

    def __init__(self, *, paused: str | None = None) -> None:
        self._changed = threading.Condition()
        self._paused = paused
        self._finish = False
        self._stop = False
        self._news = False

    def take(self, message: Message) -> None:
        """Put a command into force.

        Raises:
            ValueError: `message` is not a command.
        """
        with self._changed:
            match message:
                case Pause(reason=reason):
                    self._paused = reason
                case Resume():
                    self._paused = None
                case Finish():
                    self._finish = True
                case Stop():
                    self._stop = True
                case _:
                    raise ValueError(f"{type(message).__name__} is not a command")
            self._news = True
            self._changed.notify_all()

    @property
    def paused(self) -> str | None:
        """Why training is to pause, or None."""
        return self._paused

    @property
    def leave_now(self) -> str | None:
        """Why to leave without completing the epoch, or None."""
        if self._stop:
            return "asked to stop"
        if self._finish and self._paused is not None:
            return "asked to finish while paused"
        return None

    @property
    def leave_after_epoch(self) -> bool:
        """Whether to leave once the epoch is complete."""
        return self._finish

    def interrupted(self) -> bool:
        """Return whether the training loop must stop between two micro-batches."""
        return self._stop or self._paused is not None

    def wait(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for a command that came since the last wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._news, timeout_s)
            self._news = False
