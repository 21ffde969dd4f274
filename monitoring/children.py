"""Programs that run for as long as we do: started, waited for, watched and ended.

A child dies with us however we die. It is ready when it answers over HTTP on this machine.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import NamedTuple

from peer.errors import ConfigurationError, CtpeerError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_POLL_S = 0.1
_ASK_S = 2.0
_END_S = 10.0
_TAIL_BYTES = 4096
_TAIL_LINES = 3


class Program(NamedTuple):
    """What to start.

    Attributes:
        name: What a person calls it.
        command: Its command line.
        variables: What it finds in its environment beside ours.
        log_path: Takes what it prints.
        ready_url: Answers once it is ready.
        ready_s: How long that may take.
    """

    name: str
    command: Sequence[str]
    variables: Mapping[str, str]
    log_path: Path
    ready_url: str
    ready_s: float


class Child:
    """A program that runs."""

    def __init__(self, program: Program) -> None:
        self.program = program
        parent = os.getpid()
        try:
            program.log_path.parent.mkdir(parents=True, exist_ok=True)
            with program.log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    program.command,
                    env=os.environ | dict(program.variables),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for us to take
                    preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 no other thread runs here
                )
        except OSError as error:
            raise ConfigurationError(
                f"{program.name} cannot be started: {error.strerror} ({error.filename})"
            ) from error

    def check(self) -> None:
        """Raise CtpeerError if it ended, with its last words."""
        code = self._process.poll()
        if code is not None:
            raise CtpeerError(
                f"{self.program.name} ended by itself with code {code}: {self._last_words()}"
            )

    def wait_until_ready(self, stop: Event) -> None:
        """Wait until it answers, or `stop` is set.

        Raises:
            CtpeerError: It ended, or does not answer in time.
        """
        deadline_s = time.monotonic() + self.program.ready_s
        while not _answers(self.program.ready_url):
            self.check()
            if time.monotonic() > deadline_s:
                raise CtpeerError(
                    f"{self.program.name} does not answer at {self.program.ready_url} after "
                    f"{self.program.ready_s:.0f} s; its log is {self.program.log_path}"
                )
            if stop.wait(_POLL_S):
                return

    def ask_to_end(self) -> None:
        """Ask it to end."""
        if self._process.poll() is None:
            self._process.terminate()

    def end(self) -> None:
        """Wait for its end, and kill it after ten seconds."""
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            # Its children, too: it leads a session of its own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_END_S)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError), self.program.log_path.open("rb") as log:
            log.seek(max(0, self.program.log_path.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
            if lines:
                return " | ".join(line.strip() for line in lines[-_TAIL_LINES:])
        return "it said nothing"


@contextlib.contextmanager
def running(programs: Sequence[Program], stop: Event) -> Iterator[Callable[[], None]]:
    """Start `programs`, each when the one before is ready; all have ended when this is left.

    Yields:
        What raises CtpeerError if one of them ended.

    Raises:
        CtpeerError: One does not start, or is not ready in time.
    """
    children: list[Child] = []

    def check() -> None:
        for child in children:
            child.check()

    try:
        for program in programs:
            if stop.is_set():
                break
            if _answers(program.ready_url):
                raise CtpeerError(
                    f"something answers at {program.ready_url} already: end it, or choose another "
                    f"address for {program.name}"
                )
            children.append(Child(program))
            children[-1].wait_until_ready(stop)
        yield check
    finally:
        for child in reversed(children):
            child.ask_to_end()
        for child in children:
            child.end()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_ASK_S) as answer:  # noqa: S310 an address of ours
            return bool(answer.status == 200)  # noqa: PLR2004 HTTP's own number
    except (OSError, ValueError):
        return False


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
