"""A state is found on the disk, else at other peers; the initial one is the run's."""

import asyncio
import types

import pytest

from peer.checkpoint.states import States
from peer.checkpoint.store import CheckpointStore


@pytest.fixture
def make_states(tmp_path, manifest_hash, schema, slots, make_checkpoint):
    """Return what finds states, with a store, and peers that offer `offered`."""

    def make(*offered):
        store = CheckpointStore(tmp_path, manifest_hash, keep=3)
        asked = []

        async def fetch(roots, beyond):
            asked.append(roots)
            return next(((s, root) for s, root in offered if root in roots), None)

        offers = types.SimpleNamespace(fetch=fetch)
        initial = make_checkpoint(0).state
        return States(store, offers, lambda: initial, schema, slots), store, asked, initial

    return make


def test_the_initial_state_is_the_runs(make_states):
    states, _, asked, initial = make_states()
    assert asyncio.run(states.find("ab" * 32, 0)) is initial
    assert asked == []


def test_a_state_on_the_disk_is_asked_of_nobody(make_states, make_checkpoint, manifest_hash):
    states, store, asked, _ = make_states()
    checkpoint = make_checkpoint(5)
    store.save(checkpoint)
    found = asyncio.run(states.find(checkpoint.state_root, 5))
    assert found.root(manifest_hash) == checkpoint.state_root
    assert asked == []


def test_a_state_that_is_not_here_comes_from_others_or_not_at_all(make_states, make_checkpoint):
    other = make_checkpoint(5)
    states, _, asked, _ = make_states((other.state, other.state_root))
    assert asyncio.run(states.find(other.state_root, 5)) is other.state
    assert asked == [{other.state_root: 5}]
    states, *_ = make_states()
    assert asyncio.run(states.find(other.state_root, 5)) is None


def test_a_baseline_that_came_from_others_is_asked_for_once(make_states, make_checkpoint):
    baseline, later = make_checkpoint(5), make_checkpoint(15)
    states, store, asked, _ = make_states(*((c.state, c.state_root) for c in (baseline, later)))

    async def judge():
        for epoch in (10, 20):
            candidate = make_checkpoint(epoch)
            store.save(candidate)
            for judged in (candidate, baseline):
                found = await states.parameters(judged.state_root, judged.state.epoch)
                assert (found == judged.state.parameters).all()
        assert asked == [{baseline.state_root: 5}]
        assert await states.parameters(later.state_root, 15) is later.state.parameters
        assert await states.parameters("ab" * 32, 25) is None
        assert await states.parameters(later.state_root, 15) is later.state.parameters
        assert asked[1:] == [{later.state_root: 15}, {"ab" * 32: 25}]

    asyncio.run(judge())


def test_a_state_to_go_on_from_is_nobody_elses(make_states, make_checkpoint):
    other = make_checkpoint(5)
    states, _, asked, _ = make_states((other.state, other.state_root))

    async def go():
        await states.parameters(other.state_root, 5)
        assert await states.find(other.state_root, 5) is other.state
        assert len(asked) == 2

    asyncio.run(go())


def test_scoring_by_the_initial_state_asks_nobody(make_states):
    states, _, asked, initial = make_states()
    assert asyncio.run(states.parameters("ab" * 32, 0)) is initial.parameters
    assert asked == []
