"""The errors a person sees, each with the exit code of the command that ends with it.

A message says what is wrong and what to do about it, in one sentence. `ValueError` stays for a
caller's bad argument, `assert` for our own bugs.
"""

from typing import ClassVar


class CtpeerError(Exception):
    """Something failed that the person at the keyboard should read about."""

    exit_code: ClassVar[int] = 1


class UsageError(CtpeerError):
    """The command was asked for something that makes no sense."""

    exit_code: ClassVar[int] = 2


class NotRunningError(CtpeerError):
    """The command needs a running daemon and there is none on this home."""

    exit_code: ClassVar[int] = 3


class ConfigurationError(CtpeerError):
    """The set-up is wrong, and starting again would not mend it (sysexits' EX_CONFIG)."""

    exit_code: ClassVar[int] = 78


class DamagedError(ConfigurationError):
    """Bytes on the disk are not the bytes that their hash names."""


class UnavailableError(DamagedError):
    """Bytes are nowhere to be had now, and may be later."""


class NetworkLostError(Exception):
    """p2pd or the thread around it died; the worker has to be started again."""


class AbandonedError(Exception):
    """Whoever waited for the network has something better to do."""


class PeerError(Exception):
    """Another peer, or the way to it, failed; whoever asked counts it and goes on without."""


class UnreachableError(PeerError):
    """The peer did not answer in time, or there is no way to it."""


class StalledError(UnreachableError):
    """The stream is there, but nothing moves on it."""


class DeclinedError(PeerError):
    """The peer answered that it will not, and why."""


class MisbehavedError(PeerError):
    """The peer sent what the protocol does not allow."""
