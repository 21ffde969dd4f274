"""Whoever asks is dialled where it is, now and then, and nobody else is."""

import asyncio

import pytest

from peer.errors import DeclinedError, MisbehavedError
from peer.swarm.dialback import GREETING, DialBack, greets
from peer.swarm.wire import Channel, Traffic


class Pipe:
    """Both ends of a stream."""

    def __init__(self):
        self.reader = asyncio.StreamReader()

    def write(self, data):
        self.reader.feed_data(bytes(data))

    async def drain(self):
        pass

    async def readexactly(self, n):
        return await self.reader.readexactly(n)

    def close(self):
        pass


async def ask(server, address, header):
    """Return what the server says to a question that came from `address`."""
    there, back = Pipe(), Pipe()
    await Channel("server", back, there, Traffic()).send(header)
    channel = Channel("asker", there, back, Traffic())
    channel.address = address
    await server._answer(channel)
    return (await Channel("server", back, there, Traffic()).receive()).header


async def listening(says):
    async def greet(_reader, writer):
        writer.write(says)
        writer.close()

    return await asyncio.start_server(greet, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("says", "expected"), [(GREETING, True), (b"SSH-2.0", False), (b"", False)]
)
def test_only_what_speaks_as_libp2p_does_was_reached(says, expected):
    async def go():
        async with await listening(says) as server:
            port = server.sockets[0].getsockname()[1]
            return await ask(DialBack(None, "r"), "/ip4/127.0.0.1/tcp/9", {"port": port})

    assert asyncio.run(go()) == {"reached": expected, "ip": "127.0.0.1"}


def test_a_port_where_nobody_listens_was_not_reached():
    async def go():
        async with await listening(GREETING) as server:
            port = server.sockets[0].getsockname()[1]
        return await greets("127.0.0.1", port)

    assert asyncio.run(go()) is False


def test_asking_again_at_once_is_declined_whatever_the_peer_id():
    async def go():
        server = DialBack(None, "r")
        await ask(server, "/ip4/127.0.0.1/tcp/9", {"port": 1024})
        with pytest.raises(DeclinedError, match="a moment ago"):
            await ask(server, "/ip4/127.0.0.1/tcp/10", {"port": 1024})

    asyncio.run(go())


@pytest.mark.parametrize(
    "address",
    ["", "/dns4/example.org/tcp/1", "nonsense", f"/ip4/8.8.8.8/tcp/1/p2p/{'Q' * 46}/p2p-circuit"],
)
def test_where_the_asker_is_not_seen_nobody_is_dialled(address):
    with pytest.raises(DeclinedError, match="cannot be seen"):
        asyncio.run(ask(DialBack(None, "r"), address, {"port": 1024}))


@pytest.mark.parametrize(
    "header",
    [{}, {"port": 22}, {"port": 65536}, {"port": "1024"}, {"port": 1024, "ip": "203.0.113.7"}],
)
def test_a_question_that_names_more_or_less_than_a_port_is_no_question(header):
    with pytest.raises(MisbehavedError):
        asyncio.run(ask(DialBack(None, "r"), "/ip4/127.0.0.1/tcp/9", header))
