"""All that a peer sends and receives stays below its line's rates, and nobody is blamed for it."""

import asyncio

import pytest

from peer.swarm.throttle import Line, Throttle
from peer.swarm.wire import Channel, Traffic
from peer.training.transfer import receive_body, send_body

MB = 1_000_000


class Pipe:
    """Both ends of a stream."""

    def __init__(self):
        self.reader = asyncio.StreamReader(limit=1 << 30)
        self.sent = 0

    def write(self, data):
        self.sent += len(data)
        self.reader.feed_data(bytes(data))

    async def drain(self):
        await asyncio.sleep(0)

    async def readexactly(self, n):
        return await self.reader.readexactly(n)

    def close(self):
        self.reader.feed_eof()


def line(up=None, down=None):
    return Line(Throttle(up), Throttle(down))


def timed(sim, work):
    """Return how many seconds `work` took."""

    async def run():
        began_s = asyncio.get_running_loop().time()
        await work()
        return asyncio.get_running_loop().time() - began_s

    return sim.run(run())


def test_bodies_of_several_streams_share_the_line(sim):
    async def work():
        ours = line(up=1.0 * MB)
        channels = [Channel("r", p, p, Traffic(), ours) for p in (Pipe(), Pipe(), Pipe())]
        data = bytes(2 * MB)
        # Each frame waits longer for the line than its own deadline is long.
        await asyncio.gather(*(send_body(channel, data, 0.1) for channel in channels))

    assert timed(sim, work) == pytest.approx(6.0, abs=0.3)


def test_frames_are_never_charged_twice(sim):
    async def work():
        pipe = Pipe()
        channel = Channel("r", pipe, pipe, Traffic(), line(up=1.0 * MB))
        for _ in range(20):
            await channel.may_send(200_000)
            await channel.send({}, bytes(200_000))

    assert timed(sim, work) == pytest.approx(3.75, abs=0.05)


def test_small_frames_go_ahead_and_are_paid_by_the_rest(sim):
    async def work():
        pipe, loop = Pipe(), asyncio.get_running_loop()
        ours = line(up=100_000.0)
        bulk = asyncio.create_task(
            send_body(Channel("r", pipe, pipe, Traffic(), ours), bytes(MB), 1)
        )
        await asyncio.sleep(1.0)
        began_s = loop.time()
        await Channel("r", pipe, pipe, Traffic(), ours).send({"vote": "x" * 10_000})
        assert loop.time() - began_s < 0.01
        await bulk

    assert timed(sim, work) == pytest.approx(10.0, abs=0.5)


def test_small_frames_without_end_wait_at_last(sim):
    async def work():
        pipe = Pipe()
        channel = Channel("r", pipe, pipe, Traffic(), line(up=100_000.0))
        for _ in range(100):
            await channel.send({"vote": "x" * 10_000})

    # A megabyte takes 10 s; they may be ahead by two, and by a large frame's 2.6.
    assert 5.0 < timed(sim, work) <= 10.0


def test_a_large_frame_that_nobody_waited_for_waits_by_itself(sim):
    async def work():
        pipe = Pipe()
        channel = Channel("r", pipe, pipe, Traffic(), line(up=1.0 * MB))
        await channel.send({}, bytes(4 * MB))

    assert timed(sim, work) == pytest.approx(3.75, abs=0.05)


def test_what_comes_in_is_read_at_the_line_s_rate_beyond_any_deadline(sim):
    async def work():
        ours, loop = line(down=100_000.0), asyncio.get_running_loop()
        target = memoryview(bytearray(MB))

        async def one():
            pipe = Pipe()
            await send_body(Channel("r", pipe, pipe, Traffic()), bytes(b"x" * MB), 1)
            await receive_body(Channel("r", pipe, pipe, Traffic(), ours), target, 0.5)

        await asyncio.gather(one(), one())
        assert bytes(target) == b"x" * MB
        assert loop.time() > 15.0

    assert timed(sim, work) == pytest.approx(20.0, abs=0.5)


def test_no_line_holds_nobody_up(sim):
    async def work():
        pipe = Pipe()
        channel = Channel("r", pipe, pipe, Traffic(), Line.of(None, None))
        assert await channel.may_send(10**9) == await channel.may_receive(10**9) == 0.0
        await send_body(channel, bytes(MB), 1)

    assert timed(sim, work) == 0.0


def test_a_line_counts_what_headers_take_on_the_wire():
    assert Line.of(1.05e6, None).up.bytes_per_s == pytest.approx(1e6)
    assert Line.of(1.05e6, None).down.bytes_per_s is None
