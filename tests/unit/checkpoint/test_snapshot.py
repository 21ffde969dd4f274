"""A donor gives its states to whoever asks, at a bounded cost, and survives every request."""

import asyncio
import contextlib
import os

import pytest

from peer.checkpoint.snapshot import CHUNK, FRAME_BYTES, HEADER, SNAPSHOTS
from peer.errors import DeclinedError, MisbehavedError, UnreachableError
from peer.swarm.throttle import Throttle
from peer.swarm.wire import call, scoped
from peer.training.averages import AverageLog
from peer.training.state import CHUNK_BYTES

LEASE_S = 120.0


@pytest.fixture
def ask(run_id):
    """Send one request to the donor `a` and return the bytes of the answer."""

    async def send(town, name, header, frames=1, transport=None):
        channel = await (transport or town.joiner).open("a", scoped(run_id, name))
        try:
            async with asyncio.timeout(600):
                await channel.send(header)
                return [(await channel.receive(1 << 20)).body for _ in range(frames)]
        finally:
            channel.close()

    return send


def epochs(town):
    return [head.epoch for head in town.stores["a"].roots()]


def test_a_header_is_the_one_of_the_state(make_town, run, make_large, ask):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        server = await town.donor("a", checkpoint)
        (body,) = await ask(town, HEADER, {"root": checkpoint.state_root})
        assert body == checkpoint.state.header("ab" * 32).to_bytes()
        assert server.sent_bytes == len(body)
        server.close()

    run(scenario())


def test_many_chunks_come_on_one_stream_in_the_order_of_asking(make_town, run, make_large, run_id):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        server = await town.donor("a", checkpoint)
        buffers = [buffer.tobytes() for _, buffer in checkpoint.state.buffers()]
        places = [(3, 1), (0, 0), (1, 0), (0, 0)]
        channel = await town.joiner.open("a", scoped(run_id, CHUNK))
        for buffer, index in places:
            request = {"root": checkpoint.state_root, "buffer": buffer, "index": index}
            await channel.send(request)
        for buffer, index in places:
            data = buffers[buffer][index * CHUNK_BYTES :][:CHUNK_BYTES]
            for start in range(0, len(data), FRAME_BYTES):
                frame = await channel.receive(FRAME_BYTES)
                assert frame.body == data[start : start + FRAME_BYTES]
        channel.close()
        server.close()

    run(scenario())


@pytest.mark.parametrize("name", [HEADER, CHUNK])
@pytest.mark.parametrize(
    "change",
    [
        {"root": None},
        {"root": 5},
        {"root": "../../etc/passwd"},
        {"root": "AB" * 32},
        {"more": 1},
        {"buffer": -1},
        {"buffer": 1 << 40},
        {"buffer": "0"},
        {"buffer": 0.0},
        {"buffer": True},
        {"index": -1},
        {"index": 2},
        {"index": [0]},
        {"index": 1 << 70},
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_counted(
    make_town, run, make_large, ask, name, change
):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        server = await town.donor("a", checkpoint)
        good = {"root": checkpoint.state_root}
        if name == CHUNK:
            good |= {"buffer": 0, "index": 0}
        with pytest.raises(DeclinedError, match=r"a request names a root|there is no chunk"):
            await ask(town, name, good | change)
        await asyncio.sleep(1.0)
        assert isinstance(town.swarm._peers["a"].failures[0], MisbehavedError)
        assert server.refused == {"malformed": 1}
        assert await ask(town, name, good)
        server.close()

    run(scenario())


def test_an_unknown_state_is_declined_and_counted(make_town, run, make_large, ask):
    async def scenario():
        town = make_town()
        server = await town.donor("a", make_large(4))
        for name, more in ((HEADER, {}), (CHUNK, {"buffer": 0, "index": 0})):
            with pytest.raises(DeclinedError, match="that state is not here"):
                await ask(town, name, {"root": "00" * 32} | more)
        assert server.refused == {"unknown": 2}
        server.close()

    run(scenario())


def test_a_state_that_is_damaged_on_the_disk_is_declined_and_counted(
    make_town, run, make_large, ask, tmp_path
):
    async def scenario():
        town, checkpoint = make_town(), make_large(4)
        server = await town.donor("a", checkpoint)
        path = tmp_path / "a" / checkpoint.name / "state.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(DeclinedError, match="damaged here"):
            await ask(town, HEADER, {"root": checkpoint.state_root})
        os.truncate(path, len(data) // 2)
        chunk = {"root": checkpoint.state_root, "buffer": 3, "index": 1}
        with pytest.raises(DeclinedError, match="cannot be read here"):
            await ask(town, CHUNK, chunk)
        server.close()
        os.truncate(path, 3)
        with pytest.raises(DeclinedError, match="cannot be read here"):
            await ask(town, CHUNK, chunk)
        assert server.refused == {"damaged": 3}

    run(scenario())


def test_the_state_is_hashed_once_for_many_who_ask(make_town, run, make_large, ask, monkeypatch):
    async def scenario():
        town, checkpoint, made = make_town(), make_large(4), []
        server = await town.donor("a", checkpoint)
        real = type(server)._make_header

        async def make_header(self, root, served):
            made.append(root)
            await asyncio.sleep(30.0)
            return await real(self, root, served)

        monkeypatch.setattr(type(server), "_make_header", make_header)
        request = {"root": checkpoint.state_root}
        gone = asyncio.create_task(ask(town, HEADER, request))
        await asyncio.sleep(1.0)
        (handler,) = town.swarm._peers["a"]._tasks
        handler.cancel()
        gone.cancel()
        others = [town.swarm.transport(f"joiner{i}") for i in range(5)]
        answers = await asyncio.gather(
            *(ask(town, HEADER, request, transport=other) for other in others)
        )
        assert len(set(map(tuple, answers))) == 1
        assert made == [checkpoint.state_root]
        server.close()

    run(scenario())


def test_a_state_is_held_while_it_is_given_away_and_let_go_afterwards(
    make_town, run, make_large, ask, tmp_path
):
    async def scenario():
        town, first = make_town(), make_large(1)
        averages = AverageLog(tmp_path / "averages", 1 << 20)
        server = await town.donor("a", first, averages=averages)
        for epoch in range(12):
            averages.add(f"r{epoch}", epoch, "c", [b"x"])
        chunk = {"root": first.state_root, "buffer": 0, "index": 0}
        await ask(town, CHUNK, chunk)
        for epoch in range(2, 7):
            await asyncio.sleep(LEASE_S - 20.0)
            town.stores["a"].save(make_large(epoch))
            averages.drop_before(epoch)
            await ask(town, CHUNK, chunk)
        assert epochs(town) == [6, 5, 4, 1]
        assert averages.get("r0") is None
        assert averages.get("r1") is not None
        await asyncio.sleep(2 * LEASE_S + 1.0)
        assert averages.get("r1") is None
        assert averages.get("r6") is not None
        town.stores["a"].save(make_large(7))
        assert epochs(town) == [7, 6, 5]
        with pytest.raises(DeclinedError, match="that state is not here"):
            await ask(town, CHUNK, chunk)
        server.close()

    run(scenario())


def test_only_so_many_states_are_held(make_town, run, make_large, ask):
    async def scenario():
        town = make_town()
        server = await town.donor("a")
        for epoch in range(1, 12):
            town.stores["a"].save(make_large(epoch))
            await ask(town, CHUNK, {"root": make_large(epoch).state_root, "buffer": 1, "index": 0})
        assert len(epochs(town)) <= 3 + 4
        server.close()

    run(scenario())


def test_a_closed_server_holds_nothing(make_town, run, make_large, ask):
    async def scenario():
        town, first = make_town(), make_large(1)
        server = await town.donor("a", first)
        await ask(town, CHUNK, {"root": first.state_root, "buffer": 0, "index": 0})
        server.close()
        for epoch in range(2, 7):
            town.stores["a"].save(make_large(epoch))
        assert epochs(town) == [6, 5, 4]

    run(scenario())


def test_a_state_that_is_dropped_while_it_is_sent_is_declined_and_fetched_elsewhere(
    make_town, run, make_large
):
    async def scenario():
        town, checkpoint = make_town(), make_large(1)
        servers = [await town.donor(name, checkpoint) for name in "ab"]

        def on_progress(done, total):
            town.note(done, total)
            if len(town.progress) == 3:
                servers[0].close()
                for epoch in range(2, 7):
                    town.stores["a"].save(make_large(epoch))

        state = await town.fetch("ab", checkpoint.state_root, on_progress)
        assert state.root("ab" * 32) == checkpoint.state_root
        assert {(r.donor, r.kind) for r in town.refusals} <= {("a", "declined")}
        assert town.swarm._peers["a"].failures == []
        servers[1].close()

    run(scenario())


def test_whoever_asks_for_offers_again_and_again_is_declined(make_town, run, make_large, run_id):
    async def scenario():
        town = make_town()
        server = await town.donor("a", make_large(1))
        joiner = town.swarm.transport("joiner")
        held = [await joiner.open("a", scoped(run_id, SNAPSHOTS)) for _ in range(5)]
        with pytest.raises(DeclinedError, match="ask again later"):
            await held[4].receive()
        assert server.refused == {"busy": 1}
        await held[0].send({})
        assert (await held[0].receive()).header["roots"] == {make_large(1).state_root: 1}

    run(scenario())


@pytest.mark.parametrize(("peers", "streams"), [(1, 4), (9, 16)], ids=["one-peer", "all"])
def test_too_many_streams_are_declined_until_others_end(
    make_town, run, make_large, run_id, peers, streams
):
    async def scenario():
        town, checkpoint = make_town(), make_large(1)
        server = await town.donor("a", checkpoint)
        transports = [town.swarm.transport(f"joiner{i}") for i in range(peers)]
        request = {"root": checkpoint.state_root, "buffer": 1, "index": 0}
        held = []
        for i in range(4 * peers):
            channel = await transports[i % peers].open("a", scoped(run_id, CHUNK))
            await channel.send(request)
            with contextlib.suppress(DeclinedError):
                await channel.receive(1 << 20)
                held.append(channel)
        more = await transports[0].open("a", scoped(run_id, CHUNK))
        with pytest.raises(DeclinedError, match="ask again later"):
            await more.receive()
        assert len(held) == streams
        assert server.refused == {"busy": 4 * peers + 1 - streams}
        for channel in held:
            channel.close()
        await asyncio.sleep(1.0)
        again = await transports[0].open("a", scoped(run_id, CHUNK))
        await again.send(request)
        assert (await again.receive(1 << 20)).body
        again.close()
        server.close()

    run(scenario())


def test_a_stream_on_which_nothing_is_asked_ends(make_town, run, make_large, run_id):
    async def scenario():
        town = make_town()
        server = await town.donor("a", make_large(1))
        idle = [await town.joiner.open("a", scoped(run_id, CHUNK)) for _ in range(4)]
        for channel in idle:
            with pytest.raises(UnreachableError):
                await channel.receive()
        assert asyncio.get_running_loop().time() < 120.0
        assert town.swarm._peers["a"].failures == []
        assert server.refused == {"slow": 4}
        frame = await call(
            town.joiner,
            "a",
            scoped(run_id, HEADER),
            {"root": make_large(1).state_root},
            timeout_s=10.0,
            max_body_bytes=1 << 20,
        )
        assert frame.body
        server.close()

    run(scenario())


def test_what_goes_out_keeps_to_the_rate_and_a_slow_donor_is_not_taken_for_a_frozen_one(
    make_town, run, make_large
):
    async def scenario():
        town, checkpoint = make_town(), make_large(1)
        rate = 64 << 10
        server = await town.donor("a", checkpoint, limiter=Throttle(rate))
        begun_s = asyncio.get_running_loop().time()
        await town.fetch(["a"], checkpoint.state_root)
        took_s = asyncio.get_running_loop().time() - begun_s
        assert took_s == pytest.approx(server.sent_bytes / rate, rel=0.05)
        assert town.refusals == []
        server.close()

    run(scenario())


def test_on_a_slow_line_few_are_served_at_once_and_those_get_their_frames_in_time(
    make_town, run, make_large, ask
):
    async def scenario():
        town, checkpoint = make_town(), make_large(1)
        server = await town.donor("a", checkpoint, limiter=Throttle(64 << 10))
        chunk = {"root": checkpoint.state_root, "buffer": 0, "index": 0}
        frames = CHUNK_BYTES // FRAME_BYTES
        others = [town.swarm.transport(f"joiner{i}") for i in range(6)]
        fetch = asyncio.create_task(town.fetch(["a"], checkpoint.state_root))
        await asyncio.sleep(5.0)
        answers = await asyncio.gather(
            *(ask(town, CHUNK, chunk, frames, transport=other) for other in others),
            return_exceptions=True,
        )
        await fetch
        assert town.refusals == []
        served = [answer for answer in answers if isinstance(answer, list)]
        assert [len(b"".join(answer)) for answer in served] == [CHUNK_BYTES]
        assert server.refused == {"busy": 5}
        server.close()

    run(scenario())
