"""A state is found on the disk, else at other peers; the initial one is the run's."""

import asyncio
import types

import pytest

from peer.checkpoint.states import States
from peer.checkpoint.store import CheckpointStore


@pytest.fixture
def make_states(tmp_path, manifest_hash, schema, slots, make_checkpoint):
    """Return what finds states, with a store, and peers that offer `offered`."""

    def make(offered=None):
        store = CheckpointStore(tmp_path, manifest_hash, keep=3)
        asked = []

        async def fetch(roots, beyond):
            asked.append(roots)
            return offered

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
