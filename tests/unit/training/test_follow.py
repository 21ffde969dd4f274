"""Averages are given to whoever asks, at a bounded cost, and every refusal is counted."""

import asyncio
import os

import numpy as np
import pytest

from peer.clock import FakeClock
from peer.errors import DeclinedError, StalledError, UnreachableError
from peer.swarm.membership import Roster
from peer.swarm.throttle import OVERHEAD, Line, Throttle
from peer.swarm.wire import call, scoped
from peer.training.averages import AverageLog
from peer.training.certificate import Base
from peer.training.contribution import Contribution
from peer.training.follow import Follow
from peer.training.haste import serving_bytes_per_s
from peer.training.muster import Limits, Muster
from peer.training.round import average_alone

RUN = "tiny-" + "0" * 32
BASE = Base(RUN, 0, 7, "ab" * 32)
VALUES = np.arange(8, dtype=np.float32)
AVERAGE = scoped(RUN, "average")


@pytest.fixture
def made(identities):
    """Return an average on `BASE`."""
    contribution = Contribution("c", VALUES, 16, 1, 1, 0.0)
    return average_alone(identities[0], "none", BASE, contribution)


@pytest.fixture
def request_header(made):
    return {"base_root": BASE.state_root, "vote_id": made.certificate.vote.vote_id}


@pytest.fixture
def swarm(sim):
    return sim.MemorySwarm()


@pytest.fixture
def serve(made, identities, swarm, tmp_path):
    """Start a donor that has the average; return its `Follow`."""

    async def start(bytes_per_s=None, memory_bytes=1 << 20):
        transport, limits = swarm.transport("donor"), Limits(max_weight=32, target=16)
        muster = Muster(
            identities[0], transport, RUN, Roster("donor"), limits, FakeClock(), lambda _event: None
        )
        log = AverageLog(tmp_path, memory_bytes)
        log.add(BASE.state_root, BASE.epoch, made.certificate.to_json(), made.parts)
        log.spill()
        throttle = Throttle(bytes_per_s)
        follow = Follow(muster, log, len(VALUES), "none", lambda _root: None, throttle)
        await follow.start()
        return follow

    return start


@pytest.mark.parametrize(("part_of_needed", "comes"), [(1.02, True), (0.8, False)])
def test_an_average_comes_with_the_rate_that_serving_needs_and_not_with_less(
    sim, swarm, identities, tmp_path, part_of_needed, comes
):
    values = np.ones(1 << 18, np.float32)
    made = average_alone(identities[0], "none", BASE, Contribution("c", values, 16, 1, 1, 0.0))
    limits = Limits(max_weight=32, target=16)
    needed = serving_bytes_per_s(limits.frame_timeout_s, len(values), "none")

    async def make(name, line):
        muster = Muster(
            *(identities[0], swarm.transport(name), RUN, Roster(name), limits),
            *(FakeClock(), lambda _event: None),
        )
        log = AverageLog(tmp_path, 8 << 20)
        upload = line.given(32 << 20)
        return log, Follow(muster, log, len(values), "none", lambda _root: None, upload)

    async def go():
        log, donor = await make("donor", Line.of(2 * OVERHEAD * part_of_needed * needed, None))
        log.add(BASE.state_root, BASE.epoch, made.certificate.to_json(), made.parts)
        await donor.start()
        _, joiner = await make("joiner", Line.of(None, None))
        return await joiner.fetch("donor", made.certificate)

    if comes:
        (part,) = sim.run(go())
        assert (part.values == values).all()
    else:
        with pytest.raises(StalledError):
            sim.run(go())


async def ask(transport, header):
    return await call(transport, "donor", AVERAGE, header, timeout_s=600, max_body_bytes=1 << 20)


def test_an_average_that_is_kept_is_given(sim, swarm, serve, made, request_header):
    async def go():
        follow = await serve()
        answer = await ask(swarm.transport("a"), request_header)
        assert answer.body == bytes(made.parts[0])
        assert not follow.refused

    sim.run(go())


@pytest.mark.parametrize("change", [{"base_root": "cd" * 32}, {"vote_id": "ef" * 32}], ids=str)
def test_an_average_that_is_not_kept_is_declined_and_counted(
    sim, swarm, serve, request_header, change
):
    async def go():
        follow = await serve()
        with pytest.raises(DeclinedError, match="not kept here any more"):
            await ask(swarm.transport("a"), request_header | change)
        assert follow.refused == {"unknown": 1}

    sim.run(go())


@pytest.mark.parametrize(("peers", "streams"), [(1, 2), (9, 16)], ids=["one-peer", "all"])
def test_too_many_streams_are_declined_and_counted_until_others_end(
    sim, swarm, serve, request_header, peers, streams
):
    async def go():
        follow = await serve(bytes_per_s=1.0)
        transports = [swarm.transport(f"joiner {i}") for i in range(peers)]
        channels = []
        for i in range(2 * peers):
            channels.append(await transports[i % peers].open("donor", AVERAGE))
            await channels[-1].send(request_header)
        with pytest.raises(DeclinedError, match="too many ask at once"):
            await ask(transports[0], request_header)
        assert follow.refused == {"busy": 2 * peers + 1 - streams}
        for channel in channels[:streams]:
            assert (await channel.receive(1 << 20)).body
        assert (await ask(transports[0], request_header)).body

    sim.run(go())


def test_an_average_that_the_disk_does_not_give_is_declined_and_counted(
    sim, swarm, serve, request_header, tmp_path
):
    async def go():
        follow = await serve(memory_bytes=0)
        transport = swarm.transport("a")
        assert (await ask(transport, request_header)).body
        (path,) = tmp_path.glob("*.average")
        os.truncate(path, 0)
        with pytest.raises(DeclinedError, match="cannot be read here"):
            await ask(transport, request_header)
        assert follow.refused == {"damaged": 1}

    sim.run(go())


def test_a_stream_on_which_nothing_is_asked_ends_and_is_counted(sim, swarm, serve, request_header):
    async def go():
        follow = await serve()
        transport = swarm.transport("silent")
        channels = [await transport.open("donor", AVERAGE) for _ in range(3)]
        for channel in channels[:2]:
            with pytest.raises(UnreachableError, match="ended"):
                await channel.receive()
        assert asyncio.get_running_loop().time() < 6.0
        assert follow.refused == {"busy": 1, "slow": 2}
        assert (await ask(transport, request_header)).body

    sim.run(go())
