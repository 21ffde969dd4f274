"""Rounds of peers that nothing happens to."""

import asyncio
import itertools

import numpy as np
import pytest

from peer.events import LimitFelt, PeerMisbehaved, RoundFailure
from peer.swarm.throttle import Line, Throttle

SIZE = 4


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_every_peer_is_in_the_group_of_every_epoch(sim, make_house, size):
    async def scene():
        house = make_house(size)
        await house.open(size)
        await house.reach(15)
        house.check()
        for peer in house.peers.values():
            assert {len(vote.group) for _, vote, _ in peer.commits} == {size}
            assert all(inside for _, _, inside in peer.commits)
            assert peer.dropped == []
            assert peer.failures == []
            assert peer.replaced == []
            assert peer.transport.failures == []
        assert house.of(PeerMisbehaved) == []

    sim.run(scene())


def test_a_peer_whose_limit_is_too_low_for_its_group_says_so_once(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        house.peers[0].muster.line = Line(Throttle(1e-9), Throttle(None))
        await house.reach(5)
        felt = [event for peer, event in house.of(LimitFelt)]
        assert [event.limit for event in felt] == ["limits.upload_mb_per_s"]
        assert f"too low for a group of {SIZE}" in felt[0].words
        house.peers[0].muster.line = Line(Throttle(1e9), Throttle(None))
        await house.reach(8)
        assert [event.words for _, event in house.of(LimitFelt)] == [felt[0].words, None]

    sim.run(scene())


def test_an_epoch_is_the_swarms_batch_and_little_more(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, speed=0.1)
        await house.reach(10)
        weights = [vote.weight for _, vote, _ in house.peers[0].commits]
        assert min(weights) >= sim.peers.TARGET / 2
        # Each has begun a micro-batch more by the time that it is asked.
        assert np.mean(weights) <= sim.peers.TARGET + 2 * SIZE * sim.peers.BATCH

    sim.run(scene())


@pytest.mark.parametrize("speeds", [(1.0, 1.0, 1.0, 0.2), (1.0, 0.5, 0.25, 0.1)])
def test_slow_and_fast_peers_are_in_one_group_each_with_what_it_has(sim, make_house, speeds):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE, speed=0.2)
        for peer, speed in zip(house.peers.values(), speeds, strict=True):
            peer.speed = 0.2 * speed
        await house.reach(20)
        house.check()
        groups = [len(vote.group) for _, vote, _ in house.peers[0].commits]
        assert groups.count(SIZE) >= 0.9 * len(groups)
        brought = {peer.peer_id: 0 for peer in house.peers.values()}
        for _, vote, _ in house.peers[0].commits:
            for entry in vote.entries:
                brought[entry.peer_id] += entry.weight
        assert brought[house.peers[0].peer_id] > brought[house.peers[3].peer_id] > 0

    sim.run(scene())


@pytest.mark.parametrize("codec_name", ["none", "fp16", "int8"])
def test_the_average_is_the_weighted_mean_and_the_same_bits_everywhere(sim, make_house, codec_name):
    async def scene():
        house = make_house(SIZE, codec_name)
        await house.open(SIZE)
        await house.reach(10)
        house.check()
        states = {peer.states[peer.roots[10]][1].tobytes() for peer in house.peers.values()}
        assert len(states) == 1
        _, vote, _ = house.peers[0].commits[5]
        assert len(vote.parts) == len({part.reducer for part in vote.parts}) == SIZE
        average = house.find_average(vote.base.state_root, vote.vote_id)
        error = np.abs(average - house.mean_of(vote)).max()
        assert (error < 1e-6) == (codec_name == "none")
        assert np.abs(average).max() > 0.1

    sim.run(scene())


def test_the_full_batch_gradient_is_what_the_certified_average_is(sim, make_house):
    async def scene():
        house = make_house(SIZE)
        await house.open(SIZE)
        await house.reach(10)
        for _, vote, _ in house.peers[0].commits:
            batches = [
                sim.peers.batch_gradient(peer.peer_id, batch)
                for peer in house.peers.values()
                for entry in vote.entries
                if entry.contribution_id in peer.given
                for batch in peer.given[entry.contribution_id]
            ]
            assert vote.weight == len(batches) * sim.peers.BATCH
            full = np.mean(np.stack(batches).astype(np.float64), axis=0)
            average = house.find_average(vote.base.state_root, vote.vote_id)
            np.testing.assert_allclose(average, full, rtol=1e-6, atol=1e-6)

    sim.run(scene())


def test_a_peer_that_others_cannot_dial_contributes_and_reduces_nothing(sim, make_house):
    async def scene():
        house = make_house(3)
        for number in range(3):
            house.make(number)
        client = house.peers[2]
        client.muster.client = True
        await asyncio.gather(*(house.start(number) for number in range(3)))
        await house.reach(5)
        house.check()
        for _, vote, _ in house.peers[0].commits[-3:]:
            assert client.peer_id in vote.group
            assert client.peer_id not in {part.reducer for part in vote.parts}

    sim.run(scene())


@pytest.mark.parametrize("clients", [(2, 3), (1, 2, 3)], ids=str)
def test_clients_that_cannot_reach_each_other_are_in_one_group_all_the_same(
    sim, make_house, clients
):
    async def scene():
        house = make_house(SIZE)
        for number in range(SIZE):
            house.make(number, speed=0.2).muster.client = number in clients
        for one, other in itertools.combinations(clients, 2):
            house.cut(one, other)
        await asyncio.gather(*(house.start(number) for number in range(SIZE)))
        await house.reach(15)
        house.check()
        votes = [vote for _, vote, _ in house.peers[0].commits[3:]]
        assert sum(len(vote.group) == SIZE for vote in votes) >= 0.9 * len(votes)
        assert all(peer.replaced == [] for peer in house.peers.values())
        assert {failed.failure for peer in house.peers.values() for failed in peer.failures} <= {
            RoundFailure.NO_GROUP
        }

    sim.run(scene())


def test_a_resting_peer_is_waited_for_by_nobody_and_comes_back(sim, make_house):
    async def scene():
        house = make_house(3)
        await house.open(3)
        await house.reach(3)
        resting = house.peers[2]
        resting.muster.resting = True
        others = [house.peers[0], house.peers[1]]
        epoch = others[0].epoch
        took_s = await house.until(lambda: min(p.epoch for p in others) > epoch + 10, 30.0)
        assert took_s < 15.0
        assert {len(vote.group) for _, vote, _ in others[0].commits[-5:]} == {2}
        house.kill(2)
        await house.bring_back(2)
        await house.whole()
        house.check()

    sim.run(scene())


def test_a_resting_peer_takes_in_what_the_others_make(sim, make_house):
    async def scene():
        house = make_house(3)
        await house.open(3)
        await house.reach(3)
        resting = house.peers[2]
        resting.muster.resting = True
        epoch = house.epoch
        await house.until(lambda: resting.epoch > epoch + 10, 30.0)
        assert {len(vote.group) for _, vote, _ in resting.commits[-8:]} == {2}
        assert resting.muster.others_train
        assert resting.replaced == []
        house.check()

    sim.run(scene())


def test_a_resting_peer_goes_along_with_whoever_takes_the_place_of_those_that_left(sim, make_house):
    async def scene():
        house = make_house(3)
        await house.open(2)
        await house.reach(6)
        resting = house.peers[1]
        resting.muster.resting = True
        house.kill(0)
        await house.until(lambda: not resting.muster.others_train, 30.0)
        house.make(2)
        await house.start(2)
        epoch = resting.epoch
        await house.until(lambda: resting.epoch > epoch + 10, 60.0)
        assert not house.peers[2].replaced
        house.check()

    sim.run(scene())


def test_the_first_one_back_in_a_new_generation_waits_for_whoever_rested_but_not_for_ever(
    sim, make_house
):
    async def scene():
        house = make_house(2)
        await house.open(2)
        await house.reach(6)
        first, second = (house.peers[number].muster for number in (0, 1))
        second.resting = True
        await first.poll([second.identity.peer_id])
        for peer in house.peers.values():
            for task in peer.tasks:
                task.cancel()
        generation, _ = first.place
        await house.peers[0].averager._gather_again(generation)
        first.stand(generation + 1, 5, "ab" * 32)
        assert first.left_behind(generation + 1) == {second.identity.peer_id}
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, second.stand, generation + 1, 5, "ab" * 32)
        began_s = loop.time()
        await house.peers[0].averager._gather_again(generation + 1)
        assert 1.0 <= loop.time() - began_s < 3.0
        began_s = loop.time()
        first.stand(generation + 2, 5, "ab" * 32)
        await house.peers[0].averager._gather_again(generation + 2)
        assert loop.time() - began_s < first.limits.frame_timeout_s + 2.0

    sim.run(scene())
