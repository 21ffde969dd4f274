"""A swarm in memory behind the real interface, on a clock that runs only when nobody works."""

import asyncio
import collections
import contextlib
import selectors

from peer.errors import UnreachableError
from peer.swarm.wire import Channel, Traffic, attend


class _PatientSelector(selectors.DefaultSelector):
    """Never waits: the time until the next timer passes at once."""

    def __init__(self):
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout=None):
        events = super().select(0)
        if not events and timeout is not None and timeout > 0:
            self.now_s += timeout
        elif not events and timeout is None:
            raise RuntimeError("everybody waits for ever")
        return events


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time. Threads and sockets do not work in it."""

    def __init__(self):
        self._patient = _PatientSelector()
        super().__init__(self._patient)

    def time(self):
        return self._patient.now_s


def run(coroutine):
    """Run `coroutine` to its end on a fake clock and return its result."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(coroutine)


class _Pipe:
    """One direction of a stream; a message takes the swarm's latency."""

    def __init__(self, latency_s):
        self._reader = asyncio.StreamReader(limit=1 << 30)
        self._latency_s = latency_s
        self._broken = False
        self._closed = False
        self._under_way = collections.deque()  # timers of one moment come in no order

    def write(self, data):
        if self._broken or self._closed:
            raise ConnectionResetError("the link is down")
        self._later(self._reader.feed_data, bytes(data))

    async def drain(self):
        await asyncio.sleep(0)
        if self._broken:
            raise ConnectionResetError("the link is down")

    def close(self):
        if not self._closed:
            self._closed = True
            self._later(self._reader.feed_eof)

    def break_off(self):
        self._broken = True
        if not self._reader.at_eof():
            self._reader.set_exception(ConnectionResetError("the link is down"))

    async def readexactly(self, n):
        return await self._reader.readexactly(n)

    def _later(self, action, *arguments):
        self._under_way.append((action, arguments))

        def act():
            action, arguments = self._under_way.popleft()
            if not self._broken:
                action(*arguments)

        asyncio.get_running_loop().call_later(self._latency_s, act)


class MemorySwarm:
    """Peers that reach each other unless a link is cut or a peer is dead or frozen."""

    def __init__(self, latency_s=0.001):
        self.latency_s = latency_s
        self.cut = set()  # frozensets of two peer ids
        self.frozen = set()
        self.on_open = lambda ours, theirs, name: None  # called before each stream is opened
        self._peers = {}
        self._streams = []

    @property
    def alive(self):
        return set(self._peers)

    def transport(self, peer_id):
        self._peers[peer_id] = MemoryTransport(self, peer_id)
        return self._peers[peer_id]

    def kill(self, peer_id):
        """Drop a peer: all its streams break and none can be opened."""
        self._peers.pop(peer_id, None)
        self._break(lambda ends: peer_id in ends)

    def sever(self, one, other):
        """Cut the link between two peers; `mend` joins it again."""
        self.cut.add(frozenset((one, other)))
        self._break(lambda ends: ends == {one, other})

    def mend(self, one, other):
        self.cut.discard(frozenset((one, other)))

    def _break(self, concerned):
        kept = []
        for ends, pipes in self._streams:
            if concerned(ends):
                for pipe in pipes:
                    pipe.break_off()
            else:
                kept.append((ends, pipes))
        self._streams = kept

    async def connect(self, ours, theirs, name):
        self.on_open(ours, theirs, name)
        await asyncio.sleep(self.latency_s)
        while theirs in self.frozen or ours in self.frozen:
            await asyncio.sleep(0.1)
        target = self._peers.get(theirs)
        if target is None or ours not in self._peers or frozenset((ours, theirs)) in self.cut:
            raise UnreachableError(f"there is no way to {theirs}")
        handler = target.handlers.get(name)
        if handler is None:
            raise UnreachableError(f"{theirs} does not serve {name}")
        there, back = _Pipe(self.latency_s), _Pipe(self.latency_s)
        self._streams = [s for s in self._streams[-2000:]] + [({ours, theirs}, (there, back))]
        incoming = Channel(ours, there, back, target.traffic)
        target.spawn(attend(incoming, handler))
        return Channel(theirs, back, there, self._peers[ours].traffic)


class MemoryTransport:
    """The way of one peer to the others."""

    def __init__(self, swarm, peer_id):
        self._swarm = swarm
        self.peer_id = peer_id
        self.traffic = Traffic()
        self.handlers = {}
        self.failures = []
        self._tasks = set()

    async def open(self, peer_id, name):
        return await self._swarm.connect(self.peer_id, peer_id, name)

    async def serve(self, name, handler):
        self.handlers[name] = handler

    def spawn(self, coroutine):
        task = asyncio.ensure_future(self._guard(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, coroutine):
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await coroutine
            except Exception as error:
                self.failures.append(error)
