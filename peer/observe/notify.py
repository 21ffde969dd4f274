"""What systemd is told by whoever it started: sd_notify(3), and a traceback when it aborts us.

Where nobody started us so, nothing is sent. It decides nothing: when to say what is its caller's.
"""

import contextlib
import faulthandler
import os
import socket
import sys
from collections.abc import Mapping

_LONGEST_STATUS_CHARS = 300


class ServiceManager:
    """The socket that takes what a service says of itself.

    Args:
        environment: Where `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` stand.

    Attributes:
        watchdog_s: How long we may go without `alive` before we are aborted and started again;
            None if nobody watches.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" begins an abstract address, which the kernel writes with a zero byte (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environment) if address else None

    @property
    def listens(self) -> bool:
        """Whether a service manager started us that wants to hear of us."""
        return bool(self._address)

    def ready(self) -> None:
        """Say that we do what we were started for."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """Say in one line what we do.

        What peers wrote may be in `text`: a line of theirs must not become an assignment of ours.
        """
        shown = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_STATUS_CHARS])
        self._tell(f"STATUS={shown}")

    def alive(self) -> None:
        """Say that all is well, for the watchdog."""
        if self.watchdog_s is not None:
            self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask that the start, or the end, may take `seconds` more from now on."""
        self._tell(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")

    def stopping(self) -> None:
        """Say that we end."""
        self._tell("STOPPING=1")

    def _tell(self, assignment: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            # A manager whose queue is full must not stop us: the next word comes soon.
            to.setblocking(False)
            to.connect(self._address)
            to.send(assignment.encode())


def dump_when_aborted() -> None:
    """Have SIGABRT, which the watchdog sends, print to stderr where each thread is.

    The traceback is written by the signal's handler itself, so a loop that is stuck prints it, too.
    """
    if sys.__stderr__ is not None:
        faulthandler.enable(file=sys.__stderr__)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return the watchdog's patience, as sd_watchdog_enabled(3) reads it."""
    limit, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not limit.isascii() or not limit.isdigit() or int(limit) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None  # meant for a process that we descend from
    return int(limit) / 1e6
