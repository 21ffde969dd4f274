"""Hashed transfer, the giving side: a run's manifest, and its files by SHA-256, to whoever asks.

A request names a hash and an offset; the answer is a frame with the file's size, and then frames of
`FRAME_BYTES` each, the last one shorter. Nothing here knows what is in a file, nor whether a file
is what its hash names: whoever takes one checks that (`peer.swarm.download`).
"""

import asyncio
import io
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peer.errors import DeclinedError, MisbehavedError, StalledError
from peer.run.manifest import Hash
from peer.swarm.admission import Admission
from peer.swarm.throttle import Throttle
from peer.swarm.wire import Body, Channel, Frame, Transport, scoped

FRAME_BYTES = 1 << 18
"""Small enough that a slow line fills one in seconds, large enough to cost nothing."""

MAX_BLOB_BYTES = 1 << 50
_STREAMS = 64
_STREAMS_OF_ONE_PEER = 4
_TURNS = 8
_REQUEST_TIMEOUT_S = 10.0
_SEND_TIMEOUT_S = 30.0
_FRAME_GOAL_S = 2.0

Found = Path | bytes | None
Find = Callable[[str], Found | Awaitable[Found]]
"""Gives a file by its SHA-256. Only what strangers may have: it is the guard of everything else."""


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    sha256: Hash
    offset: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]


class BlobServer:
    """Gives a run's manifest and files to whoever asks. Call `start`.

    Args:
        transport: Where it serves.
        run_id: The run.
        find: See `Find`.
        manifest: The manifest's TOML, and the text of the founders' signatures if there are any.
        throttle: Bounds the bytes per second that go out.
    """

    def __init__(
        self,
        transport: Transport,
        run_id: str,
        find: Find,
        manifest: tuple[str, str | None],
        throttle: Throttle,
    ) -> None:
        self._transport = transport
        self._run_id = run_id
        self._find = find
        self._manifest = manifest
        self._throttle = throttle
        self.refused: Counter[str] = Counter()
        """Requests that were not answered, by reason: busy, malformed, unknown, slow."""
        # So few at once that even on a slow line none of them waits long for a frame.
        rate = throttle.bytes_per_s or math.inf
        turns = max(1.0, min(_TURNS, rate * _FRAME_GOAL_S / FRAME_BYTES))
        self._admission = Admission(
            self.refused, streams=_STREAMS, of_one_peer=_STREAMS_OF_ONE_PEER, turns=int(turns)
        )
        self.sent_bytes = 0
        """Bytes of files and manifests that were sent."""

    async def start(self) -> None:
        """Serve from now on."""
        await self._transport.serve(scoped(self._run_id, "manifest"), self._give_manifest)
        await self._transport.serve(scoped(self._run_id, "blob"), self._give_blob)

    async def _give_manifest(self, channel: Channel) -> None:
        with self._admission.stream(channel.remote):
            await self._request(channel)
            text, signatures = self._manifest
            await self._send(channel, {"signatures": signatures}, text.encode())

    async def _give_blob(self, channel: Channel) -> None:
        with self._admission.stream(channel.remote):
            frame = await self._request(channel)
            try:
                request = _Request.model_validate(frame.header)
            except ValidationError as error:
                self.refused["malformed"] += 1
                raise MisbehavedError("a request names a sha256 and an offset") from error
            async with self._admission.turn():
                found = self._find(request.sha256)
                if found is not None and not isinstance(found, Path | bytes):
                    found = await found
                if found is None:
                    self.refused["unknown"] += 1
                    raise DeclinedError("that is not here")
                await self._give(channel, found, request.offset)

    async def _give(self, channel: Channel, found: Path | bytes, offset: int) -> None:
        try:
            with _opened(found) as file:
                size = file.seek(0, io.SEEK_END)
                await self._send(channel, {"size": size})
                file.seek(offset)
                for start in range(offset, size, FRAME_BYTES):
                    body = file.read(min(FRAME_BYTES, size - start))
                    if len(body) < min(FRAME_BYTES, size - start):
                        raise DeclinedError("that was cut short here while it was sent")
                    await self._send(channel, {}, body)
        except OSError as error:
            self.refused["unknown"] += 1
            raise DeclinedError("that cannot be read here") from error

    async def _request(self, channel: Channel) -> Frame:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                return await channel.receive()
        except TimeoutError as error:
            raise StalledError(f"{channel.remote} asks for nothing") from error

    async def _send(self, channel: Channel, header: dict[str, object], body: Body = b"") -> None:
        await self._throttle.take(len(body))
        await channel.may_send(len(body))
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await channel.send(header, body)
        except TimeoutError as error:
            raise StalledError(f"{channel.remote} does not take what it asked for") from error
        self.sent_bytes += len(body)


def _opened(found: Path | bytes) -> BinaryIO:
    return io.BytesIO(found) if isinstance(found, bytes) else found.open("rb")
