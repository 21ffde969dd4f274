"""The libp2p daemon (p2pd): one child process, started, spoken to, watched and reaped.

hivemind starts it and serves its handlers; requests of ours go over a connection each, with a
deadline, closed whatever happens. The child dies with the thread that started it, also when that
is killed, and leaves its sockets in a folder of our own.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hivemind.p2p import P2P, P2PDaemonError, PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import read_pbmsg_safe, write_pbmsg
from hivemind.proto import p2pd_pb2
from hivemind.utils.logging import use_hivemind_log_handler
from hivemind.utils.multiaddr import Multiaddr

from peer.errors import UnreachableError

log = logging.getLogger(__name__)

use_hivemind_log_handler("nowhere")
# hivemind shortens the level's name for the whole process, and any peer can make it warn.
logging.addLevelName(logging.WARNING, "WARNING")
logging.getLogger("hivemind").setLevel(logging.ERROR)

StreamCallback = Callable[[Any, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_FOLDER_PREFIX = "ctpeer-p2pd-"
_FRESH_S = 60.0
_LONGEST_SOCKET_PATH = 100
_STREAM_BUFFER_BYTES = 1 << 20
_END_TIMEOUT_S = 2.0
_LAST_WORDS_BYTES = 400
_P2P_CODE = b"\xa5\x03"
_LAUNCHER = """
import ctypes, os, signal, sys
parent, os.environ["GOLOG_LOG_LEVEL"] = int(sys.argv[1]), sys.argv[2]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, kept over exec
if os.getppid() != parent:
    os._exit(1)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})  # Ctrl-C is ours to take
os.execv(sys.argv[3], sys.argv[3:])
"""


def _daemon(folder: Path, extra: Sequence[str], started: list[P2P]) -> type[P2P]:
    """Return hivemind's client of p2pd, with its sockets in `folder` and our launcher before p2pd.

    `started` takes what is made, so that it can be ended when the start fails half-way.
    """

    class Daemon(P2P):  # type: ignore[misc]
        _UNIX_SOCKET_PREFIX = f"/unix{folder}/"

        def __init__(self) -> None:
            super().__init__()
            started.append(self)

        def _make_process_args(self, *args: Any, **kwargs: Any) -> list[str]:
            level = os.environ.get("GOLOG_LOG_LEVEL", "error")
            launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), level]
            return [*launcher, *super()._make_process_args(*args, **kwargs), *extra]

    return Daemon


class Libp2p:
    """A running p2pd. Use `start`."""

    def __init__(self, p2p: P2P, folder: Path, lock: int) -> None:
        self.p2p = p2p
        self.peer_id: str = p2p.peer_id.to_base58()
        self.pid: int = p2p._child.pid  # noqa: SLF001
        self._folder, self._lock = folder, lock
        self._last_words = b""
        self._output = asyncio.create_task(self._read_output())

    @classmethod
    async def start(cls, timeout_s: float, extra: Sequence[str] = (), **arguments: Any) -> "Libp2p":
        """Start p2pd with hivemind's `arguments` and `extra` flags.

        Raises:
            UnreachableError: It did not start in `timeout_s`, and why.
        """
        folder, lock = _make_folder()
        started: list[P2P] = []
        try:
            async with asyncio.timeout(timeout_s):
                p2p = await _daemon(folder, extra, started).create(
                    startup_timeout=2 * timeout_s, **arguments
                )
            return cls(p2p, folder, lock)
        except BaseException as error:
            for p2p in started:
                await _reap(p2p)
            _remove_folder(folder, lock)
            if isinstance(error, TimeoutError):
                raise UnreachableError(f"p2pd did not start in {timeout_s:.0f} s") from error
            if isinstance(error, P2PDaemonError | OSError | asyncio.IncompleteReadError):
                raise UnreachableError(f"p2pd did not start: {error}") from error
            raise

    def problem(self) -> str | None:
        """Return what is broken for good, as far as can be told without asking p2pd."""
        child, control = self.p2p._child, self.p2p._client.control  # noqa: SLF001
        if child.returncode is not None:
            words = self._last_words.decode(errors="replace").strip()
            return f"p2pd ended with code {child.returncode}" + (f": {words}" if words else "")
        tasks = (control._read_task, control._write_task, self.p2p._listen_task)  # noqa: SLF001
        if any(task is not None and task.done() for task in tasks):
            return "the connection to p2pd broke"
        return None

    async def ended(self) -> None:
        """Wait for the end of the process."""
        await self.p2p._child.wait()  # noqa: SLF001

    async def addresses(self, timeout_s: float) -> tuple[str, ...]:
        """Return the multiaddrs under which p2pd believes to be reachable, its id included.

        Raises:
            UnreachableError: p2pd does not answer.
        """
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.IDENTIFY)
        answer = await self._request(request, timeout_s)
        return tuple(f"{Multiaddr(data)}/p2p/{self.peer_id}" for data in answer.identify.addrs)

    async def peers(self, timeout_s: float) -> frozenset[str]:
        """Return the ids of the peers that it is connected to.

        Raises:
            UnreachableError: p2pd does not answer.
        """
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.LIST_PEERS)
        answer = await self._request(request, timeout_s)
        return frozenset(PeerID(info.id).to_base58() for info in answer.peers)

    async def remotes(self, timeout_s: float) -> dict[str, frozenset[str]]:
        """Return the multiaddrs at the other end of all connections, by peer id.

        libp2p has proven that the peer is there: it is no peer's word.

        Raises:
            UnreachableError: p2pd does not answer.
        """
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.LIST_PEERS)
        answer = await self._request(request, timeout_s)
        found: dict[str, frozenset[str]] = {}
        for info in answer.peers:
            peer_id = PeerID(info.id).to_base58()
            with contextlib.suppress(ValueError, LookupError):  # a protocol that nobody knows here
                there = {str(Multiaddr(data)) for data in info.addrs}
                found[peer_id] = found.get(peer_id, frozenset()) | there
        return found

    async def connect(self, peer_id: str, address: str, timeout_s: float) -> None:
        """Have p2pd dial a peer at a multiaddr, given without the peer's id, and remember it.

        Raises:
            UnreachableError: It is not there.
            ValueError: The address or the id is none.
        """
        connect = p2pd_pb2.ConnectRequest(
            peer=PeerID.from_base58(peer_id).to_bytes(), addrs=[_encoded(address)]
        )
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.CONNECT, connect=connect)
        await self._request(request, timeout_s)

    async def open_stream(
        self, peer_id: str, name: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a new stream to the handler `name` of a peer.

        Raises:
            UnreachableError: There is no way to it, or it has no such handler.
            ValueError: The id is none.
        """
        opening = p2pd_pb2.StreamOpenRequest(
            peer=PeerID.from_base58(peer_id).to_bytes(), proto=[name]
        )
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.STREAM_OPEN, streamOpen=opening)
        reader, writer, _ = await self._ask(request)
        return reader, writer

    async def serve(self, name: str, callback: StreamCallback, timeout_s: float) -> None:
        """Let `callback` take the streams that peers open under `name`.

        Raises:
            UnreachableError: p2pd does not answer.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.p2p.add_binary_stream_handler(name, callback)
        except (TimeoutError, OSError, P2PDaemonError, asyncio.IncompleteReadError) as error:
            raise UnreachableError(f"p2pd does not take the handler {name}: {error}") from error

    async def stop(self) -> None:
        """End p2pd, also a frozen one, and remove what it leaves behind."""
        await _reap(self.p2p)
        self._output.cancel()
        await asyncio.gather(self._output, return_exceptions=True)
        if self._folder.exists():
            _remove_folder(self._folder, self._lock)

    async def _request(self, request: Any, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                _, writer, answer = await self._ask(request)
        except TimeoutError as error:
            raise UnreachableError(f"p2pd did not answer in {timeout_s:.0f} s") from error
        writer.transport.abort()
        return answer

    async def _ask(self, request: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Any]:
        """Return a new connection to p2pd and what it answers to `request`.

        hivemind's own calls leave the connection open when they fail or are cancelled.
        """
        path = self.p2p.daemon_listen_maddr["unix"]
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=_STREAM_BUFFER_BYTES)
        except OSError as error:
            raise UnreachableError(f"p2pd does not listen: {error}") from error
        try:
            await write_pbmsg(writer, request)
            answer = p2pd_pb2.Response()
            await read_pbmsg_safe(reader, answer)
            _raise_for(answer)
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, OSError | asyncio.IncompleteReadError):
                raise UnreachableError(f"p2pd broke off: {error}") from error
            raise
        return reader, writer, answer

    async def _read_output(self) -> None:
        """Keep p2pd's pipe empty, and its last words, in place of hivemind's reader of lines."""
        reader = self.p2p._reader_task  # noqa: SLF001
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        while chunk := await self.p2p._child.stdout.read(1 << 16):  # noqa: SLF001
            self._last_words = (self._last_words + chunk)[-_LAST_WORDS_BYTES:]
            log.debug("p2pd: %s", chunk.decode(errors="replace").strip())


def _raise_for(answer: Any) -> None:
    if answer.type == p2pd_pb2.Response.ERROR:
        raise UnreachableError(answer.error.msg)


def _encoded(address: str) -> bytes:
    """Return a multiaddr as p2pd reads it.

    hivemind writes a peer id in it, as of a relay, as a CID, which p2pd does not understand.
    """
    data = b""
    for at, part in enumerate(address.split("/p2p/")):
        peer_id, slash, rest = ("", "/", part.removeprefix("/")) if at == 0 else part.partition("/")
        if at:
            multihash = PeerID.from_base58(peer_id).to_bytes()
            data += _P2P_CODE + bytes([len(multihash)]) + multihash
        data += Multiaddr(slash + rest).to_bytes() if rest else b""
    return data


async def _reap(p2p: P2P) -> None:
    """End a p2pd in whatever state it is, and hivemind's tasks around it."""
    p2p._terminate()  # noqa: SLF001
    child = p2p._child  # noqa: SLF001
    if child is None:
        return
    try:
        await asyncio.wait_for(child.wait(), _END_TIMEOUT_S)
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        if isinstance(error, asyncio.CancelledError):
            raise


def _make_folder() -> tuple[Path, int]:
    """Return a new folder for sockets and the lock on it; remove those of processes that died."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) + 60 > _LONGEST_SOCKET_PATH:
        base = Path("/tmp")  # noqa: S108 the folder in it is 0700 and its name is new
    for old in _left_behind(base):
        shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=base))
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _left_behind(base: Path) -> Iterator[Path]:
    for folder in base.glob(_FOLDER_PREFIX + "*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            if time.time() - folder.stat().st_mtime < _FRESH_S:
                continue
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(lock)
            yield folder


def _remove_folder(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
