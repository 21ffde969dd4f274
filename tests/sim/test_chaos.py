"""Everything at once, for thousands of epochs: all peers come out of it as one."""

import asyncio
import random

import pytest

from peer.errors import PeerError
from peer.events import PeerMisbehaved

SIZE = 4
CALM_S = 90.0


class Chaos:
    """Does something bad every now and then, drawn from a seed.

    Args:
        house: To whom.
        kinds: What: kill, cut, freeze, split.
        seed: Draws all of it.
    """

    def __init__(self, house, kinds, seed):
        self.done = []
        self._house = house
        self._kinds = kinds
        self._draw = random.Random(seed)
        self._due = self._draw.randint(50, 400)
        house.swarm.on_write = self._count

    def stop(self):
        self._house.swarm.on_write = lambda *_: None

    def _count(self, *_moment):
        self._due -= 1
        if self._due == 0:
            self._due = self._draw.randint(200, 4000)
            kind = self._draw.choice(self._kinds)
            self.done.append(kind)
            getattr(self, f"_{kind}")()

    def _later(self, least_s, most_s, action, *arguments):
        seconds = self._draw.uniform(least_s, most_s)
        asyncio.get_running_loop().call_later(seconds, action, *arguments)

    def _kill(self):
        if len(self._house.peers) > 1:
            number = self._draw.choice(sorted(self._house.peers))
            self._house.kill(number)
            self._later(0.5, 15.0, self._bring_back, number)

    def _bring_back(self, number):
        self._house.swarm.births.add(asyncio.ensure_future(self._house.bring_back(number)))

    def _cut(self):
        link = self._draw.sample(range(SIZE), 2)
        self._house.cut(*link)
        self._later(1.0, 20.0, self._house.mend, *link)

    def _freeze(self):
        peer = self._house.identities[self._draw.randrange(SIZE)].peer_id
        self._house.swarm.frozen.add(peer)
        self._later(1.0, 15.0, self._house.swarm.frozen.discard, peer)

    def _split(self):
        half = self._draw.sample(range(SIZE), SIZE // 2)
        other = [number for number in range(SIZE) if number not in half]
        self._house.split(half, other)
        self._later(3.0, 25.0, self._house.calm)


async def survive(house, kinds, seed, seconds):
    """Let a house go through chaos; return how many epochs it has in the end."""
    house.swarm.births = set()
    await house.open(SIZE)
    chaos = Chaos(house, kinds, seed)
    await asyncio.sleep(seconds)
    chaos.stop()
    await asyncio.sleep(26.0)  # whatever was to be mended is
    house.calm()
    assert chaos.done
    assert len(house.peers) == SIZE
    await house.whole(CALM_S)
    began = house.epoch
    await house.reach(began + 5, 10.0)
    house.check()
    for peer in house.peers.values():
        assert all(isinstance(error, PeerError) for error in peer.transport.failures)
    return house.epoch


@pytest.mark.parametrize("seed", range(2))
def test_after_a_short_chaos_all_are_one(sim, make_house, seed):
    kinds = ["kill", "cut", "freeze", "split"]
    sim.run(survive(make_house(SIZE), kinds, seed, 15.0))


SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (2, 3, 4))]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kinds", ["kill", "cut", "split", "kill cut", "kill cut freeze split"])
@pytest.mark.parametrize("seed", SEEDS)
def test_after_hundreds_of_epochs_of_chaos_all_are_one(sim, make_house, kinds, seed):
    assert sim.run(survive(make_house(SIZE), kinds.split(), seed, 120.0)) > 200


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_blamed_for_being_killed_or_cut_off(sim, make_house, seed):
    async def scene():
        house = make_house(SIZE)
        await survive(house, ["kill", "cut", "split"], seed, 120.0)
        assert house.of(PeerMisbehaved) == []

    sim.run(scene())
