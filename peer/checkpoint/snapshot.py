"""Giving others the global state: which there are, the header that proves it, chunk by chunk.

    snapshots   {} -> the roots of the states that are offered, each with its epoch
    header      {root} -> the canonical header, whose hash is the root
    chunk       {root, buffer, index}, as often as wanted on one stream -> the chunk in frames
    papers      {root} -> the certificate that led there, then the annotation; each may be empty

A state is read from its checkpoint on the disk piece by piece. While one is given away, its
checkpoint is held back from deletion and the averages since then are kept. The taking sides, which
trust nothing of this, are `peer.checkpoint.offers`, `fetch` and `papers`.
"""

import asyncio
import contextlib
import dataclasses
from collections import Counter
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peer.checkpoint.flatfile import FlatFile
from peer.checkpoint.papers import PAPERS
from peer.checkpoint.store import CheckpointStore
from peer.errors import DamagedError, DeclinedError, MisbehavedError, UnreachableError
from peer.run.manifest import Hash
from peer.swarm.admission import Admission
from peer.swarm.throttle import Throttle
from peer.swarm.wire import Body, Channel, Transport, scoped
from peer.training.averages import AverageLog
from peer.training.state import root_of
from peer.training.transfer import offload, timely

SNAPSHOTS, HEADER, CHUNK = "snapshots", "header", "chunk"
MAX_OFFERS = 64
FRAME_BYTES = 1 << 18
"""What comes at once of a chunk: little enough that a slow line brings it within a deadline."""

_STREAMS = 16
_STREAMS_OF_ONE_PEER = 4
_FRAME_GOAL_S = 10.0
"""So few streams are open at once that each gets a frame that often, also on a slow line."""
_HELD = 4
"""At most so many checkpoints are held back, which bounds the disk that joiners can take."""
_LEASE_S = 120.0
"""Whoever asks for nothing for so long is gone."""
_IDLE_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 4.0
_SEND_TIMEOUT_S = 30.0
_ELEMENT_BYTES = 4


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    root: Hash


class _ChunkRequest(_Request):
    buffer: Annotated[int, Field(ge=0, le=1 << 10)]
    index: Annotated[int, Field(ge=0, le=1 << 40)]


@dataclasses.dataclass(eq=False)
class _Served:
    """A checkpoint that is being given away."""

    epoch: int
    file: FlatFile
    holds: contextlib.ExitStack
    used_s: float
    header: "asyncio.Task[bytes] | None" = None

    @property
    def elements(self) -> int:
        """About how many numbers the state is of."""
        return self.file.size_bytes // _ELEMENT_BYTES


_Asked = TypeVar("_Asked", bound=_Request)


class SnapshotServer:
    """Gives the states of this peer's checkpoints to whoever asks. Call `start`, at last `close`.

    Args:
        transport: Where it serves.
        run_id: The run.
        store: The checkpoints.
        limiter: Bounds the bytes per second that go out.
        averages: Where the averages since a state are kept as long as it is given away.
    """

    def __init__(
        self,
        transport: Transport,
        run_id: str,
        store: CheckpointStore,
        limiter: Throttle,
        averages: AverageLog | None = None,
    ) -> None:
        self._transport = transport
        self._run_id = run_id
        self._store = store
        self._limiter = limiter
        self._averages = averages
        self._served: dict[str, _Served] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.refused: Counter[str] = Counter()
        """Requests that were not answered, by reason: busy, slow, malformed, unknown, damaged."""
        streams = _STREAMS
        if limiter.bytes_per_s is not None:
            fitting = int(limiter.bytes_per_s * _FRAME_GOAL_S / FRAME_BYTES)
            streams = min(max(fitting, 2), _STREAMS)
        # One peer alone never takes them all.
        of_one_peer = min(_STREAMS_OF_ONE_PEER, streams // 2)
        self._admission = Admission(self.refused, streams=streams, of_one_peer=of_one_peer)
        self.sent_bytes = 0
        """Bytes of headers, chunks and papers that were sent."""
        self.asked = False
        """Whether somebody looked for a state since this was last set to False."""

    async def start(self) -> None:
        """Serve from now on."""
        for name, handler in (
            (SNAPSHOTS, self._give_offers),
            (HEADER, self._give_header),
            (CHUNK, self._give_chunks),
            (PAPERS, self._give_papers),
        ):
            await self._transport.serve(scoped(self._run_id, name), handler)

    def close(self) -> None:
        """Let go of all that is held."""
        if self._timer is not None:
            self._timer.cancel()
        for root in list(self._served):
            self._release(root)

    async def _give_offers(self, channel: Channel) -> None:
        # A stream that ends is no error, here and below.
        with contextlib.suppress(UnreachableError), self._admission.stream(channel.remote):
            await timely(channel.receive(), _CALL_TIMEOUT_S)
            self.asked = True
            newest = self._store.roots()[:MAX_OFFERS]
            roots = {stored.state_root: stored.epoch for stored in newest}
            await timely(channel.send({"roots": roots}), _CALL_TIMEOUT_S)

    async def _give_papers(self, channel: Channel) -> None:
        with contextlib.suppress(UnreachableError), self._admission.stream(channel.remote):
            frame = await timely(channel.receive(), _IDLE_TIMEOUT_S)
            for paper in self._papers(self._parsed(_Request, frame.header).root):
                await self._send(channel, paper)

    def _papers(self, root: str) -> tuple[bytes, bytes]:
        try:
            return self._store.papers(root).to_frames()
        except LookupError as error:
            raise self._declined("unknown", "that state is not here") from error
        except (OSError, DamagedError) as error:
            raise self._declined("damaged", "its papers cannot be read here") from error

    async def _give_header(self, channel: Channel) -> None:
        with contextlib.suppress(UnreachableError), self._admission.stream(channel.remote):
            frame = await timely(channel.receive(), _IDLE_TIMEOUT_S)
            root = self._parsed(_Request, frame.header).root
            await self._send(channel, await self._header(root))

    async def _give_chunks(self, channel: Channel) -> None:
        with contextlib.suppress(UnreachableError), self._admission.stream(channel.remote):
            while True:
                frame = await timely(channel.receive(), _IDLE_TIMEOUT_S)
                request = self._parsed(_ChunkRequest, frame.header)
                data = memoryview(await self._chunk(request))
                for start in range(0, len(data), FRAME_BYTES):
                    await self._send(channel, data[start : start + FRAME_BYTES])

    async def _header(self, root: str) -> bytes:
        served = self._serve(root)
        if served.header is None:
            served.header = asyncio.create_task(self._make_header(root, served))
        # A joiner that leaves does not end what others wait for, too.
        try:
            return await asyncio.shield(served.header)
        except DeclinedError:
            served.header = None  # the disk may be read again later
            raise

    async def _make_header(self, root: str, served: _Served) -> bytes:
        """Return the header of a state, having read all of it once."""
        hash_ = self._store.manifest_hash
        try:
            header = await offload(served.elements, served.file.header, hash_, served.epoch)
        except (OSError, DamagedError) as error:
            raise self._declined("damaged", "that state cannot be read here") from error
        if root_of(header) != root:
            raise self._declined("damaged", "that state is damaged here")
        return header.to_bytes()

    async def _chunk(self, request: _ChunkRequest) -> bytes:
        served, place = self._serve(request.root), (request.buffer, request.index)
        try:
            return await offload(served.elements, served.file.chunk, *place)
        except IndexError as error:
            self.refused["malformed"] += 1
            raise MisbehavedError(str(error)) from error
        except (OSError, DamagedError) as error:
            raise self._declined("damaged", "that state cannot be read here") from error

    def _serve(self, root: str) -> _Served:
        """Return the open checkpoint of a state, held back from now on."""
        now_s = asyncio.get_running_loop().time()
        served = self._served.get(root)
        if served is None:
            served = self._served[root] = self._opened(root, now_s)
            while len(self._served) > _HELD:
                self._release(min(self._served, key=lambda r: self._served[r].used_s))
            self._expire()
        served.used_s = now_s
        return served

    def _opened(self, root: str, now_s: float) -> _Served:
        try:
            with contextlib.ExitStack() as holds:
                epoch, path = holds.enter_context(self._store.hold(root))
                if self._averages is not None:
                    holds.enter_context(self._averages.pin(epoch))
                return _Served(epoch, FlatFile(path), holds.pop_all(), now_s)
        except (LookupError, FileNotFoundError) as error:
            raise self._declined("unknown", "that state is not here") from error
        except (OSError, DamagedError) as error:
            raise self._declined("damaged", "that state cannot be read here") from error

    def _expire(self) -> None:
        """Let go of what nobody asked for lately, and look again later."""
        loop = asyncio.get_running_loop()
        for root, served in list(self._served.items()):
            if served.used_s <= loop.time() - _LEASE_S:
                self._release(root)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(_LEASE_S, self._expire) if self._served else None

    def _release(self, root: str) -> None:
        self._served.pop(root).holds.close()

    async def _send(self, channel: Channel, body: Body) -> None:
        await self._limiter.take(len(body))
        await channel.may_send(len(body))
        await timely(channel.send({}, body), _SEND_TIMEOUT_S)
        self.sent_bytes += len(body)

    def _parsed(self, kind: type[_Asked], header: object) -> _Asked:
        try:
            return kind.model_validate(header)
        except ValidationError as error:
            self.refused["malformed"] += 1
            raise MisbehavedError("a request names a root, and a chunk of it") from error

    def _declined(self, reason: str, words: str) -> DeclinedError:
        self.refused[reason] += 1
        return DeclinedError(words)
