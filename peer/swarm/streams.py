"""Streams over libp2p: the real transport behind `peer.swarm.wire`."""

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peer.errors import MisbehavedError, PeerError, UnreachableError
from peer.swarm.throttle import Line
from peer.swarm.wire import Channel, Handler, Traffic, attend

if TYPE_CHECKING:
    from peer.swarm.libp2p import Libp2p

log = logging.getLogger(__name__)

OnMisbehaved = Callable[[str, str, str], None]
"""Takes a peer's id, the name of the handler it misbehaved with, and what it did."""

MAX_STREAMS_PER_PEER = 128

_OPEN_TIMEOUT_S = 20.0
_SERVE_TIMEOUT_S = 5.0
_LINGER_S = 3.0
_SLICE_BYTES = 1 << 18


class StreamTransport:
    """Streams over libp2p, as `peer.swarm.wire` knows them."""

    def __init__(
        self, libp2p: "Libp2p", on_misbehaved: OnMisbehaved | None, line: Line | None = None
    ) -> None:
        self.traffic = Traffic()
        self.line = line or Line.of(None, None)
        self._libp2p = libp2p
        self._on_misbehaved = on_misbehaved or _log_misbehaviour
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: Counter[str] = Counter()
        self._closed = False

    @property
    def peer_id(self) -> str:
        """Our own peer id."""
        return self._libp2p.peer_id

    async def open(self, peer_id: str, name: str) -> Channel:
        """Return a new stream to the handler `name` of a peer.

        Raises:
            UnreachableError: There is no way to it, or it has no such handler.
        """
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                reader, writer = await self._libp2p.open_stream(peer_id, name)
        except (TimeoutError, ValueError, UnreachableError) as error:
            raise UnreachableError(f"there is no way to {peer_id}: {error}") from error
        return Channel(peer_id, reader, writer, self.traffic, self.line)

    async def serve(self, name: str, handler: Handler) -> None:
        """Let `handler` serve the streams that peers open under `name`."""
        callback = functools.partial(self._attend, name, handler)
        await self._libp2p.serve(name, callback, _SERVE_TIMEOUT_S)

    async def close(self) -> None:
        """End all handlers, and begin no other."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _attend(
        self,
        name: str,
        handler: Handler,
        info: Any,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        remote = info.peer_id.to_base58()
        if self._closed:
            writer.transport.abort()
            return
        if self._streams[remote] >= MAX_STREAMS_PER_PEER:
            self._on_misbehaved(remote, name, "it opens too many streams at once")
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._streams[remote] += 1
        try:
            late = Channel(remote, reader, _LateClose(writer), self.traffic, self.line)
            late.address = str(info.addr)
            try:
                await attend(late, handler)
            except MisbehavedError as error:
                self._on_misbehaved(remote, name, str(error))
            await _linger(reader)
        except PeerError as error:
            log.debug("%s of %s: %s", name, remote, error)
        except asyncio.CancelledError:
            if not self._closed:  # asyncio before 3.12 would log ours as an error of its own
                raise
        except Exception:
            log.exception("the handler %s failed", name)
        finally:
            writer.close()
            self._tasks.discard(task)
            self._streams[remote] -= 1
            if not self._streams[remote]:
                del self._streams[remote]


class _LateClose:
    """A writer that is closed later, by somebody else."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.write = writer.write
        self.drain = writer.drain

    def close(self) -> None:
        """Do nothing yet."""


async def _linger(reader: asyncio.StreamReader) -> None:
    """Read on until the other end closes, for a while.

    p2pd drops an answer that is under way if we close while the other end still sends.
    """
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_LINGER_S):
            while await reader.read(_SLICE_BYTES):
                pass


def _log_misbehaviour(peer_id: str, name: str, reason: str) -> None:
    log.warning("%s misbehaved with %s: %s", peer_id, name, reason)
