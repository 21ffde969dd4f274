"""One worker process, from its start to the end of its whole process group."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from peer.events import Message

WORKER_COMMAND = (sys.executable, "-m", "peer.daemon.worker")

EXIT_NETWORK = 69
"""The worker's exit code when its network is lost."""

_LONGEST_LINE_BYTES = 4 << 20
_DUMP_TIMEOUT_S = 2.0
_REAP_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True)
class Junk:
    """A line from the worker that is no message."""

    text: str


class WorkerProcess:
    """A running worker. Use `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.pid = process.pid

    @classmethod
    async def start(cls, command: Sequence[str] = WORKER_COMMAND) -> "WorkerProcess":
        """Start `command` in a session of its own, with `--fd N` for its end of the pipe.

        Called in the main thread: the kernel kills the worker when the thread that started it
        ends.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--fd",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE_BYTES)
        return cls(process, reader, writer)

    def send(self, message: Message) -> None:
        """Send a command; a worker that is dying does not need it any more."""
        if not self._writer.is_closing():
            self._writer.write(message.encode())

    async def messages(self) -> AsyncIterator[Message | Junk]:
        """Yield what the worker says until its end of the pipe closes."""
        while True:
            try:
                line = await self._reader.readline()
            except (ConnectionError, ValueError) as error:
                yield Junk(f"the pipe broke: {error}")
                return
            if not line:
                return
            try:
                yield Message.decode(line)
            except ValueError as error:
                yield Junk(str(error))

    async def output(self) -> AsyncIterator[str]:
        """Yield the lines that the worker and its libraries print."""
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:
                yield "(an endless line was dropped)"
                continue
            if not line:
                return
            yield line.decode(errors="replace").rstrip()

    async def dump_and_kill(self) -> None:
        """Have a hung worker print where it hangs, then kill it; also one that was stopped."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)
            self._process.send_signal(signal.SIGCONT)
        await asyncio.sleep(_DUMP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Kill the worker and all that it started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def ended(self) -> int:
        """Wait for the end of a worker whose pipe is closed; return its exit code.

        What is left of its process group is killed, also when the worker does not end by itself.
        """
        try:
            code = await asyncio.wait_for(self._process.wait(), _REAP_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        self.kill()
        self._writer.close()
        return code


def kernel_oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory since the boot."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
