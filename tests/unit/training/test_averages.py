"""A joiner finds the averages after its snapshot, and their number stays bounded."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peer.training.averages import AverageLog

PARTS = (b"first part", b"", b"third")
SIZE = sum(map(len, PARTS))


def parts_of(epoch):
    return [b"%6d" % epoch * 50, b"x", b"%6d" % epoch]


PART_BYTES = sum(map(len, parts_of(0)))


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def files(folder):
    return [path for path in folder.iterdir() if path.is_file()]


@pytest.fixture
def make_log(tmp_path):
    """Return a log that keeps so many averages in memory, and so many altogether."""

    def make(in_memory=100, total=1000):
        return AverageLog(tmp_path / "averages", in_memory * PART_BYTES, total * PART_BYTES)

    return make


@pytest.fixture
def fill():
    """Add averages, each on a state that is named like its epoch, and spill what is too much."""

    def fill_log(log, epochs):
        for epoch in epochs:
            log.add(f"r{epoch}", epoch, f"c{epoch}", parts_of(epoch))
            log.spill()

    return fill_log


def kept(log, epochs):
    """Return the epochs that can be replayed, having compared every byte of them."""
    found = []
    for epoch in epochs:
        entry = log.get(f"r{epoch}")
        if entry is not None:
            assert (entry.epoch, entry.certificate) == (epoch, f"c{epoch}")
            assert list(entry.parts) == parts_of(epoch)
            found.append(epoch)
    return found


@pytest.mark.parametrize("in_memory", [0, 1], ids=["disk", "memory"])
def test_what_was_added_is_returned(make_log, in_memory):
    log = make_log(in_memory)
    log.add("root", 7, "certificate", PARTS)
    log.spill()
    found = log.get("root")
    assert (found.epoch, found.certificate) == (7, "certificate")
    assert list(found.parts) == list(PARTS)
    assert len(found.parts) == 3
    assert found.parts[-1] == b"third"
    assert list(found.parts[1:]) == [b"", b"third"]
    with pytest.raises(IndexError):
        found.parts[3]
    assert log.total_bytes == SIZE


def test_an_unknown_root_has_nothing(make_log):
    log = make_log()
    assert log.get("root") is None
    assert log.certificate("root") is None


def test_only_the_newest_stay_in_memory(make_log, fill, tmp_path):
    log = make_log(in_memory=3)
    fill(log, range(8))
    assert len(files(tmp_path / "averages")) == 5
    assert kept(log, range(9)) == list(range(8))


def test_adding_does_not_write_and_says_when_there_is_something_to_spill(make_log, tmp_path):
    log = make_log(in_memory=1)
    said = []
    for epoch in range(3):
        log.add(f"r{epoch}", epoch, f"c{epoch}", parts_of(epoch))
        said.append(log.too_much_in_memory)
    assert said == [False, True, True]
    assert files(tmp_path / "averages") == []
    log.spill()
    assert not log.too_much_in_memory
    assert len(files(tmp_path / "averages")) == 2
    assert kept(log, range(3)) == [0, 1, 2]


def test_beyond_the_total_the_oldest_go_and_their_certificates_stay(make_log, fill, tmp_path):
    log = make_log(in_memory=2, total=5)
    fill(log, range(12))
    assert kept(log, range(12)) == [7, 8, 9, 10, 11]
    assert len(files(tmp_path / "averages")) == 3
    assert log.total_bytes == 5 * PART_BYTES
    assert [log.certificate(f"r{epoch}") for epoch in range(12)] == [f"c{e}" for e in range(12)]


def test_an_average_larger_than_the_total_is_not_kept(make_log):
    log = make_log(total=2)
    log.add("root", 1, "certificate", [b"x" * 3 * PART_BYTES])
    assert log.get("root") is None
    assert log.certificate("root") == "certificate"
    assert log.total_bytes == 0


def test_only_so_many_certificates_are_kept(make_log):
    log = make_log()
    for epoch in range(5000):
        log.add(f"r{epoch}", epoch, "c", [])
    assert log.certificate("r903") is None
    assert log.certificate("r904") == "c"


def test_large_certificates_are_kept_up_to_a_size(make_log):
    log = make_log()
    for epoch in range(5):
        log.add(f"r{epoch}", epoch, "c" * (15 << 20), [])
    assert [log.certificate(f"r{epoch}") is not None for epoch in range(5)] == [False] + [True] * 4


def test_another_average_on_the_same_state_takes_its_place(make_log, tmp_path):
    log = make_log(in_memory=0)
    for name in ("old", "new"):
        log.add("root", 1, name, [name.encode()])
        log.spill()
    assert list(log.get("root").parts) == [b"new"]
    assert log.certificate("root") == "new"
    assert len(files(tmp_path / "averages")) == 1


def test_what_is_older_than_the_snapshots_goes(make_log, fill, tmp_path):
    log = make_log(in_memory=2)
    fill(log, range(8))
    log.drop_before(5)
    assert kept(log, range(8)) == [5, 6, 7]
    assert len(files(tmp_path / "averages")) == 1
    assert log.certificate("r0") == "c0"


def test_an_epoch_that_is_repeated_after_a_rollback_is_kept(make_log, fill):
    log = make_log()
    fill(log, range(8))
    log.drop_before(8)
    log.add("other", 3, "c", PARTS)
    assert log.get("other") is not None


def test_what_is_pinned_stays_until_the_last_pin_goes(make_log, fill):
    log = make_log()
    fill(log, range(8))
    with log.pin(4):
        with log.pin(2):
            log.drop_before(7)
            assert kept(log, range(8)) == [2, 3, 4, 5, 6, 7]
        assert kept(log, range(8)) == [4, 5, 6, 7]
        log.add("r3", 3, "c3", parts_of(3))
    assert kept(log, range(8)) == [3, 7]


def test_a_pin_ends_with_an_error_too(make_log, fill):
    log = make_log()
    fill(log, range(3))
    with pytest.raises(IndexError), log.pin(0):
        log.drop_before(3) or log.get("r0").parts[3]
    assert kept(log, range(3)) == []


def test_a_pin_does_not_keep_more_than_the_total(make_log, fill):
    log = make_log(total=3)
    with log.pin(0):
        fill(log, range(9))
        assert kept(log, range(9)) == [6, 7, 8]


def test_what_a_reader_holds_stays_readable_when_it_is_dropped(make_log, fill):
    log = make_log(in_memory=1)
    fill(log, range(3))
    held = [log.get("r0"), log.get("r2")]
    log.drop_before(9)
    assert kept(log, range(3)) == []
    assert [list(entry.parts) for entry in held] == [parts_of(0), parts_of(2)]


def test_a_reader_that_goes_gives_its_file_back(make_log, fill):
    log = make_log(in_memory=0)
    fill(log, range(3))
    before = open_files()
    held = [log.get("r1") for _ in range(5)]
    assert open_files() == before + 5
    held.clear()
    assert open_files() == before


def test_files_of_an_earlier_process_go_and_other_files_stay(make_log, fill, tmp_path):
    fill(make_log(in_memory=0), range(3))
    (tmp_path / "averages" / "notes.txt").write_text("mine")
    log = make_log()
    assert [path.name for path in files(tmp_path / "averages")] == ["notes.txt"]
    assert kept(log, range(3)) == []


def test_a_full_disk_costs_the_average_and_nothing_else(make_log, fill, monkeypatch, tmp_path):
    log = make_log(in_memory=2)
    fill(log, range(3))

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        fill(log, range(3, 6))
    assert kept(log, range(6)) == [0, 4, 5]
    assert len(files(tmp_path / "averages")) == 1
    fill(log, range(6, 8))
    assert kept(log, range(8)) == [0, 4, 5, 6, 7]


def test_an_average_that_is_dropped_while_it_is_written_leaves_no_file(
    make_log, fill, monkeypatch, tmp_path
):
    log, real = make_log(in_memory=0), Path.open

    def drop_and_open(path, *arguments):
        log.drop_before(9)
        return real(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", drop_and_open)
        fill(log, range(3))
    assert kept(log, range(3)) == []
    assert files(tmp_path / "averages") == []


def test_a_file_that_was_removed_costs_the_average_and_nothing_else(make_log, fill, tmp_path):
    log = make_log(in_memory=1)
    fill(log, range(2))
    for path in files(tmp_path / "averages"):
        path.unlink()
    assert kept(log, range(2)) == [1]


def test_a_file_that_was_cut_short_raises_and_gives_no_wrong_bytes(make_log, fill, tmp_path):
    log = make_log(in_memory=0)
    fill(log, range(1))
    (path,) = files(tmp_path / "averages")
    os.truncate(path, path.stat().st_size - 1)
    parts = log.get("r0").parts
    assert parts[0] == parts_of(0)[0]
    with pytest.raises(OSError, match="end after"):
        parts[2]


def test_readers_see_whole_averages_while_others_are_added(make_log, fill):
    log, epochs, done = make_log(in_memory=3, total=20), 400, threading.Event()

    def read():
        while not done.is_set():
            kept(log, range(epochs))

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for epoch in range(epochs):
                with log.pin(epoch - 9):
                    fill(log, [epoch])
                    log.drop_before(epoch - 5)
        finally:
            done.set()
        for reader in readers:
            reader.result(30)
    assert kept(log, range(epochs)) == list(range(epochs - 6, epochs))
