"""Several processes share a folder of checkpoints: what one reads, no other drops."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import peer
from peer.checkpoint import shelf as module
from peer.checkpoint.annotation import Author
from peer.checkpoint.keep import Keep
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.store import CheckpointStore
from peer.errors import ConfigurationError

HOLDER = """
import sys
from pathlib import Path
from peer.checkpoint.shelf import Shelf
with Shelf(Path(sys.argv[1])).hold(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path, manifest_hash, identities):
    author = Author(identities[0], lambda: 1_700_000_000.0)
    return CheckpointStore(tmp_path / "c", manifest_hash, Keep(last=2, accepted=1), author)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "c")


@pytest.fixture
def holder(tmp_path):
    """Hold a checkpoint in another process; ended by closing its input."""
    started = []

    def hold(name):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "c"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(Path(peer.__file__).parents[1])},
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait(10)


def test_a_folder_that_is_not_there_is_empty_and_stays_so(tmp_path):
    shelf = Shelf(tmp_path / "nowhere")
    assert (shelf.names(), shelf.damaged(), shelf.remembered()) == ([], [], [])
    assert not (tmp_path / "nowhere").exists()


def test_looking_at_a_folder_leaves_what_is_being_written(store, shelf, make_checkpoint):
    store.save(make_checkpoint(1))
    staging = shelf.folder / ".staging-0000000002-ab"
    staging.mkdir()
    assert shelf.names() == [make_checkpoint(1).name]
    assert staging.is_dir()


def test_what_another_process_holds_is_not_dropped_until_it_ends(
    store, shelf, make_checkpoint, holder
):
    first = make_checkpoint(1)
    store.save(first)
    process = holder(first.name)
    for epoch in (2, 3, 4):
        store.save(make_checkpoint(epoch))
    assert not shelf.drop(first.name, remember=True)
    assert shelf.names()[-1] == first.name
    process.kill()
    process.wait(10)
    assert shelf.drop(first.name, remember=True)
    assert first.name not in shelf.names()


def test_what_the_store_holds_for_a_joiner_no_command_drops(store, shelf, make_checkpoint):
    store.save(make_checkpoint(1))
    with store.hold(make_checkpoint(1).state_root):
        assert not shelf.drop(make_checkpoint(1).name, remember=True)
    assert shelf.drop(make_checkpoint(1).name, remember=True)


def test_what_is_gone_cannot_be_held_or_dropped(store, shelf, make_checkpoint):
    store.save(make_checkpoint(1))
    name = make_checkpoint(1).name
    shutil.rmtree(shelf.path(name))
    with pytest.raises(LookupError), shelf.hold(name):
        pass
    assert not shelf.drop(name, remember=True)


def test_the_annotation_of_what_is_dropped_stays(store, shelf, make_checkpoint):
    for epoch in range(1, 6):
        store.save(make_checkpoint(epoch))
    assert [one.notes.epoch for one in shelf.remembered()] == [3, 2, 1]
    assert all(one.problem() is None for one in shelf.remembered())


def test_of_a_branch_that_is_left_nothing_stays(store, shelf, make_checkpoint):
    store.save(make_checkpoint(1))
    store.save(make_checkpoint(2))
    store.leave(1)
    assert shelf.names() == [make_checkpoint(1).name]
    assert shelf.remembered() == []


def test_only_so_many_annotations_stay(store, shelf, make_checkpoint, monkeypatch):
    monkeypatch.setattr(module, "_KEPT_ANNOTATIONS", 3)
    for epoch in range(1, 9):
        store.save(make_checkpoint(epoch))
    assert [one.notes.epoch for one in shelf.remembered()] == [6, 5, 4]


def test_junk_in_the_lineage_is_left_out(store, shelf, make_checkpoint):
    for epoch in range(1, 5):
        store.save(make_checkpoint(epoch))
    (shelf.folder / "lineage" / "0000000001-junk.json").write_text("{")
    (shelf.folder / "lineage" / "readme.json").write_text("{}")
    assert [one.notes.epoch for one in shelf.remembered()] == [2, 1]


def test_accepted_checkpoints_outlive_the_last_ones(store, shelf, make_checkpoint):
    store.save(make_checkpoint(1))
    assert store.annotate(make_checkpoint(1).state_root, accepted_by="12" * 32)
    for epoch in range(2, 7):
        store.save(make_checkpoint(epoch))
    assert shelf.names() == [make_checkpoint(epoch).name for epoch in (6, 5, 1)]


def test_scores_are_added_to_what_was_said_before(store, shelf, make_checkpoint):
    checkpoint = make_checkpoint(1)
    store.save(checkpoint)
    assert store.annotate(checkpoint.state_root, {"loss": 2.0, "perplexity": float("inf")})
    assert store.annotate(checkpoint.state_root, {"f1": 0.5})
    annotation = shelf.annotation(checkpoint.name)
    assert annotation.problem() is None
    assert annotation.notes.scores == {"loss": 2.0, "f1": 0.5}
    assert annotation.notes.own_tokens == checkpoint.place.tokens_total


def test_annotating_does_not_make_a_checkpoint_younger(store, make_checkpoint):
    checkpoint = make_checkpoint(1)
    store.save(checkpoint)
    before = store.written_s(checkpoint)
    store.annotate(checkpoint.state_root, {"loss": 2.0})
    assert store.written_s(checkpoint) == before


def test_what_is_not_there_or_not_ours_is_not_annotated(
    store, shelf, make_checkpoint, manifest_hash, identities
):
    store.save(make_checkpoint(1))
    assert not store.annotate("00" * 32, {"loss": 1.0})
    other = Author(identities[1], lambda: 0.0)
    theirs = CheckpointStore(shelf.folder, manifest_hash, 3, other)
    assert not theirs.annotate(make_checkpoint(1).state_root, {"loss": 1.0})
    without = CheckpointStore(shelf.folder, manifest_hash, 3)
    assert not without.annotate(make_checkpoint(1).state_root, {"loss": 1.0})
    (shelf.path(make_checkpoint(1).name) / "annotation.json").write_text("junk")
    assert not store.annotate(make_checkpoint(1).state_root, {"loss": 1.0})


def test_loading_needs_no_annotation(store, shelf, make_checkpoint, schema, slots):
    store.save(make_checkpoint(1))
    (shelf.path(make_checkpoint(1).name) / "annotation.json").unlink()
    loaded = store.load_newest(schema, slots, pytest.fail)
    assert loaded.state_root == make_checkpoint(1).state_root


def test_one_process_at_a_time_gathers_a_state_and_what_it_has_stays(shelf):
    with shelf.fetching() as folder:
        (folder / "half").touch()
        with (
            pytest.raises(ConfigurationError, match="another `ctpeer checkpoint fetch` is at work"),
            shelf.fetching(),
        ):
            pass
    with shelf.fetching() as folder:
        assert [path.name for path in folder.iterdir()] == ["half"]
    assert shelf.names() == []


def test_a_fetched_checkpoint_takes_the_place_of_no_other(
    store, shelf, make_checkpoint, fetch_by_hand
):
    one = make_checkpoint(1)
    store.save(one)
    before = shelf.path(one.name).stat().st_ino
    with pytest.raises(OSError, match="not empty"):
        fetch_by_hand(shelf.folder, one)
    assert shelf.path(one.name).stat().st_ino == before
    assert list((shelf.folder / ".fetching").iterdir()) == []


def test_where_a_checkpoint_cannot_take_anothers_place_that_one_stays(
    store, shelf, make_checkpoint, monkeypatch
):
    one = make_checkpoint(1)
    store.save(one)
    before, left, real = shelf.path(one.name).stat().st_ino, [2], os.rename

    def rename(*arguments, **keywords):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments, **keywords)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="Input/output error"):
        shelf.add(one.name, lambda _: None, shelf.folder / ".staging-new", lambda: True)
    assert shelf.path(one.name).stat().st_ino == before
    assert [path.name for path in shelf.folder.iterdir()] == [one.name]
