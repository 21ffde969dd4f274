"""Taking the global state, by its root, from several strangers at once.

The header is proven by the root and each chunk by the header, so it does not matter who gives what:
a donor that gives a wrong byte, or nothing for too long, is named and left, and the others give
what it did not. What is here stays on the disk until the state is whole, and a later call goes on
from there. The state is loaded all or nothing.
"""

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from peer.checkpoint.snapshot import CHUNK, FRAME_BYTES, HEADER
from peer.checkpoint.staging import Place, Staging, Wanted
from peer.errors import ConfigurationError, MisbehavedError, PeerError, StalledError
from peer.swarm.download import FetchError, OnProgress, OnRefusal, Refusal
from peer.swarm.wire import Channel, Transport, call, scoped
from peer.training.state import GlobalState, StateHeader, root_of
from peer.training.transfer import offload, timely

_DONORS = 8
"""At most so many are asked at once."""
_WINDOW = 4
"""Chunks asked of one donor and not here yet: enough to keep a line of 100 ms and 40 MB/s busy."""
_ASKED_OF = 2
"""Towards the end, when nothing else is left, a chunk is asked of a second donor as well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a donor may take before it is left.

    Attributes:
        open_s: For a stream.
        header_s: For the header; the donor may have to read all of its state for it.
        frame_s: For each frame of a chunk.
        slowest_bytes_per_s: What a donor has to give at least, over any `window_s`.
        window_s: Over how long that is measured.
    """

    open_s: float = 15.0
    header_s: float = 180.0
    frame_s: float = 30.0
    slowest_bytes_per_s: float = 32_000.0
    window_s: float = 60.0


@contextlib.asynccontextmanager
async def fetched_snapshot(
    transport: Transport,
    run_id: str,
    wanted: Wanted,
    donors: Sequence[str],
    staging: Path,
    on_progress: OnProgress | None = None,
    on_refusal: OnRefusal | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[GlobalState]:
    """Fetch the state that `wanted` names, and give it.

    What was staged goes when the context ends well: until then a later call would begin with it.

    Args:
        transport: The way to the donors.
        run_id: The run.
        wanted: The state.
        donors: Peer ids; each is left at its first failure.
        staging: A directory for this alone. One call at a time.
        on_progress: Is told the bytes that are here and those there will be, after each chunk.
        on_refusal: Is told of every donor that failed, also where others gave the state.
        patience: The deadlines. The whole has none; cancelling is as good as any interruption.

    Raises:
        FetchError: No donor is left; what is here stays, and a later call goes on from there.
        MisbehavedError: The root itself is hostile: its state is of another model or not finite.
        ConfigurationError: The disk is full or fails.
    """
    fetch = _Fetch(
        transport=transport,
        run_id=run_id,
        wanted=wanted,
        donors=[donor for donor in dict.fromkeys(donors) if donor != transport.peer_id],
        on_progress=on_progress or (lambda _done, _total: None),
        on_refusal=on_refusal or (lambda _refusal: None),
        patience=patience or Patience(),
    )
    try:
        staged = Staging(staging, wanted)
        state = await fetch.run(staged)
    except OSError as error:
        raise ConfigurationError(
            f"the snapshot cannot be written to {staging}: {error.strerror or error}; mend the "
            "disk, or choose another --home"
        ) from error
    yield state
    await offload(wanted.elements, staged.remove)


@dataclasses.dataclass(kw_only=True)
class _Fetch:
    """A state, the donors that are left, and those that were."""

    transport: Transport
    run_id: str
    wanted: Wanted
    donors: list[str]
    on_progress: OnProgress
    on_refusal: OnRefusal
    patience: Patience
    refusals: list[Refusal] = dataclasses.field(default_factory=list)

    async def run(self, staged: Staging) -> GlobalState:
        """Return the state; leave nothing in `staged` that a later call cannot use."""
        elements = self.wanted.elements
        header = await offload(elements, staged.header) or await self._learn_header()
        self.wanted.check(header)
        await offload(elements, staged.begin, header)
        missing = await offload(elements, staged.missing, header)
        await _Gathering(self, staged, header, missing).run()
        try:
            return await offload(elements, staged.load, header.epoch)
        except MisbehavedError:
            staged.remove()
            raise

    async def among_donors(
        self, work: Callable[[str], Awaitable[None]], enough: Callable[[], bool]
    ) -> None:
        """Let donors do `work`, several at once, until it is `enough`; leave those that fail.

        Raises:
            FetchError: All failed, and it is not enough.
        """
        waiting, running = deque(self.donors), set[asyncio.Task[None]]()
        try:
            while not enough():
                while waiting and len(running) < _DONORS:
                    running.add(asyncio.create_task(self._attempt(waiting.popleft(), work)))
                if not running:
                    raise FetchError(f"the snapshot {self.wanted.root[:12]}", self.refusals)
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _attempt(self, donor: str, work: Callable[[str], Awaitable[None]]) -> None:
        try:
            await work(donor)
        except PeerError as error:
            refusal = Refusal.of(donor, error)
            self.donors.remove(donor)
            self.refusals.append(refusal)
            self.on_refusal(refusal)

    async def _learn_header(self) -> StateHeader:
        """Return the header that has the root, from whoever gives it first."""
        found: list[StateHeader] = []

        async def ask(donor: str) -> None:
            found.append(await self._ask_header(donor))

        await self.among_donors(ask, lambda: bool(found))
        return found[0]

    async def _ask_header(self, donor: str) -> StateHeader:
        frame = await call(
            self.transport,
            donor,
            scoped(self.run_id, HEADER),
            {"root": self.wanted.root},
            timeout_s=self.patience.header_s,
            max_body_bytes=self.wanted.max_header_bytes,
        )
        try:
            header = StateHeader.from_bytes(frame.body)
        except ValueError as error:
            raise MisbehavedError("what it gave is no header of a state") from error
        if root_of(header) != self.wanted.root:
            raise MisbehavedError("it gave the header of another state")
        return header


class _Gathering:
    """Fetches the chunks that are missing from a staging directory."""

    def __init__(
        self, fetch: _Fetch, staged: Staging, header: StateHeader, missing: Sequence[Place]
    ) -> None:
        self._fetch = fetch
        self._staged = staged
        self._header = header
        self._shares = Shares(missing)
        self._changed = asyncio.Event()
        self._total_bytes = sum(fetch.wanted.sizes)
        self._bytes = self._total_bytes - sum(staged.size_of(place) for place in missing)

    async def run(self) -> None:
        """Return when all chunks are there.

        Raises:
            FetchError: No donor is left before that.
        """
        self._fetch.on_progress(self._bytes, self._total_bytes)
        await self._fetch.among_donors(self._draw, lambda: not self._shares.left)

    async def _draw(self, donor: str) -> None:
        """Take chunks from a donor until all are there, from whomever."""
        patience, fetch = self._fetch.patience, self._fetch
        try:
            opening = fetch.transport.open(donor, scoped(fetch.run_id, CHUNK))
            channel = await timely(opening, patience.open_s)
            try:
                await self._exchange(donor, channel)
            finally:
                channel.close()
        finally:
            self._shares.release(donor)
            self._changed.set()

    async def _exchange(self, donor: str, channel: Channel) -> None:
        asked: deque[Place] = deque()
        rate = _Rate(self._fetch.patience)
        while self._shares.left:
            while len(asked) < _WINDOW and (place := self._shares.take(donor)) is not None:
                request = {"root": self._fetch.wanted.root, "buffer": place[0], "index": place[1]}
                await timely(channel.send(request), self._fetch.patience.frame_s)
                asked.append(place)
            if not asked:
                # Others were asked for all that is left, each of them with a deadline.
                self._changed.clear()
                await self._changed.wait()
                continue
            await self._receive(channel, asked.popleft(), rate)

    async def _receive(self, channel: Channel, place: Place, rate: "_Rate") -> None:
        data = bytearray(self._staged.size_of(place))
        for start in range(0, len(data), FRAME_BYTES):
            size = min(FRAME_BYTES, len(data) - start)
            rate.waited(await channel.may_receive(size))
            body = (await timely(channel.receive(size), self._fetch.patience.frame_s)).body
            if len(body) != size:
                raise MisbehavedError(f"it gave {len(body)} bytes where {size} were due")
            data[start : start + size] = body
            rate.note(size)
        hash_ = self._header.chunk_hash(*place)
        kept = await offload(self._fetch.wanted.elements, self._staged.keep, place, data, hash_)
        if not kept:
            raise MisbehavedError("a chunk does not have its hash")
        if self._shares.done(place):
            self._changed.set()
            self._bytes += len(data)
            self._fetch.on_progress(self._bytes, self._total_bytes)


class _Rate:
    """What a donor gives, so that one that gives next to nothing does not hold a join up.

    What it gave stays here, so that whoever has nobody faster goes on with it in the next call.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._since_s = asyncio.get_running_loop().time()
        self._bytes = 0

    def waited(self, seconds: float) -> None:
        """Note that it was our own line that let nothing in for so long."""
        self._since_s += seconds

    def note(self, n: int) -> None:
        """Note that `n` bytes came; StalledError if they are too few for the time."""
        self._bytes += n
        seconds = asyncio.get_running_loop().time() - self._since_s
        if seconds < self._patience.window_s:
            return
        if self._bytes < seconds * self._patience.slowest_bytes_per_s:
            raise StalledError(f"it gave {self._bytes / seconds / 1e3:.0f} kB/s")
        self._since_s, self._bytes = asyncio.get_running_loop().time(), 0


class Shares:
    """Which chunks are asked of whom."""

    def __init__(self, missing: Iterable[Place]) -> None:
        self._waiting = deque(missing)
        self._asked: dict[Place, set[str]] = {}  # those asked first come first

    @property
    def left(self) -> int:
        """How many chunks are not here yet."""
        return len(self._waiting) + len(self._asked)

    def take(self, donor: str) -> Place | None:
        """Return what to ask `donor` for, if there is anything."""
        if self._waiting:
            place = self._waiting.popleft()
            self._asked[place] = {donor}
            return place
        for place, donors in self._asked.items():
            if donor not in donors and len(donors) < _ASKED_OF:
                donors.add(donor)
                return place
        return None

    def release(self, donor: str) -> None:
        """Ask others for what `donor` was asked for: it will not give it."""
        for place, donors in list(self._asked.items()):
            donors.discard(donor)
            if not donors:
                del self._asked[place]
                self._waiting.appendleft(place)

    def done(self, place: Place) -> bool:
        """Note that a chunk is here; return whether it was not before."""
        return self._asked.pop(place, None) is not None
