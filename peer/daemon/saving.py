"""When to write a checkpoint, and what a write that fails means: training goes on."""

import errno
import logging
from collections.abc import Callable

from peer.checkpoint.format import Checkpoint
from peer.checkpoint.store import CheckpointStore
from peer.clock import Clock
from peer.events import CheckpointFailed, CheckpointWritten, Message

log = logging.getLogger(__name__)

_SHARE = 20
"""Writing takes at most one part in this many of the time."""
_AGAIN_S = 5.0


class Saver:
    """Writes checkpoints.

    Args:
        store: Where to.
        interval_s: How often.
        clock: The time.
        emit: Takes events.
        on_saved: Told of what was written.

    Attributes:
        saved_epoch: The last epoch that is on the disk; -1 if none of the present row is.
    """

    def __init__(
        self,
        store: CheckpointStore,
        interval_s: float,
        clock: Clock,
        emit: Callable[[Message], None],
        on_saved: Callable[[Checkpoint], None],
    ) -> None:
        self.saved_epoch = -1
        self._store = store
        self._interval_s = interval_s
        self._clock = clock
        self._emit = emit
        self._on_saved = on_saved
        self._due_s = clock.monotonic_s() + interval_s
        self._allowed_s = 0.0

    def due(self, *, asked: bool) -> bool:
        """Return whether it is time; sooner if somebody asked for a state."""
        if asked:
            self._due_s = min(self._due_s, self._allowed_s)
        return self._clock.monotonic_s() >= self._due_s

    def begin(self) -> None:
        """Note that `write` comes."""
        self._due_s = float("inf")

    def write(self, checkpoint: Checkpoint) -> None:
        """Write `checkpoint`, in any thread, and say how that went."""
        clock, epoch = self._clock, checkpoint.state.epoch
        started_s = clock.monotonic_s()
        try:
            size_bytes = self._store.save(checkpoint)
        except OSError as error:
            advice = "free some space" if _is_full(error) else "mend that"
            text = f"checkpoint not written: {error.strerror or error}; {advice}"
            log.error("%s; training goes on, and the next epochs try again", text)  # noqa: TRY400
            self._emit(CheckpointFailed(reason=text))
            self._due_s = clock.monotonic_s() + min(self._interval_s, _AGAIN_S)
            return
        seconds = clock.monotonic_s() - started_s
        self._allowed_s = clock.monotonic_s() + _SHARE * seconds
        self._due_s = max(clock.monotonic_s() + self._interval_s, self._allowed_s)
        self.saved_epoch = epoch
        self._on_saved(checkpoint)
        self._emit(
            CheckpointWritten(
                state_root=checkpoint.state_root,
                epoch=epoch,
                bytes=size_bytes,
                seconds=seconds,
                unix_time_s=clock.now_s(),
            )
        )


def _is_full(error: OSError) -> bool:
    """Return whether the disk is full; safetensors says so in words only."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
