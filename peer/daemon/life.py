"""What is known of one worker, from its start to its end, and how it died."""

import contextlib
import dataclasses
import signal

from peer.daemon.process import EXIT_NETWORK
from peer.daemon.restart import FailureClass
from peer.errors import ConfigurationError
from peer.events import Finished


@dataclasses.dataclass
class Life:
    """One worker's, kept by those who listen to it and who watch it.

    Attributes:
        loaded: Whether it has loaded the model.
        micro_batch: How many samples it trains on at once; 0 before it has said so.
        finished: Its word that it ends as it should.
        refused: Its word that it cannot run as configured, and why.
        out_of_memory: Whether it ran out of memory.
        hung: Whether it was killed because it hung.
        over_limit: Why it was killed for the memory that it took, in words.
    """

    loaded: bool = False
    micro_batch: int = 0
    finished: Finished | None = None
    refused: str | None = None
    out_of_memory: bool = False
    hung: bool = False
    over_limit: str | None = None

    def failure(self, code: int) -> tuple[FailureClass, str | None]:
        """Return how it failed, and why another would fail, too, in words, if that is known.

        Args:
            code: The exit code; negative if a signal killed it.
        """
        if code == ConfigurationError.exit_code:
            return FailureClass.CONFIGURATION, self.refused
        if code == EXIT_NETWORK:
            return FailureClass.NETWORK, None
        if self.hung:
            return FailureClass.HANG, None
        if self.over_limit is not None and (not self.loaded or self.micro_batch <= 1):
            when = "with no smaller micro-batch left"
            if not self.loaded:
                when = "before it trained anything"
            why = f"{self.over_limit}, {when}; raise limits.memory_mb"
            return FailureClass.CONFIGURATION, why
        if self.out_of_memory or self.over_limit is not None:
            return FailureClass.OUT_OF_MEMORY, None
        return FailureClass.CRASH, None


def ending(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
