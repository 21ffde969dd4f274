"""One daemon a home: a lock that the kernel lets go of however its holder ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from peer.config.home import Home
from peer.errors import ConfigurationError

_TIMEOUT_S = 2.0
_POLL_S = 0.05


@contextlib.contextmanager
def hold(home: Home) -> Iterator[None]:
    """Hold the lock of `home`; it names the holder's process id.

    Raises:
        ConfigurationError: Another daemon holds it.
    """
    descriptor = os.open(home.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(descriptor, fcntl.LOCK_EX, time.monotonic() + _TIMEOUT_S):
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise ConfigurationError(
                f"a daemon (process {pid}) already runs on the home {home.path}; look at it "
                "with `ctpeer status`, end it with `ctpeer stop`, or choose another --home"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(home: Home) -> str | None:
    """Return the process id of the daemon that holds the lock of `home`, or None."""
    if wait_until_free(home, 0.0):
        return None
    return home.lock_path.read_text(errors="replace").strip()


def wait_until_free(home: Home, timeout_s: float) -> bool:
    """Wait until nobody holds the lock of `home`; return False if `timeout_s` pass before."""
    try:
        descriptor = os.open(home.lock_path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return True
    try:
        return _lock(descriptor, fcntl.LOCK_SH, time.monotonic() + timeout_s)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int, deadline_s: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_POLL_S)
        else:
            return True
