"""Averages are given to whoever asks, at a bounded cost, and every refusal is counted."""

import numpy as np
import pytest

from peer.clock import FakeClock
from peer.errors import DeclinedError
from peer.swarm.membership import Roster
from peer.swarm.throttle import Throttle
from peer.swarm.wire import call, scoped
from peer.training.averages import AverageLog
from peer.training.certificate import Base
from peer.training.contribution import Contribution
from peer.training.follow import Follow
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

    async def start(bytes_per_s=None):
        transport, limits = swarm.transport("donor"), Limits(max_weight=32, target=16)
        muster = Muster(
            identities[0], transport, RUN, Roster("donor"), limits, FakeClock(), lambda _event: None
        )
        log = AverageLog(tmp_path, 1 << 20)
        log.add(BASE.state_root, BASE.epoch, made.certificate.to_json(), made.parts)
        throttle = Throttle(bytes_per_s)
        follow = Follow(muster, log, len(VALUES), "none", lambda _root: None, throttle)
        await follow.start()
        return follow

    return start


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
