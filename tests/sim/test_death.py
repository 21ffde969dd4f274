"""A peer is killed, or cut off, at every moment of an epoch; the others go on and lose nothing."""

import itertools

import pytest

SIZE = 4
WITHIN_S = 15.0
PHASES = ["matchmaking", "transfer", "vote", "certified"]


class Moments:
    """Calls `action` at the n-th moment of those that `hook` of a swarm marks.

    Attributes:
        due: How many moments are still to come before it; below 1 once it happened.
    """

    def __init__(self, swarm, hook, n, action):
        self.due = n
        self._action = action
        setattr(swarm, hook, self._count)

    def _count(self, *_moment):
        self.due -= 1
        if self.due == 0:
            self._action()


async def strike(house, hook, n, action, survivors):
    """Let `action` happen at moment `n` of an epoch; return False if it has fewer moments."""
    await house.open(SIZE)
    await house.reach(1)
    moments = Moments(house.swarm, hook, n, action)
    await house.until(lambda: moments.due < 1 or house.epoch >= 2, WITHIN_S)
    if moments.due > 0:
        return False
    epoch = max(house.peers[number].epoch for number in survivors)
    took_s = await house.until(
        lambda: min(house.peers[number].epoch for number in survivors) > epoch, WITHIN_S
    )
    assert took_s <= WITHIN_S
    return True


def survivors_of(victim):
    return [number for number in range(SIZE) if number != victim]


async def die(house, victim, hook, n):
    """Kill a peer at moment `n`; return False if an epoch has fewer moments."""
    struck = await strike(house, hook, n, lambda: house.kill(victim), survivors_of(victim))
    if struck:
        house.check()
        for number, peer in house.peers.items():
            assert peer.dropped == [], f"{number} lost work to the death of {victim} at {n}"
            assert peer.replaced == []
    return struck


async def be_cut_off(house, victim, hook, n):
    """Cut a peer off for a while at moment `n`; return False if an epoch has fewer moments."""
    others = survivors_of(victim)
    if not await strike(house, hook, n, lambda: house.split([victim], others), others):
        return False
    assert all(house.peers[number].dropped == [] for number in others)
    await house.until(lambda: house.peers[victim].epoch >= 4, 60.0, "work of its own")
    house.calm()
    await house.whole()
    house.check()
    house.check_lost()
    assert all(house.peers[number].replaced == [] for number in others)
    return True


def every_moment(sim, make_house, case, step=1):
    """Run `case` with a fresh house for every moment; return how many there are."""
    for n in itertools.count(1, step):
        if not sim.run(case(make_house(SIZE), n)):
            return n - 1
    return None


@pytest.mark.parametrize("victim", range(SIZE))
def test_killed_at_any_stream_the_others_commit_in_time_and_lose_nothing(sim, make_house, victim):
    def case(house, n):
        return die(house, victim, "on_open", n)

    assert every_moment(sim, make_house, case) > 30


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", range(SIZE))
def test_killed_between_any_two_messages_the_others_commit_in_time(sim, make_house, victim):
    def case(house, n):
        return die(house, victim, "on_write", n)

    assert every_moment(sim, make_house, case) > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", range(SIZE))
def test_cut_off_between_any_two_messages_it_comes_back_and_all_are_one(sim, make_house, victim):
    def case(house, n):
        return be_cut_off(house, victim, "on_write", n)

    assert every_moment(sim, make_house, case, step=2) > 100


@pytest.mark.parametrize("victim", range(SIZE))
def test_cut_off_now_and_then_it_comes_back_and_all_are_one(sim, make_house, victim):
    def case(house, n):
        return be_cut_off(house, victim, "on_open", n)

    assert every_moment(sim, make_house, case, step=17) > 10


@pytest.mark.parametrize("victim", range(SIZE))
@pytest.mark.parametrize("phase", PHASES)
def test_killed_on_entering_a_phase_the_others_commit_in_time(sim, make_house, victim, phase):
    async def scene():
        house = make_house(SIZE)
        house.at(victim, 3, phase, lambda: house.kill(victim))
        await house.open(SIZE)
        await house.until(lambda: house.former, WITHIN_S)
        epoch = max(peer.epoch for peer in house.peers.values())
        await house.reach(epoch + 1, WITHIN_S)
        house.check()
        assert all(peer.dropped == [] for peer in house.peers.values())
        assert all(peer.replaced == [] for peer in house.peers.values())

    sim.run(scene())
