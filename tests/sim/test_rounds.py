"""Rounds of peers that nothing happens to."""

import pytest


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_every_peer_is_in_the_group_of_every_epoch(sim, make_house, size):
    async def scene():
        house = make_house(size)
        await house.open(size)
        await house.reach(20)
        house.check()
        for peer in house.peers.values():
            assert {len(vote.group) for _, vote, _ in peer.commits} == {size}
            assert all(inside for _, _, inside in peer.commits)
            assert peer.dropped == []
            assert peer.failures == []
            assert peer.transport.failures == []

    sim.run(scene())
