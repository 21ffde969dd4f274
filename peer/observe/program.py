"""What programs beside the daemon have in common that serve until a signal ends them."""

import asyncio
import logging
import os
import signal

from peer.observe.logs import FORMAT
from peer.observe.notify import dump_when_aborted

_ENDING = (signal.SIGTERM, signal.SIGINT)


def set_up(log_level: str) -> None:
    """Have signals end this program, plain lines of log go to stderr, and SIGABRT tell where it is.

    Until `stopped_by_signal` takes the signals they end it at once: there is nothing to end yet.
    """
    for number in _ENDING:
        signal.signal(number, lambda *_: os._exit(0))
    logging.basicConfig(level=log_level.upper(), format=FORMAT)
    dump_when_aborted()


def stopped_by_signal() -> asyncio.Event:
    """Return an event of the running loop that signals set from now on."""
    stop = asyncio.Event()
    for number in _ENDING:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
