"""Whatever happens to a checkpoint, or while one is written, the one before it still loads."""

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.checkpoint import store as module
from peer.checkpoint.annotation import Author
from peer.checkpoint.papers import Papers
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.store import CheckpointStore
from peer.errors import DamagedError

FILES = ["state.safetensors", "local.safetensors", "checkpoint.json"]
CALLS = ["os.mkdir", "os.rename", *["os.fsync"] * 5]


@pytest.fixture
def store(tmp_path, manifest_hash):
    return CheckpointStore(tmp_path / "checkpoints", manifest_hash, keep=3)


@pytest.fixture
def load(schema, slots):
    """Load the newest checkpoint; return it and the list of what was set aside."""

    def load_newest(store):
        damaged = []
        loaded = store.load_newest(schema, slots, lambda *told: damaged.append(told))
        return loaded, damaged

    return load_newest


def cut_short(file):
    os.truncate(file, file.stat().st_size - 1)


def cut_in_half(file):
    os.truncate(file, file.stat().st_size // 2)


def emptied(file):
    os.truncate(file, 0)


def removed(file):
    file.unlink()


def one_bit_flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


@contextlib.contextmanager
def failing_at(nth, cleans_up):
    """Let the nth of CALLS raise; unless `cleans_up`, nothing is removed, as after a crash."""
    name = CALLS[nth].removeprefix("os.")
    left, real = [CALLS[: nth + 1].count(CALLS[nth])], getattr(os, name)

    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, call)
        if not cleans_up:
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        yield


def test_a_new_store_is_empty(store, load):
    assert store.names() == []
    assert load(store) == (None, [])


def test_the_newest_checkpoint_is_loaded_as_it_was_saved(store, load, make_checkpoint, assert_same):
    for epoch in (1, 10, 2):
        store.save(make_checkpoint(epoch))
    loaded, damaged = load(store)
    assert_same(loaded, make_checkpoint(10))
    assert damaged == []


def test_saving_says_how_many_bytes_it_wrote(store, tmp_path, make_checkpoint):
    size = store.save(make_checkpoint(1))
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert size == sum(path.stat().st_size for path in folder.iterdir())


def test_a_state_that_is_there_is_not_written_again(store, tmp_path, make_checkpoint):
    store.save(make_checkpoint(1))
    (folder,) = (tmp_path / "checkpoints").iterdir()
    before = folder.stat().st_ino
    assert store.save(make_checkpoint(1)) == 0
    assert folder.stat().st_ino == before


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_only_the_newest_stay(tmp_path, manifest_hash, make_checkpoint, keep):
    store = CheckpointStore(tmp_path, manifest_hash, keep)
    checkpoints = [make_checkpoint(epoch) for epoch in range(8, 13)]
    for number, checkpoint in enumerate(checkpoints, 1):
        store.save(checkpoint)
        newest = [c.name for c in reversed(checkpoints[:number])][:keep]
        assert store.names() == newest
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(newest)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "damage",
    [cut_short, cut_in_half, emptied, removed, one_bit_flipped],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_checkpoint_is_set_aside_and_the_previous_one_loaded(
    store, load, tmp_path, make_checkpoint, assert_same, file, damage
):
    folder, newest = tmp_path / "checkpoints", make_checkpoint(2)
    store.save(make_checkpoint(1))
    store.save(newest)
    damage(folder / newest.name / file)
    loaded, damaged = load(store)
    assert_same(loaded, make_checkpoint(1))
    ((name, reason),) = damaged
    assert name == newest.name
    assert reason
    assert "\n" not in reason
    assert (folder / f"damaged-{newest.name}").is_dir()
    assert store.names() == [make_checkpoint(1).name]
    assert load(store)[1] == []


def test_the_set_aside_checkpoint_can_be_saved_anew(
    store, load, tmp_path, make_checkpoint, assert_same
):
    store.save(make_checkpoint(1))
    store.save(make_checkpoint(2))
    for _ in range(2):
        emptied(tmp_path / "checkpoints" / make_checkpoint(2).name / FILES[0])
        assert load(store)[0].state.epoch == 1
        assert store.save(make_checkpoint(2)) > 0
    assert_same(load(store)[0], make_checkpoint(2))


def test_where_every_checkpoint_is_damaged_loading_refuses_each_time(
    store, tmp_path, make_checkpoint, manifest_hash, schema, slots
):
    folder, damaged = tmp_path / "checkpoints", []
    for epoch in (1, 2, 3):
        store.save(make_checkpoint(epoch))
        emptied(folder / make_checkpoint(epoch).name / FILES[0])
    with pytest.raises(DamagedError, match=r"every checkpoint in .* is damaged"):
        store.load_newest(schema, slots, lambda *told: damaged.append(told))
    assert [name for name, _ in damaged] == [make_checkpoint(epoch).name for epoch in (3, 2, 1)]
    again = CheckpointStore(folder, manifest_hash, keep=3)
    with pytest.raises(DamagedError, match="restore one from a backup, or delete that folder"):
        again.load_newest(schema, slots, lambda *told: damaged.append(told))
    assert len(damaged) == 3


def test_checkpoints_of_another_run_are_refused(tmp_path, load, make_checkpoint, manifest_hash):
    CheckpointStore(tmp_path, manifest_hash, keep=3).save(make_checkpoint(1))
    with pytest.raises(DamagedError):
        load(CheckpointStore(tmp_path, "cd" * 32, keep=3))


@pytest.mark.parametrize("cleans_up", [True, False], ids=["error", "crash"])
@pytest.mark.parametrize("nth", range(len(CALLS)), ids=lambda nth: f"{CALLS[nth]}-{nth}")
def test_a_save_that_ends_at_any_call_leaves_a_checkpoint_to_load(
    load, tmp_path, make_checkpoint, manifest_hash, assert_same, nth, cleans_up
):
    store = CheckpointStore(tmp_path, manifest_hash, keep=3)
    store.save(make_checkpoint(1))
    with failing_at(nth, cleans_up), pytest.raises(OSError, match="Input/output error"):
        store.save(make_checkpoint(2))
    again = CheckpointStore(tmp_path, manifest_hash, keep=3)
    assert all(path.name[0].isdigit() for path in tmp_path.iterdir())
    loaded, damaged = load(again)
    assert damaged == []
    assert_same(loaded, make_checkpoint(loaded.state.epoch))
    again.save(make_checkpoint(2))
    assert_same(load(again)[0], make_checkpoint(2))


@pytest.mark.parametrize("nth", range(len(CALLS)), ids=lambda nth: f"{CALLS[nth]}-{nth}")
def test_a_save_that_raises_changes_nothing(tmp_path, make_checkpoint, manifest_hash, nth):
    store = CheckpointStore(tmp_path, manifest_hash, keep=3)
    store.save(make_checkpoint(1))
    with failing_at(nth, cleans_up=True), pytest.raises(OSError, match="Input/output error"):
        store.save(make_checkpoint(2))
    assert [path.name for path in tmp_path.iterdir()] == [make_checkpoint(1).name]


def test_there_are_no_more_calls_than_those_that_fail_above(store, make_checkpoint, monkeypatch):
    counts = {}

    def counting(name, real):
        def call(*args, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in {call.removeprefix("os.") for call in CALLS}:
            patch.setattr(os, name, counting(f"os.{name}", getattr(os, name)))
        store.save(make_checkpoint(1))
    assert counts == {call: CALLS.count(call) for call in CALLS}


@contextlib.contextmanager
def files_of_at_most(size):
    """Let every write beyond `size` bytes of a file fail, in this process, with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.0, 1.0, exclude_max=True), cleans_up=st.booleans())
def test_a_save_that_ends_at_any_byte_leaves_the_previous_checkpoint(
    tmp_path_factory, make_checkpoint, manifest_hash, schema, slots, share, cleans_up
):
    folder = tmp_path_factory.mktemp("checkpoints")
    store = CheckpointStore(folder, manifest_hash, keep=3)
    store.save(make_checkpoint(1))
    largest = max(p.stat().st_size for p in (folder / make_checkpoint(1).name).iterdir())
    with pytest.MonkeyPatch.context() as patch:
        if not cleans_up:
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with files_of_at_most(int(share * largest)), pytest.raises(OSError):  # noqa: PT011
            store.save(make_checkpoint(2))
    again = CheckpointStore(folder, manifest_hash, keep=3)
    assert [path.name for path in folder.iterdir()] == [make_checkpoint(1).name]
    assert again.load_newest(schema, slots, pytest.fail).state.epoch == 1


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 40 KiB, enough for one of the checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount the small disk that this test fills")
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False, timeout=10)
    if mounted.returncode:
        pytest.skip(f"this machine does not let root mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)


def test_a_full_disk_raises_and_leaves_the_previous_checkpoints(
    small_disk, load, make_checkpoint, manifest_hash, assert_same
):
    store = CheckpointStore(small_disk, manifest_hash, keep=3)
    store.save(make_checkpoint(1))
    with pytest.raises(OSError, match="No space left on device"):
        store.save(make_checkpoint(2))
    assert [path.name for path in small_disk.iterdir()] == [make_checkpoint(1).name]
    loaded, damaged = load(store)
    assert damaged == []
    assert_same(loaded, make_checkpoint(1))
    shutil.rmtree(small_disk / make_checkpoint(1).name)
    assert store.save(make_checkpoint(2)) > 0


def test_the_roots_are_those_of_the_checkpoints_newest_first(store, make_checkpoint):
    assert store.roots() == []
    for epoch in (1, 10, 2):
        store.save(make_checkpoint(epoch, generation=epoch + 1))
    expected = [(e, make_checkpoint(e).state_root, e + 1, False) for e in (10, 2, 1)]
    assert store.roots() == expected
    store.save(make_checkpoint(3))
    assert [stored.epoch for stored in store.roots()] == [10, 3, 2]


def test_the_roots_are_read_once(store, tmp_path, make_checkpoint, monkeypatch, fetch_by_hand):
    store.save(make_checkpoint(1))
    store.save(make_checkpoint(2))
    fetch_by_hand(tmp_path / "checkpoints", make_checkpoint(3))
    roots = store.roots()
    assert [stored.epoch for stored in roots] == [3, 2, 1]
    monkeypatch.setattr(json, "loads", pytest.fail)
    assert store.roots() == roots


@pytest.mark.parametrize("damage", [cut_in_half, emptied, removed], ids=lambda d: d.__name__)
def test_a_checkpoint_whose_head_cannot_be_read_has_no_root(
    store, tmp_path, make_checkpoint, damage
):
    store.save(make_checkpoint(1))
    store.save(make_checkpoint(2))
    damage(tmp_path / "checkpoints" / make_checkpoint(2).name / FILES[2])
    assert [stored.epoch for stored in store.roots()] == [1]


@pytest.mark.parametrize("head", ["[]", '{"epoch": "x"}', '{"epoch": 2, "state_root": 5}'])
def test_a_head_that_is_none_has_no_root(store, tmp_path, make_checkpoint, head):
    store.save(make_checkpoint(2))
    (tmp_path / "checkpoints" / make_checkpoint(2).name / FILES[2]).write_text(head)
    assert store.roots() == []


def test_a_checkpoint_that_is_held_stays_until_it_is_let_go(store, make_checkpoint):
    root = make_checkpoint(1).state_root
    store.save(make_checkpoint(1))
    with store.hold(root) as (epoch, path):
        with store.hold(root):
            pass
        for later in range(2, 7):
            store.save(make_checkpoint(later))
        assert epoch == 1
        assert path.name == FILES[0]
        assert path.is_file()
        assert [stored.epoch for stored in store.roots()] == [6, 5, 4, 1]
    store.save(make_checkpoint(7))
    assert [stored.epoch for stored in store.roots()] == [7, 6, 5]


def test_a_checkpoint_that_is_gone_cannot_be_held(store, make_checkpoint):
    for epoch in range(1, 6):
        store.save(make_checkpoint(epoch))
    with (
        pytest.raises(LookupError, match="no checkpoint of the state"),
        store.hold(make_checkpoint(1).state_root),
    ):
        pass


def test_a_checkpoint_that_is_being_dropped_cannot_be_held(store, make_checkpoint, monkeypatch):
    roots, tried, real = [make_checkpoint(e).state_root for e in range(1, 5)], [], shutil.rmtree
    for epoch in (1, 2, 3):
        store.save(make_checkpoint(epoch))

    def rmtree(path, **kwargs):
        with pytest.raises(LookupError), store.hold(roots[0]):
            pass
        with store.hold(roots[1]):
            tried.append(path.name.partition("-")[2].partition("-")[2])
        real(path, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    store.save(make_checkpoint(4))
    assert tried == [make_checkpoint(1).name]


def test_a_checkpoint_is_loaded_by_its_root(store, make_checkpoint, schema, slots, assert_same):
    saved = [make_checkpoint(epoch) for epoch in (1, 2)]
    for checkpoint in saved:
        store.save(checkpoint)
    assert_same(store.load(saved[0].state_root, schema, slots), saved[0])
    assert store.load("ab" * 32, schema, slots) is None


def test_a_damaged_checkpoint_is_not_loaded_by_its_root_and_stays(
    store, tmp_path, make_checkpoint, schema, slots
):
    checkpoint = make_checkpoint(1)
    store.save(checkpoint)
    one_bit_flipped(tmp_path / "checkpoints" / checkpoint.name / "state.safetensors")
    assert store.load(checkpoint.state_root, schema, slots) is None
    assert store.names() == [checkpoint.name]


def test_what_is_protected_stays_as_long_as_it_is(tmp_path, manifest_hash, make_checkpoint):
    store = CheckpointStore(tmp_path, manifest_hash, keep=1)
    first = make_checkpoint(1)
    store.save(first)
    store.protect([first.state_root])
    store.save(make_checkpoint(2))
    store.save(make_checkpoint(3))
    assert [stored.epoch for stored in store.roots()] == [3, 1]
    store.protect([])
    store.save(make_checkpoint(4))
    assert [stored.epoch for stored in store.roots()] == [4]


def test_training_goes_on_from_no_state_that_was_fetched(
    store, load, tmp_path, make_checkpoint, assert_same, fetch_by_hand
):
    folder = tmp_path / "checkpoints"
    fetch_by_hand(folder, make_checkpoint(9))
    assert load(store) == (None, [])
    store.save(make_checkpoint(2))
    assert_same(load(store)[0], make_checkpoint(2))
    emptied(folder / make_checkpoint(2).name / FILES[0])
    with pytest.raises(DamagedError, match="every checkpoint"):
        load(store)
    assert store.names() == [make_checkpoint(9).name]


def test_a_fetched_state_is_found_by_its_root_and_told_apart(
    store, tmp_path, make_checkpoint, schema, slots, fetch_by_hand
):
    nine = make_checkpoint(9)
    fetch_by_hand(tmp_path / "checkpoints", nine)
    store.save(make_checkpoint(2))
    assert [(s.epoch, s.fetched) for s in store.roots()] == [(9, True), (2, False)]
    assert store.load(nine.state_root, schema, slots).place is None
    with store.hold(nine.state_root) as (epoch, path):
        assert (epoch, path.is_file()) == (9, True)


def test_what_was_fetched_stays_and_takes_nobodys_place(
    store, tmp_path, make_checkpoint, fetch_by_hand
):
    fetch_by_hand(tmp_path / "checkpoints", make_checkpoint(1))
    fetch_by_hand(tmp_path / "checkpoints", make_checkpoint(99))
    for epoch in range(2, 9):
        store.save(make_checkpoint(epoch))
    assert [stored.epoch for stored in store.roots()] == [99, 8, 7, 6, 1]
    store.leave(6)
    assert [stored.epoch for stored in store.roots()] == [99, 6, 1]


def test_our_own_checkpoint_takes_the_place_of_the_same_state_fetched(
    store, load, tmp_path, make_checkpoint, assert_same, fetch_by_hand
):
    folder, two = tmp_path / "checkpoints", make_checkpoint(2)
    fetch_by_hand(folder, two)
    assert [stored.fetched for stored in store.roots()] == [True]
    with store.hold(two.state_root) as (_, path):
        assert store.save(two) > 0
        assert path.is_file()
    assert [stored.fetched for stored in store.roots()] == [False]
    assert_same(load(store)[0], two)
    assert sorted(path.name for path in folder.iterdir()) == [".fetching", two.name]


def test_what_is_fetched_while_a_daemon_starts_is_left_alone(
    store, tmp_path, make_checkpoint, manifest_hash, fetch_by_hand
):
    folder = tmp_path / "checkpoints"
    fetch_by_hand(folder, make_checkpoint(1))
    half = folder / ".fetching" / "ab" / "0"
    half.parent.mkdir()
    half.touch()
    again = CheckpointStore(folder, manifest_hash, keep=1)
    again.save(make_checkpoint(2))
    assert half.exists()


def test_the_papers_of_a_checkpoint_are_what_lies_beside_it(
    store, tmp_path, make_checkpoint, manifest_hash, identities
):
    store.save(make_checkpoint(0))
    assert store.papers(make_checkpoint(0).state_root) == Papers()
    author = Author(identities[0], lambda: 5.0)
    signed = CheckpointStore(tmp_path / "signed", manifest_hash, 3, author)
    signed.save(make_checkpoint(0))
    papers = signed.papers(make_checkpoint(0).state_root)
    assert papers.annotation.writer == identities[0].peer_id
    with pytest.raises(LookupError):
        store.papers("ab" * 32)
    store.save(make_checkpoint(1))  # its certificate is none
    with pytest.raises(DamagedError, match="cannot be read"):
        store.papers(make_checkpoint(1).state_root)


@pytest.mark.parametrize("there_before", [True, False])
@pytest.mark.parametrize("there_after", [True, False])
def test_whatever_a_person_does_with_a_state_while_it_is_saved_ours_is_there_at_last(
    store, load, tmp_path, make_checkpoint, monkeypatch, fetch_by_hand, there_before, there_after
):
    folder, two, real = tmp_path / "checkpoints", make_checkpoint(2), module.write_files

    def write_files(*arguments):
        real(*arguments)
        if there_before:
            assert Shelf(folder).drop(two.name, remember=False)
        if there_after:
            fetch_by_hand(folder, two)

    if there_before:
        fetch_by_hand(folder, two)
    monkeypatch.setattr(module, "write_files", write_files)
    assert store.save(two) > 0
    assert load(store)[0].place is not None
    assert [path.name for path in folder.glob("[.0]*") if path.name != ".fetching"] == [two.name]


@pytest.mark.parametrize("damage", [cut_in_half, emptied, removed], ids=lambda d: d.__name__)
def test_a_fetched_state_whose_head_cannot_be_read_does_not_keep_training_from_starting(
    store, load, tmp_path, make_checkpoint, assert_same, fetch_by_hand, damage
):
    folder = tmp_path / "checkpoints"
    fetch_by_hand(folder, make_checkpoint(9))
    damage(folder / make_checkpoint(9).name / "checkpoint.json")
    assert load(store) == (None, [])
    store.save(make_checkpoint(2))
    store.leave(1)
    assert store.names() == [make_checkpoint(9).name]
    store.save(make_checkpoint(2))
    loaded, damaged = load(store)
    assert_same(loaded, make_checkpoint(2))
    assert damaged == []
