"""Garbage collection by a person's word: by the policy, and never the last one that loads."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.checkpoint.annotation import Author
from peer.checkpoint.collect import collect
from peer.checkpoint.keep import Keep
from peer.checkpoint.lineage import stored
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.store import CheckpointStore
from peer.errors import DamagedError


@pytest.fixture
def shelf(tmp_path, manifest_hash, make_checkpoint, identities):
    author = Author(identities[0], lambda: 1.0)
    store = CheckpointStore(tmp_path / "c", manifest_hash, Keep(last=100), author)
    for epoch in range(1, 7):
        store.save(make_checkpoint(epoch))
    store.annotate(make_checkpoint(2).state_root, accepted_by="12" * 32)
    return Shelf(tmp_path / "c")


@pytest.fixture
def gc(shelf, manifest_hash):
    """Collect; checkpoints of the epochs in `damaged` do not load."""

    def run(keep, damaged=(), **flags):
        flags = {"dry_run": False, "drop_damaged": False} | flags
        entries = stored(shelf, manifest_hash)
        return collect(shelf, entries, keep, lambda e: e.epoch not in damaged, **flags)

    return run


def epochs(shelf):
    return [int(name[:10]) for name in shelf.names()]


def test_the_policy_is_followed_and_reasons_are_given(shelf, gc):
    outcomes = gc(Keep(last=2, accepted=5))
    assert epochs(shelf) == [6, 5, 2]
    assert [one.dropped for one in outcomes] == [False, False, True, True, False, True]
    assert outcomes[4].reason == "accepted by validators"
    assert all(one.size_bytes > 0 for one in outcomes)


def test_a_dry_run_drops_nothing_and_says_the_same(shelf, gc):
    said = gc(Keep(last=2), dry_run=True)
    assert epochs(shelf) == [6, 5, 4, 3, 2, 1]
    assert said == gc(Keep(last=2))


def test_the_newest_that_loads_stays(shelf, gc):
    gc(Keep(last=1, accepted=0), damaged=(6, 5, 4))
    assert epochs(shelf) == [6, 3]


def test_where_none_loads_nothing_is_dropped(shelf, gc):
    with pytest.raises(DamagedError, match="nothing was dropped"):
        gc(Keep(last=1), damaged=range(10))
    assert len(epochs(shelf)) == 6


def test_what_somebody_reads_stays(shelf, gc):
    with shelf.hold(shelf.names()[-1]):
        outcomes = gc(Keep(last=1, accepted=0))
    assert epochs(shelf) == [6, 1]
    assert outcomes[-1].reason.startswith("held")


def test_what_is_damaged_stays_until_it_is_asked_for(shelf, gc, make_checkpoint):
    (shelf.path(make_checkpoint(4).name) / "checkpoint.json").write_text("{")
    (shelf.folder / f"damaged-{make_checkpoint(9).name}").mkdir()
    gc(Keep(last=3, accepted=0))
    assert epochs(shelf) == [6, 5, 4, 3]
    assert len(shelf.damaged()) == 1
    gc(Keep(last=3, accepted=0), drop_damaged=True)
    assert epochs(shelf) == [6, 5, 3]
    assert shelf.damaged() == []


def test_what_was_fetched_stays_until_it_is_asked_for(shelf, gc, make_checkpoint, fetch_by_hand):
    fetch_by_hand(shelf.folder, make_checkpoint(9))
    outcomes = gc(Keep(last=1, accepted=0))
    assert epochs(shelf) == [9, 6]
    assert outcomes[0].reason == "fetched by hand; `gc --fetched` drops it"
    gc(Keep(last=1, accepted=0, fetched=False))
    assert epochs(shelf) == [6]


def test_the_newest_that_training_goes_on_from_stays_whatever_was_fetched(
    shelf, gc, make_checkpoint, fetch_by_hand
):
    fetch_by_hand(shelf.folder, make_checkpoint(9))
    gc(Keep(last=1, accepted=0), damaged=(6, 5))
    assert epochs(shelf) == [9, 6, 4]
    with pytest.raises(DamagedError, match="nothing was dropped"):
        gc(Keep(last=1), damaged=range(9))


def test_where_everything_was_fetched_there_is_nothing_to_protect(
    tmp_path, manifest_hash, make_checkpoint, fetch_by_hand
):
    shelf = Shelf(tmp_path / "fetched")
    fetch_by_hand(shelf.folder, make_checkpoint(9))

    def run(**given):
        entries = stored(shelf, manifest_hash)
        flags = {"dry_run": False, "drop_damaged": False}
        return [one.dropped for one in collect(shelf, entries, Keep(**given), pytest.fail, **flags)]

    assert run() == [False]
    assert run(fetched=False) == [True]


def test_an_empty_folder_has_nothing_to_collect(tmp_path):
    shelf = Shelf(tmp_path / "nowhere")
    assert collect(shelf, [], Keep(), pytest.fail, dry_run=False, drop_damaged=True) == []


@settings(max_examples=25, deadline=None)
@given(
    last=st.integers(1, 4),
    accepted=st.integers(0, 2),
    every=st.none() | st.integers(1, 5),
    damaged=st.sets(st.integers(1, 6), max_size=5),
)
def test_whatever_the_policy_a_checkpoint_to_load_is_left(
    tmp_path_factory, manifest_hash, make_checkpoint, last, accepted, every, damaged
):
    folder = tmp_path_factory.mktemp("c")
    store = CheckpointStore(folder, manifest_hash, Keep(last=100))
    for epoch in range(1, 7):
        store.save(make_checkpoint(epoch))
    shelf, keep = Shelf(folder), Keep(last=last, accepted=accepted, every_epochs=every)
    entries = stored(shelf, manifest_hash)
    good = [e for e in range(1, 7) if e not in damaged]
    collect(shelf, entries, keep, lambda e: e.epoch in good, dry_run=False, drop_damaged=True)
    assert max(good) in epochs(shelf)
    assert set(range(7 - last, 7)) <= set(epochs(shelf))


def test_one_that_was_fetched_and_damaged_keeps_nothing_from_being_collected(
    tmp_path, manifest_hash, make_checkpoint, fetch_by_hand
):
    shelf = Shelf(tmp_path / "fetched")
    for epoch in (8, 9):
        fetch_by_hand(shelf.folder, make_checkpoint(epoch))
    (shelf.path(make_checkpoint(9).name) / "checkpoint.json").write_text("{")
    entries = stored(shelf, manifest_hash)
    assert [entry.fetched for entry in entries] == [True, True]
    keep = Keep(fetched=False)
    collect(shelf, entries, keep, pytest.fail, dry_run=False, drop_damaged=False)
    assert epochs(shelf) == [9]
    entries = stored(shelf, manifest_hash)
    collect(shelf, entries, keep, pytest.fail, dry_run=False, drop_damaged=True)
    assert epochs(shelf) == []
