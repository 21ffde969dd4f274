"""Messages between peers: frames over streams, a small JSON header and raw bytes in each.

`Transport` is the interface that everything above knows; `peer.swarm.node` has the real one, on
libp2p, and the tests have one in memory. Streams are raw because a servicer's messages have no
bound on their size: here a receiver says how much it will take before it reads.
"""

import asyncio
import dataclasses
import json
import math
import re
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from peer.errors import DeclinedError, MisbehavedError, PeerError, UnreachableError
from peer.swarm.throttle import Line, Throttle

PROTOCOL = 1
"""Peers of different protocols do not understand each other."""

MAX_HEADER_BYTES = 1 << 20
_PREFIX = struct.Struct(">IQ")
_SLICE_BYTES = 1 << 20
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SEND_TIMEOUT_S = 30.0
"""A stream that takes nothing for so long is as good as broken."""

_SMALL_BYTES = 1 << 16
"""Frames up to this size go ahead of the rest: votes and reports have deadlines of seconds."""

_LONGEST_DEBT_S = 2.0
"""So far ahead they may be of what the line allows; beyond it they wait like the others."""

_BULK_BYTES = 1 << 18
"""The usual size of a large frame: one is waited for even where it takes longer than that."""

Body = bytes | bytearray | memoryview


@dataclasses.dataclass(frozen=True)
class Frame:
    """One message."""

    header: Mapping[str, Any]
    body: bytes


@dataclasses.dataclass
class Traffic:
    """Bytes over the network since the beginning, frames' prefixes included."""

    sent_bytes: int = 0
    received_bytes: int = 0


class Reader(Protocol):
    """What a channel reads from; asyncio's `StreamReader` is one."""

    async def readexactly(self, n: int, /) -> bytes:
        """Return the next `n` bytes; raises IncompleteReadError at the end."""
        ...


class Writer(Protocol):
    """What a channel writes to; asyncio's `StreamWriter` is one."""

    def write(self, data: Any, /) -> None:
        """Queue `data`."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more."""
        ...

    def close(self) -> None:
        """End the stream."""
        ...


class _Lane:
    """One direction of a channel on the line that all channels share."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self._reserved = 0
        rate = throttle.bytes_per_s or math.inf
        self._patience_s = _LONGEST_DEBT_S + _BULK_BYTES / rate  # a large frame may be on its way

    async def reserve(self, n: int) -> float:
        """Wait until the line lets `n` bytes through; return how long that was, in seconds."""
        due = n - self._reserved
        if due <= 0 or self._throttle.bytes_per_s is None:
            return 0.0
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._reserved = n
        await self._throttle.take(due)
        return loop.time() - began_s

    async def pass_through(self, n: int) -> None:
        """Take a frame of `n` bytes off what is reserved; wait for the rest unless it is small."""
        due = n - self._reserved
        self._reserved = max(0, -due)
        if due > _SMALL_BYTES or (due > 0 and self._throttle.debt_s > self._patience_s):
            await self._throttle.take(due)
        elif due > 0:
            self._throttle.charge(due)


class Channel:
    """A stream of frames to or from one peer, whose id the transport has proven.

    Every frame counts on the line. Whoever moves much waits for it with `may_send` or
    `may_receive`, outside its own deadlines: how slow our line is says nothing about the other end.

    Args:
        remote: The other end's peer id.
        reader: Where frames come from.
        writer: Where frames go.
        traffic: Counts the bytes.
        line: Bounds the bytes per second; nothing does by default.
    """

    def __init__(
        self,
        remote: str,
        reader: Reader,
        writer: Writer,
        traffic: Traffic,
        line: Line | None = None,
    ) -> None:
        self.remote = remote
        self.address = ""
        """The multiaddr that the other end is seen at, where that is known."""
        self._reader = reader
        self._writer = writer
        self._traffic = traffic
        line = line or Line.of(None, None)
        self._up, self._down = _Lane(line.up), _Lane(line.down)

    async def may_send(self, body_bytes: int) -> float:
        """Wait until our line lets a frame of so many bytes out; return the seconds that took."""
        return await self._up.reserve(_PREFIX.size + len(b"{}") + body_bytes)

    async def may_receive(self, body_bytes: int) -> float:
        """Wait until our line lets a frame of so many bytes in; return the seconds that took."""
        return await self._down.reserve(_PREFIX.size + len(b"{}") + body_bytes)

    async def send(self, header: Mapping[str, Any], body: Body = b"") -> None:
        """Send one frame; `body` is bytes, or a view of them.

        Raises:
            UnreachableError: The stream broke, or the other end takes nothing.
        """
        head = json.dumps(header, separators=(",", ":")).encode()
        view = memoryview(body)
        await self._up.pass_through(_PREFIX.size + len(head) + len(view))
        try:
            self._writer.write(_PREFIX.pack(len(head), len(view)) + head)
            for start in range(0, len(view), _SLICE_BYTES):
                self._writer.write(view[start : start + _SLICE_BYTES])
                await self._drain()
            await self._drain()
        except (OSError, RuntimeError) as error:
            raise UnreachableError(f"the stream to {self.remote} broke: {error}") from error
        self._traffic.sent_bytes += _PREFIX.size + len(head) + len(view)

    async def _drain(self) -> None:
        async with asyncio.timeout(_SEND_TIMEOUT_S):
            await self._writer.drain()

    async def receive(self, max_body_bytes: int = 0) -> Frame:
        """Return the next frame, with a body of at most `max_body_bytes`.

        Raises:
            UnreachableError: The stream broke or ended.
            DeclinedError: The other end answered that it will not.
            MisbehavedError: The frame is larger than allowed, or no frame.
        """
        try:
            prefix = await self._reader.readexactly(_PREFIX.size)
            head_bytes, body_bytes = _PREFIX.unpack(prefix)
            if head_bytes > MAX_HEADER_BYTES or body_bytes > max_body_bytes:
                raise MisbehavedError(
                    f"{self.remote} sends {head_bytes} + {body_bytes} bytes where "
                    f"{max_body_bytes} are the most"
                )
            head = await self._reader.readexactly(head_bytes)
            body = await self._reader.readexactly(body_bytes)
            # What came, not what was announced: a prefix alone must not use up the line.
            await self._down.pass_through(_PREFIX.size + head_bytes + body_bytes)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise UnreachableError(f"the stream from {self.remote} ended") from error
        self._traffic.received_bytes += _PREFIX.size + head_bytes + body_bytes
        header = _parse(head, self.remote)
        if "error" in header:
            words = "".join(c if c.isprintable() else "?" for c in str(header["error"])[:300])
            raise DeclinedError(words)
        return Frame(header, body)

    def close(self) -> None:
        """End the stream; what was sent still arrives."""
        self._writer.close()


Handler = Callable[[Channel], Awaitable[None]]
"""Serves one stream that a peer opened. A PeerError that it raises is told to that peer."""


class Transport(Protocol):
    """The way to other peers."""

    @property
    def peer_id(self) -> str:
        """Our own peer id."""
        ...

    @property
    def traffic(self) -> Traffic:
        """All bytes so far."""
        ...

    async def open(self, peer_id: str, name: str) -> Channel:
        """Return a new stream to the handler `name` of a peer.

        Raises:
            UnreachableError: There is no way to it, or it has no such handler.
        """
        ...

    async def serve(self, name: str, handler: Handler) -> None:
        """Let `handler` serve the streams that peers open under `name`."""
        ...


async def call(
    transport: Transport,
    peer_id: str,
    name: str,
    header: Mapping[str, Any],
    *,
    timeout_s: float,
    max_body_bytes: int = 0,
) -> Frame:
    """Send one frame to a peer's handler and return its one answer.

    Raises:
        UnreachableError: No answer came in `timeout_s`.
        DeclinedError: The peer will not.
        MisbehavedError: The answer is not what the protocol allows.
    """
    try:
        async with asyncio.timeout(timeout_s):
            channel = await transport.open(peer_id, name)
            try:
                await channel.send(header)
                return await channel.receive(max_body_bytes)
            finally:
                channel.close()
    except TimeoutError as error:
        raise UnreachableError(f"{peer_id} did not answer in {timeout_s:.0f} s") from error


async def attend(channel: Channel, handler: Handler) -> None:
    """Run `handler` on a stream that a peer opened; the stream is closed whatever happens."""
    try:
        await handler(channel)
    except DeclinedError as error:
        await _tell(channel, str(error))
    except TimeoutError:
        await _tell(channel, "that took too long")
    except MisbehavedError as error:
        await _tell(channel, str(error))
        raise
    finally:
        channel.close()


async def _tell(channel: Channel, text: str) -> None:
    try:
        await channel.send({"error": text})
    except PeerError:
        return


def scoped(run_id: str, name: str) -> str:
    """Return the full name of a handler of one run: peers of other runs cannot meet it."""
    return f"/ctpeer/{PROTOCOL}/{run_id}/{name}"


def _parse(head: bytes, remote: str) -> dict[str, Any]:
    try:
        header = json.loads(head, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise MisbehavedError(f"{remote} sent a header that is not JSON") from error
    if not isinstance(header, dict):
        raise MisbehavedError(f"{remote} sent a header that is no JSON object")
    if _SURROGATE.search(head) and not _is_text(header):
        raise MisbehavedError(f"{remote} sent a header with text that is none")
    return header


def _is_text(header: dict[str, Any]) -> bool:
    """Return whether UTF-8 can say what stands in `header`: half of a surrogate pair is no text."""
    try:
        json.dumps(header, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
