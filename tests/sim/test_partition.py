"""Links cut and mended, halves split, peers frozen: afterwards all are one, the loss counted."""

import asyncio
import random

import pytest

from peer.events import PeerMisbehaved

SIZE = 4
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
CALM_S = 60.0


async def settle(house):
    """Mend everything, and see that all peers become one."""
    house.calm()
    await house.whole(CALM_S)
    house.check()
    house.check_lost()


@pytest.mark.parametrize("link", [(0, 1), (1, 2), (2, 3)])
def test_one_link_down_costs_no_epoch(sim, make_house, link):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(3)
        house.cut(*link)
        await asyncio.sleep(6.0)
        assert house.epoch > 10
        await settle(house)
        assert all(peer.replaced == [] for peer in house.peers.values())

    sim.run(scene())


def test_a_doubt_about_the_only_one_in_reach_parts_nobody(sim, make_house):
    async def scene():
        house = make_house(3)
        await house.open(3)
        await house.whole()
        house.cut(0, 2)
        await house.reach(house.epoch + 3)
        house.peers[0].muster.misbehaved(house.peers[1].peer_id, "what it never did")
        await house.reach(house.epoch + 20)
        house.check()
        await settle(house)
        assert all(peer.replaced == [] for peer in house.peers.values())

    sim.run(scene())


def test_who_cheats_again_and_again_is_left_though_others_may_be_behind_it(sim, make_house):
    async def scene():
        house = make_house(3)
        await house.open(3)
        await house.whole()
        house.kill(2)
        cheat = house.peers[1].peer_id
        for _ in range(3):
            house.peers[0].muster.misbehaved(cheat, "it cheats")
        began = house.peers[0].epoch
        await house.until(lambda: house.peers[0].epoch > began + 10, 30.0, "going on alone")
        assert all(
            vote.group == (house.peers[0].peer_id,) for _, vote, _ in house.peers[0].commits[-8:]
        )

    sim.run(scene())


@pytest.mark.parametrize("half", [(0, 1), (1, 2), (3,)])
def test_two_halves_go_on_and_become_one(sim, make_house, half):
    other = [number for number in range(SIZE) if number not in half]

    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(3)
        house.split(half, other)
        await asyncio.sleep(8.0)
        assert house.epoch > 8
        roots = {peer.roots[8] for peer in house.peers.values()}
        assert len(roots) == 2
        await settle(house)
        losers = [number for number, peer in house.peers.items() if peer.replaced]
        if len(half) == len(other):
            assert losers in (list(half), other)
        else:
            assert losers == list(min(half, other, key=len))
        for number in losers:
            assert sum(r.lost_epochs for r in house.peers[number].replaced) > 4
            assert sum(r.lost_weight for r in house.peers[number].replaced) > 0

    sim.run(scene())


# Peers behind routers often reach some of the others only: by numbers, the links that are down.
PARTIAL = [
    [(0, 1), (0, 3)],
    [(0, 1), (2, 3)],
    [(0, 1), (1, 2), (2, 3)],
    [(0, 1), (0, 2), (1, 2)],
]


@pytest.mark.parametrize("down", PARTIAL, ids=str)
def test_peers_that_reach_some_of_the_others_only_do_not_part(sim, make_house, down):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(3)
        for link in down:
            house.cut(*link)
        await asyncio.sleep(15.0)
        assert house.epoch > 8
        house.check()
        assert all(peer.replaced == [] for peer in house.peers.values())
        await settle(house)

    sim.run(scene())


@pytest.mark.parametrize("clients", [False, True], ids=["public", "clients"])
def test_a_link_that_is_down_makes_no_liar_in_a_run_that_many_have_left(sim, make_house, clients):
    async def scene():
        house = make_house(SIZE + 1)
        draw = random.Random(5)
        gone = ["Qm" + "".join(draw.choices(BASE58, k=44)) for _ in range(150)]
        first, *_, last = sorted(range(SIZE + 1), key=lambda n: house.identities[n].peer_id)
        for number in range(SIZE + 1):
            peer = house.make(number, speed=0.25)
            peer.muster.client = clients and number in (first, last)
            for peer_id in gone:
                peer.muster.roster.learn(peer_id, ())
        house.cut(first, last)
        await asyncio.gather(*(house.start(number) for number in range(SIZE + 1)))
        await asyncio.sleep(90.0)
        house.check()
        assert house.of(PeerMisbehaved) == []
        for number in (first, last):
            inside = [inside for _, _, inside in house.peers[number].commits]
            assert sum(inside) > (0.9 if clients else 0.3) * len(inside)

    sim.run(scene())


def test_nobody_is_blamed_for_a_group_that_is_full(sim, make_house, monkeypatch):
    for module in ("group", "refusals"):
        monkeypatch.setattr(f"peer.training.{module}.MAX_GROUP", SIZE - 1)

    async def scene():
        house = make_house(SIZE)
        speeds = (0.25, 0.25, 0.02)
        for number, speed in enumerate(speeds):
            house.make(number, speed=speed)
        await asyncio.gather(*(house.start(number) for number in range(SIZE - 1)))
        await house.reach(2)
        house.make(SIZE - 1, speed=0.25)
        await house.start(SIZE - 1)
        await asyncio.sleep(100.0)
        house.check()
        assert {len(vote.group) for _, vote, _ in house.peers[SIZE - 1].commits[-20:]} == {SIZE - 1}
        assert house.of(PeerMisbehaved) == []

    sim.run(scene())


def test_halves_that_parted_before_the_first_epoch_become_one(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        house.split((0, 1), (2, 3))
        await house.open(SIZE)
        await house.reach(8)
        await settle(house)
        assert [number for number, peer in house.peers.items() if peer.replaced] == [2, 3]

    sim.run(scene())


@pytest.mark.parametrize("restarted", [(), (1, 2, 3)], ids=["known", "restarted"])
def test_a_founder_that_begins_anew_alone_takes_nobody_back(sim, make_house, restarted):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(20)
        house.kill(0)
        await house.reach(house.epoch + 3)
        for number in restarted:
            house.kill(number)
            await house.bring_back(number)
        house.make(0).made = 10**6  # its contributions have names of their own
        house.split((0,), (1, 2, 3))
        await house.start(0)
        await house.until(lambda: house.peers[0].epoch >= 5, 60.0)
        await settle(house)
        assert all(house.peers[number].replaced == [] for number in (1, 2, 3))
        assert house.peers[0].replaced

    sim.run(scene())


def test_everybody_alone_become_one(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(3)
        house.split(*[[number] for number in range(SIZE)])
        await asyncio.sleep(10.0)
        assert len({peer.roots[10] for peer in house.peers.values()}) == SIZE
        await settle(house)
        winners = [number for number, peer in house.peers.items() if not peer.replaced]
        assert len(winners) == 1

    sim.run(scene())


@pytest.mark.parametrize(("seconds", "speed"), [(3.0, 1.0), (30.0, 0.5), (120.0, 0.1)])
@pytest.mark.parametrize("number", range(2))
def test_a_frozen_peer_is_not_waited_for_and_comes_back(sim, make_house, number, seconds, speed):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, speed=speed)
        await house.reach(3)
        house.swarm.frozen.add(house.identities[number].peer_id)
        others = [peer for i, peer in house.peers.items() if i != number]
        began = min(peer.epoch for peer in others)
        await house.until(lambda: min(peer.epoch for peer in others) > began, 15.0)
        await asyncio.sleep(seconds)
        await settle(house)
        assert all(peer.replaced == [] for peer in others)

    sim.run(scene())


@pytest.mark.parametrize("accusers", [(0,), (0, 3), (0, 2, 3)], ids=str)
def test_who_distrusts_an_honest_peer_does_not_part_from_those_who_do_not(
    sim, make_house, accusers
):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(3)
        for _ in range(10):
            for number in accusers:
                house.peers[number].muster.misbehaved(house.identities[1].peer_id, "a test says so")
            await asyncio.sleep(3.0)
        assert house.epoch > 25
        house.check()
        assert all(peer.replaced == [] for peer in house.peers.values())

    sim.run(scene())


def test_a_link_that_comes_and_goes_all_the_time_stops_nobody(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(3)
        for _ in range(60):
            house.cut(0, 1)
            await asyncio.sleep(0.13)
            house.mend(0, 1)
            await asyncio.sleep(0.27)
        assert house.epoch > 20
        await settle(house)

    sim.run(scene())


def test_a_peer_started_late_is_in_within_seconds(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE - 1)
        await house.reach(40)
        house.make(SIZE - 1)
        await house.start(SIZE - 1)
        took_s = await house.whole(30.0)
        assert took_s < 10.0
        house.check()
        assert house.peers[SIZE - 1].replaced[0].lost_epochs == 0

    sim.run(scene())


def test_a_peer_restarted_from_its_checkpoint_follows_the_certificates(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(8)
        house.kill(1)
        await asyncio.sleep(2.0)
        peer = await house.bring_back(1)
        assert peer.epoch == 5
        await house.whole(30.0)
        house.check()
        assert peer.replaced == []

    sim.run(scene())


def test_a_run_goes_on_down_to_one_peer_and_up_again(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        for number in range(SIZE - 1):
            await house.reach(house.epoch + 3)
            house.kill(number)
            await house.reach(house.epoch + 3, 15.0)
            house.check()
        assert [len(vote.group) for _, vote, _ in house.peers[SIZE - 1].commits[-1:]] == [1]
        for number in range(SIZE - 1):
            await house.bring_back(number)
        await house.whole(CALM_S)
        house.check()
        assert house.peers[SIZE - 1].replaced == []

    sim.run(scene())
