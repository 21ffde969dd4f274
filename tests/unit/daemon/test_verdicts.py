"""Verdicts are given to whoever asks, at a bounded cost."""

import asyncio

import pytest

from peer.clock import FakeClock
from peer.daemon.verdicts import Verdicts
from peer.errors import DeclinedError, UnreachableError
from peer.swarm.membership import Roster
from peer.swarm.wire import call, scoped
from peer.training.muster import Limits, Muster
from peer.validation.archive import Archive
from peer.validation.verdict import MAX_VERDICT_BYTES

RUN = "tiny-1"
VERDICT = scoped(RUN, "verdict")
UNKNOWN = {"hash": "ab" * 32}
STREAMS, STREAMS_OF_ONE_PEER = 16, 4


@pytest.fixture
def swarm(sim):
    return sim.MemorySwarm()


@pytest.fixture
def serve(identities, swarm, tmp_path):
    """Start a donor; return its `Verdicts`."""

    async def start():
        transport, limits = swarm.transport("donor"), Limits(max_weight=32, target=16)
        muster = Muster(
            identities[0], transport, RUN, Roster("donor"), limits, FakeClock(), lambda _event: None
        )
        verdicts = Verdicts(muster, Archive(tmp_path), lambda _name: None)
        await verdicts.start()
        return verdicts

    return start


async def ask(transport, header):
    return await call(
        transport, "donor", VERDICT, header, timeout_s=60, max_body_bytes=MAX_VERDICT_BYTES
    )


@pytest.mark.parametrize("header", [UNKNOWN, {}, {"hash": None}, {"hash": "../tip"}], ids=str)
def test_a_verdict_that_is_not_here_is_declined_and_counted(sim, swarm, serve, header):
    async def go():
        verdicts = await serve()
        with pytest.raises(DeclinedError, match="not here"):
            await ask(swarm.transport("a"), header)
        assert verdicts.refused == {"unknown": 1}

    sim.run(go())


@pytest.mark.parametrize(
    ("peers", "streams"), [(1, STREAMS_OF_ONE_PEER), (8, STREAMS)], ids=["one-peer", "all"]
)
def test_silent_streams_are_bounded_and_end_and_are_counted(sim, swarm, serve, peers, streams):
    async def go():
        verdicts = await serve()
        transports = [swarm.transport(f"silent {i}") for i in range(peers)]
        channels = [
            await transports[i % peers].open("donor", VERDICT) for i in range(streams + peers)
        ]
        await asyncio.sleep(1.0)
        assert verdicts.refused == {"busy": peers}
        if peers == 1:
            with pytest.raises(DeclinedError, match="not here"):
                await ask(swarm.transport("honest"), UNKNOWN)
        for channel in channels[:streams]:
            with pytest.raises(UnreachableError, match="ended"):
                await channel.receive()
        assert asyncio.get_running_loop().time() < 6.0
        assert verdicts.refused["slow"] == streams
        with pytest.raises(DeclinedError, match="not here"):
            await ask(transports[0], UNKNOWN)

    sim.run(go())
