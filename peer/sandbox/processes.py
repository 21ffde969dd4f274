"""The processes of one peer of a sandbox: supervisor, worker and p2pd, from start to end.

All of them carry a mark in their environment, by which they are found whoever is their parent by
then. They also die with the sandbox: the kernel kills the supervisor, and it takes the rest along.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

CTPEER_COMMAND = (sys.executable, "-m", "peer")

MARK = "SANDBOX_OF_CTPEER"
"""The variable that holds the mark. Not CTPEER_..., which would be a setting."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_END_TIMEOUT_S = 30.0
"""The kernel took more than ten to end a worker of twelve peers on two cores."""
_POLL_S = 0.05
_TAIL_BYTES = 4096
_WHY = "ctpeer: "
"""How a command begins the sentence that a person should read before it ends."""


class PeerProcesses:
    """The processes of one peer. `start` it once; whoever did must `kill` it at last.

    Args:
        mark: Tells this peer's processes from all others on the machine.
        output_path: Takes what the daemon prints.
        command: How `ctpeer` is run.
    """

    def __init__(
        self, mark: str, output_path: Path, command: Sequence[str] = CTPEER_COMMAND
    ) -> None:
        self._mark = mark
        self._output_path = output_path
        self._command = command
        self._supervisor: subprocess.Popen[bytes] | None = None

    def start(
        self,
        arguments: Sequence[str],
        temporary_path: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start `ctpeer` with `arguments` in a session of its own, `variables` in its environment.

        Called in the main thread: the kernel kills the peer when the thread that started it ends.
        """
        parent = os.getpid()
        ours = {MARK: self._mark, "TMPDIR": str(temporary_path)}
        environment = os.environ | dict(variables or {}) | ours
        with self._output_path.open("ab") as output:
            self._supervisor = subprocess.Popen(
                [*self._command, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the sandbox to take
                preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 no other thread runs here
            )

    @property
    def pid(self) -> int | None:
        """The supervisor's process id."""
        return self._supervisor.pid if self._supervisor is not None else None

    def exit_code(self) -> int | None:
        """Return the supervisor's exit code, or None while it runs."""
        return self._supervisor.poll() if self._supervisor is not None else None

    def last_words(self) -> str:
        """Return why the daemon ended, in its own words; else the last line that it printed."""
        with contextlib.suppress(OSError), self._output_path.open("rb") as output:
            output.seek(max(0, self._output_path.stat().st_size - _TAIL_BYTES))
            text = output.read().decode(errors="replace").strip()
            _, why, words = text.rpartition(_WHY)
            return " ".join(words.split()) if why else text.rpartition("\n")[2]
        return ""

    def terminate(self) -> None:
        """Ask the supervisor to stop: it writes a checkpoint and ends."""
        self._signal_supervisor(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP all processes, the supervisor first: it starts no other then."""
        self._signal_supervisor(signal.SIGSTOP)
        for process in marked(self._mark):
            _send(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT all processes, the supervisor last: it finds the others awake."""
        for process in marked(self._mark):
            if process.pid != self.pid:
                _send(process, signal.SIGCONT)
        self._signal_supervisor(signal.SIGCONT)

    def kill(self) -> list[str]:
        """SIGKILL all processes and wait for their end.

        Returns:
            Those that are still there, in words; none unless the kernel cannot end them.
        """
        self._signal_supervisor(signal.SIGKILL)
        deadline_s = time.monotonic() + _END_TIMEOUT_S
        while left := list(marked(self._mark)):
            if time.monotonic() > deadline_s:
                return [f"process {process.pid} cannot be killed" for process in left]
            for process in left:
                _send(process, signal.SIGKILL)
            time.sleep(_POLL_S)
        if self._supervisor is not None:
            self._supervisor.wait(_END_TIMEOUT_S)
        return []

    def left(self) -> list[str]:
        """Return the names of the processes that live."""
        names = []
        for process in marked(self._mark):
            with contextlib.suppress(psutil.Error):
                names.append(f"{process.name()} ({process.pid})")
        return names

    def _signal_supervisor(self, number: signal.Signals) -> None:
        if self._supervisor is not None:
            self._supervisor.send_signal(number)


def marked(mark: str) -> Iterator[psutil.Process]:
    """Yield the living processes that carry `mark`; of a zombie there is nothing left to kill."""
    for process in psutil.process_iter():
        # Of a process that is just ending the kernel may give one file and not the other.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
