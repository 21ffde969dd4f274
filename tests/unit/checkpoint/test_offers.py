"""What peers offer is asked of each, and what makes no sense of it is refused."""

import asyncio

import pytest

from peer.checkpoint.offers import offered_by
from peer.checkpoint.snapshot import MAX_OFFERS, SNAPSHOTS
from peer.errors import MisbehavedError, UnreachableError
from peer.swarm.wire import scoped

ROOT = "ab" * 32


@pytest.fixture
def ask(run_id):
    """Ask a peer of a town for what it offers."""

    async def offered(town, peer):
        return await offered_by(town.joiner, run_id, peer, 4.0)

    return offered


def test_a_peer_names_its_newest_states_with_their_epochs(make_town, run, make_large, ask):
    async def scenario():
        town = make_town()
        server = await town.donor("a", make_large(4), make_large(5))
        assert not server.asked
        assert await ask(town, "a") == {make_large(e).state_root: e for e in (5, 4)}
        assert server.asked

    run(scenario())


@pytest.mark.parametrize(
    "roots",
    [
        None,
        [ROOT],
        {ROOT: -1},
        {ROOT: "1"},
        {ROOT: 1.5},
        {ROOT: True},
        {ROOT: 1 << 60},
        {"../x": 1},
        {"AB" * 32: 1},
        {f"{number:064x}": number for number in range(MAX_OFFERS + 1)},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(make_town, run, run_id, ask, roots):
    async def scenario():
        town = make_town()

        async def give(channel):
            await channel.receive()
            await channel.send({"roots": roots})

        await town.swarm.transport("liar").serve(scoped(run_id, SNAPSHOTS), give)
        with pytest.raises(MisbehavedError, match="what it says that it offers makes no sense"):
            await ask(town, "liar")

    run(scenario())


def test_a_peer_that_is_silent_is_left_in_time(make_town, run, run_id, ask):
    async def scenario():
        town = make_town()

        async def give(channel):
            await asyncio.sleep(1000)

        await town.swarm.transport("silent").serve(scoped(run_id, SNAPSHOTS), give)
        for peer in ("silent", "gone"):
            with pytest.raises(UnreachableError):
                await ask(town, peer)
        assert asyncio.get_running_loop().time() < 10

    run(scenario())
