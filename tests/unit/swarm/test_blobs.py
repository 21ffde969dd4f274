"""The giving side: only what may be given, to whoever asks properly, within its limits."""

import asyncio
import hashlib
import random

import pytest

from peer.errors import DeclinedError, UnreachableError
from peer.swarm.blobs import FRAME_BYTES, BlobServer
from peer.swarm.download import FetchError, fetch_blob
from peer.swarm.throttle import Throttle
from peer.swarm.wire import Channel, Traffic, call, scoped

RUN = "tiny-" + "0" * 32
BLOB = scoped(RUN, "blob")
FAST = 1 << 30
DATA = random.Random(0).randbytes(4 * FRAME_BYTES)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def swarm(sim):
    return sim.MemorySwarm()


async def serve(swarm, found=DATA, upload_bytes_per_s=FAST):
    """Return a server that finds `found`, a value or a function, whatever is asked for."""
    transport = swarm.transport("d")
    find = found if callable(found) else lambda _: found
    server = BlobServer(transport, RUN, find, ("the manifest", None), Throttle(upload_bytes_per_s))
    await server.start()
    return server


async def ask(transport, header, timeout_s=60):
    return await call(transport, "d", BLOB, header, timeout_s=timeout_s)


async def take(transport, folder):
    await fetch_blob(transport, RUN, SHA, len(DATA), folder / transport.peer_id, ["d"])
    return (folder / transport.peer_id).read_bytes()


@pytest.mark.parametrize("kind", ["bytes", "path", "later"])
def test_bytes_and_files_are_given_alike(kind, sim, swarm, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)

    async def later(sha256):
        await asyncio.sleep(1)
        return path if sha256 == SHA else None

    async def go():
        found = {"bytes": DATA, "path": path, "later": later}[kind]
        server = await serve(swarm, found)
        assert await take(swarm.transport("joiner"), tmp_path) == DATA
        assert server.sent_bytes == len(DATA)
        assert not server.refused

    sim.run(go())


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"sha256": SHA},
        {"offset": 0},
        {"sha256": SHA.upper(), "offset": 0},
        {"sha256": SHA[:-1], "offset": 0},
        {"sha256": SHA + "\n", "offset": 0},
        {"sha256": "../" * 20 + "etc", "offset": 0},
        {"sha256": 5, "offset": 0},
        {"sha256": [SHA], "offset": 0},
        {"sha256": SHA, "offset": -1},
        {"sha256": SHA, "offset": 1 << 51},
        {"sha256": SHA, "offset": 0.0},
        {"sha256": SHA, "offset": True},
        {"sha256": SHA, "offset": "0"},
        {"sha256": SHA, "offset": 0, "path": "/etc/passwd"},
    ],
    ids=str,
)
def test_a_malformed_request_is_refused_and_counted_and_nothing_is_looked_for(header, sim, swarm):
    asked = []

    async def go():
        server = await serve(swarm, asked.append)
        with pytest.raises(DeclinedError, match="names a sha256 and an offset"):
            await ask(swarm.transport("joiner"), header)
        assert server.refused == {"malformed": 1}

    sim.run(go())
    assert asked == []


@pytest.mark.parametrize("found", ["nothing", "missing", "folder"])
def test_what_is_not_there_is_declined_and_counted(found, sim, swarm, tmp_path):
    async def go():
        paths = {"nothing": None, "missing": tmp_path / "missing", "folder": tmp_path}
        server = await serve(swarm, paths[found])
        with pytest.raises(DeclinedError, match="here") as caught:
            await ask(swarm.transport("joiner"), {"sha256": SHA, "offset": 0})
        assert str(tmp_path) not in str(caught.value)
        assert server.refused == {"unknown": 1}

    sim.run(go())


@pytest.mark.parametrize("offset", [0, 1, len(DATA) - 1, len(DATA), len(DATA) + 1, 1 << 50])
def test_an_answer_begins_with_the_size_wherever_one_goes_on(offset, sim, swarm):
    async def go():
        await serve(swarm)
        answer = await ask(swarm.transport("joiner"), {"sha256": SHA, "offset": offset})
        assert answer.header == {"size": len(DATA)}

    sim.run(go())


def test_a_file_that_shrinks_while_it_is_given_ends_the_stream_with_a_reason(sim, swarm, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    refusals = []

    def shrink(done, _size):
        if done == FRAME_BYTES:
            with path.open("r+b") as file:
                file.truncate(FRAME_BYTES + 5)

    async def go():
        await serve(swarm, path, upload_bytes_per_s=FRAME_BYTES)
        joiner, target = swarm.transport("joiner"), tmp_path / "target"
        with pytest.raises(FetchError):
            await fetch_blob(joiner, RUN, SHA, len(DATA), target, ["d"], shrink, refusals.append)

    sim.run(go())
    assert refusals[0].kind == "declined"
    assert "cut short" in refusals[0].reason


@pytest.mark.parametrize("joiners", [1, 3])
def test_all_streams_share_the_limit(joiners, sim, swarm, tmp_path):
    async def go():
        rate = 2 * FRAME_BYTES
        await serve(swarm, upload_bytes_per_s=rate)
        transports = [swarm.transport(f"joiner {i}") for i in range(joiners)]
        await asyncio.gather(*(take(transport, tmp_path) for transport in transports))
        elapsed_s = asyncio.get_running_loop().time()
        least_s = joiners * len(DATA) / rate - 0.25
        assert least_s <= elapsed_s <= least_s + 0.5

    sim.run(go())


def test_one_peer_cannot_open_all_streams(sim, swarm):
    async def go():
        server = await serve(swarm)
        greedy = swarm.transport("greedy")
        silent = [await greedy.open("d", BLOB) for _ in range(4)]
        with pytest.raises(DeclinedError, match="too many ask at once"):
            await ask(greedy, {"sha256": SHA, "offset": 0})
        answer = await ask(swarm.transport("joiner"), {"sha256": SHA, "offset": 0})
        assert answer.header == {"size": len(DATA)}
        assert server.refused == {"busy": 1}
        assert len(silent) == 4

    sim.run(go())


def test_many_peers_cannot_open_more_streams_than_there_are(sim, swarm):
    async def go():
        server = await serve(swarm)
        for i in range(64):
            await swarm.transport(f"silent {i}").open("d", BLOB)
        with pytest.raises(DeclinedError, match="too many ask at once"):
            await ask(swarm.transport("joiner"), {"sha256": SHA, "offset": 0})
        await asyncio.sleep(20)  # whoever asked for nothing is gone
        assert server.refused == {"busy": 1, "slow": 64}
        await ask(swarm.transport("joiner"), {"sha256": SHA, "offset": 0})

    sim.run(go())


def test_a_stream_on_which_nothing_is_asked_is_closed(sim, swarm):
    async def go():
        server = await serve(swarm)
        channel = await swarm.transport("silent").open("d", BLOB)
        with pytest.raises(UnreachableError, match="ended"):
            await channel.receive()
        assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)
        assert server.refused == {"slow": 1}

    sim.run(go())


class _Stuck:
    """A writer that takes so many frames and then no more."""

    def __init__(self, drains):
        self._left = drains

    def write(self, data):
        pass

    async def drain(self):
        self._left -= 1
        if self._left < 0:
            await asyncio.Event().wait()

    def close(self):
        pass


@pytest.mark.parametrize("drains", [0, 3, 6])
def test_a_peer_that_does_not_take_what_it_asked_for_is_left(drains, sim, swarm, tmp_path):
    async def go():
        server = await serve(swarm)
        reader = asyncio.StreamReader()
        request = Channel("d", reader, _Feeder(reader), Traffic())
        await request.send({"sha256": SHA, "offset": 0})
        stuck = Channel("slow", reader, _Stuck(drains), Traffic())
        with pytest.raises(UnreachableError, match="slow does not take what it asked for"):
            await server._give_blob(stuck)
        assert asyncio.get_running_loop().time() == pytest.approx(30, abs=1)
        assert server.refused == {"slow": 1}
        assert await take(swarm.transport("joiner"), tmp_path) == DATA

    sim.run(go())


class _Feeder:
    """A writer into a reader."""

    def __init__(self, reader):
        self.write = reader.feed_data

    async def drain(self):
        pass


def test_on_a_slow_line_few_are_served_at_once_and_the_others_told_to_come_back(sim, swarm):
    async def go():
        server = await serve(swarm, upload_bytes_per_s=FRAME_BYTES // 4)
        header = {"sha256": SHA, "offset": 0}
        channels = []
        for i in range(2):
            channels.append(await swarm.transport(f"joiner {i}").open("d", BLOB))
            await channels[-1].send(header)
        assert (await channels[0].receive()).header == {"size": len(DATA)}
        with pytest.raises(DeclinedError, match="ask again later"):
            await channels[1].receive()
        assert server.refused == {"busy": 1}

    sim.run(go())


def test_places_are_given_back_whatever_happens(sim, swarm):
    async def go():
        await serve(swarm)
        joiner = swarm.transport("joiner")
        for header in ({}, {"sha256": SHA, "offset": 0}, {"sha256": "0" * 64, "offset": 5}) * 10:
            try:
                await ask(joiner, header)
            except DeclinedError:
                continue
        swarm.kill("joiner")
        await asyncio.sleep(100)
        again = swarm.transport("joiner")
        silent = [await again.open("d", BLOB) for _ in range(3)]
        answer = await ask(again, {"sha256": SHA, "offset": 0})
        assert answer.header == {"size": len(DATA)}
        assert len(silent) == 3

    sim.run(go())
