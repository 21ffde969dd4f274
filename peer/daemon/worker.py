"""The worker process: `python -m peer.daemon.worker --fd N`, started by the supervisor.

It speaks `peer.events` over the socket it inherits, trains until told to leave, and dies with its
supervisor. Exit codes: 0 finished, 69 network lost, 75 out of memory, 78 refused; anything else
is a crash.
"""

import argparse
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from peer.daemon.orders import Orders
from peer.daemon.politeness import stand_back
from peer.daemon.process import EXIT_NETWORK
from peer.errors import AbandonedError, ConfigurationError, CtpeerError, NetworkLostError
from peer.events import Begin, Finished, LogLine, Message, OutOfMemory, Phase, PhaseChanged, Refused

EXIT_OUT_OF_MEMORY = 75

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


class Pipe:
    """The worker's end of the socket pair: events up, commands down."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def emit(self, message: Message) -> None:
        """Send `message` to the supervisor; safe from any thread."""
        with self._lock:
            self._socket.sendall(message.encode())

    def commands(self) -> Iterator[Message]:
        """Yield commands until the supervisor closes its end or dies."""
        try:
            for line in self._lines:
                yield Message.decode(line)
        except ConnectionError:
            return


class PipeHandler(logging.Handler):
    """Sends log records to the supervisor, which owns the log."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; a supervisor that is gone needs no log."""
        try:
            line = LogLine(level=record.levelname, logger=record.name, text=self.format(record))
            self._pipe.emit(line)
        except OSError:
            return


def main() -> int:
    """Run the worker; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket")
    pipe = Pipe(parser.parse_args().fd)
    _die_with_parent()
    # cuBLAS repeats its sums bit for bit only with a workspace of its own (torch's notes on
    # randomness); read when torch is imported.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Ctrl-C is the supervisor's to interpret.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands = pipe.commands()
    begin = next(commands, None)
    if not isinstance(begin, Begin):
        return 1
    stand_back(begin.settings["limits"])
    level = begin.settings["log"]["level"].upper()
    logging.basicConfig(level=level, handlers=[PipeHandler(pipe)], format="%(message)s")
    logging.captureWarnings(capture=True)
    orders = Orders(paused=begin.paused)
    threading.Thread(target=_listen, args=(commands, orders), daemon=True).start()
    return _serve(begin, orders, pipe)


def _serve(begin: Begin, orders: Orders, pipe: Pipe) -> int:
    pipe.emit(PhaseChanged(phase=Phase.IMPORTING, reason="importing torch and transformers"))
    from peer.daemon.assembly import assembled
    from peer.training.memory import is_out_of_memory

    try:
        with assembled(begin, pipe.emit, lambda: orders.leave_now is not None) as loop:
            pipe.emit(loop.run(orders, begin.max_epochs, hold=begin.hold))
    except AbandonedError:
        reason = "asked to stop before the run was here"
        pipe.emit(Finished(epoch=0, state_root="", reason=reason, saved=True))
    except ConfigurationError as error:
        pipe.emit(Refused(text=str(error)))
        return error.exit_code
    except (NetworkLostError, CtpeerError) as error:
        log.error("%s", error)  # noqa: TRY400 the words say all that is known
        return EXIT_NETWORK
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        pipe.emit(OutOfMemory(text=f"out of memory at a micro-batch of one: {error}"))
        return EXIT_OUT_OF_MEMORY
    return 0


def _listen(commands: Iterator[Message], orders: Orders) -> None:
    for command in commands:
        orders.take(command)
    # The supervisor is gone: take everything of ours along.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: all is saved, and a thread that reads ahead is not worth waiting for.
    os._exit(code)
