"""A swarm in memory behind the real interface, on a clock that runs only when nobody works."""

import asyncio
import collections
import contextlib
import selectors

from peer.errors import MisbehavedError, UnreachableError
from peer.swarm.wire import Channel, Traffic, attend

_FROZEN_S = 0.1
"""How often what waits for a frozen peer looks whether it is thawed."""


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

    def __init__(self, swarm, source, target):
        self._reader = asyncio.StreamReader(limit=1 << 30)
        self._swarm = swarm
        self._ends = source, target
        self._broken = False
        self._closed = False
        self._under_way = collections.deque()  # timers of one moment come in no order

    def write(self, data):
        self._swarm.on_write(*self._ends)
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
        asyncio.get_running_loop().call_later(self._swarm.latency_s, self._arrive)

    def _arrive(self):
        """Hand over the oldest message under way, once neither end is frozen."""
        if self._broken:
            return
        if self._swarm.frozen.intersection(self._ends):
            asyncio.get_running_loop().call_later(_FROZEN_S, self._arrive)
            return
        action, arguments = self._under_way.popleft()
        action(*arguments)


class MemorySwarm:
    """Peers that reach each other unless a link is cut or a peer is dead or frozen.

    Attributes:
        latency_s: How long a message is under way.
        cut: The links that are down, as frozensets of two peer ids.
        frozen: Peers to and from which nothing moves, though their streams stay.
        on_open: Called before each stream is opened, with both peer ids and the handler's name.
        on_write: Called before each piece of a message is sent, with both peer ids.
    """

    def __init__(self, latency_s=0.001):
        self.latency_s = latency_s
        self.cut = set()
        self.frozen = set()
        self.on_open = lambda ours, theirs, name: None
        self.on_write = lambda ours, theirs: None
        self._peers = {}
        self._streams = collections.deque(maxlen=2000)  # the older ones have ended

    @property
    def alive(self):
        return set(self._peers)

    def transport(self, peer_id):
        self._peers[peer_id] = MemoryTransport(self, peer_id)
        return self._peers[peer_id]

    def kill(self, peer_id):
        """Drop a peer: all its streams break, its handlers end, and none can be opened."""
        transport = self._peers.pop(peer_id, None)
        self._break(lambda ends: peer_id in ends)
        if transport is not None:
            transport.end()

    def sever(self, one, other):
        """Cut the link between two peers; `mend` joins it again."""
        self.cut.add(frozenset((one, other)))
        self._break(lambda ends: ends == {one, other})

    def mend(self, one, other):
        self.cut.discard(frozenset((one, other)))

    def _break(self, concerned):
        streams = [stream for stream in self._streams if concerned(stream[0])]
        for stream in streams:
            self._streams.remove(stream)
            for pipe in stream[1]:
                pipe.break_off()

    async def connect(self, caller, theirs, name):
        ours = caller.peer_id
        self.on_open(ours, theirs, name)
        await asyncio.sleep(self.latency_s)
        while self.frozen.intersection((ours, theirs)):  # noqa: ASYNC110 frozen peers poll
            await asyncio.sleep(_FROZEN_S)
        target = self._peers.get(theirs)
        gone = target is None or self._peers.get(ours) is not caller
        if gone or frozenset((ours, theirs)) in self.cut:
            raise UnreachableError(f"there is no way to {theirs}")
        handler = target.handlers.get(name)
        if handler is None:
            raise UnreachableError(f"{theirs} does not serve {name}")
        there, back = _Pipe(self, ours, theirs), _Pipe(self, theirs, ours)
        self._streams.append(({ours, theirs}, (there, back)))
        target.spawn(Channel(ours, there, back, target.traffic), name)
        return Channel(theirs, back, there, caller.traffic)


class MemoryTransport:
    """The way of one peer to the others.

    Attributes:
        failures: What handlers raised.
        on_misbehaved: Told of what a peer did that it must not: peer, handler, reason.
    """

    def __init__(self, swarm, peer_id):
        self._swarm = swarm
        self.peer_id = peer_id
        self.traffic = Traffic()
        self.handlers = {}
        self.failures = []
        self.on_misbehaved = lambda peer, name, reason: None
        self._tasks = set()

    async def open(self, peer_id, name):
        return await self._swarm.connect(self, peer_id, name)

    async def serve(self, name, handler):
        self.handlers[name] = handler

    def spawn(self, channel, name):
        task = asyncio.ensure_future(self._attend(channel, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self):
        for task in self._tasks:
            task.cancel()

    async def _attend(self, channel, name):
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await attend(channel, self.handlers[name])
            except MisbehavedError as error:
                self.failures.append(error)
                self.on_misbehaved(channel.remote, name, str(error))
            except Exception as error:  # noqa: BLE001 a test looks at it
                self.failures.append(error)
