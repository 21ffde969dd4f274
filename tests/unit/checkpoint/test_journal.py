"""The journal counts what a crash costs, and losing it loses only the count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.checkpoint.journal import Journal, Work
from peer.clock import FakeClock

COUNTS = st.integers(0, 10**15)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.json"


def test_what_was_recorded_is_read_by_the_next_start(path, clock):
    Journal(path, clock).record(Work(5, 80))
    assert Journal(path, clock).read() == Work(5, 80)


def test_without_a_record_there_was_no_work(path, clock):
    assert Journal(path, clock).read() == Work(0, 0)


def test_within_a_second_only_the_first_record_is_written(path, clock):
    journal = Journal(path, clock)
    for samples, seconds in [(1, 0.5), (2, 0.25), (3, 0.25), (4, 0.5)]:
        journal.record(Work(samples, samples))
        clock.advance(seconds)
    assert journal.read() == Work(4, 4)
    journal.record(Work(5, 5))
    assert journal.read() == Work(4, 4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"5",
        b"[]",
        b"{}",
        b'{"samples": 1}',
        b'{"samples": "many", "tokens": 1}',
        b'{"samples": null, "tokens": 1}',
        b'{"samples": NaN, "tokens": 1}',
        b'{"samples": 1e999, "tokens": 1}',
        b"[" * 100_000,
    ],
)
def test_a_journal_that_cannot_be_read_counts_nothing(path, clock, content):
    path.write_bytes(content)
    assert Journal(path, clock).read() == Work(0, 0)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_work_beyond_another_is_what_was_done_since_and_never_negative(a, b, more_a, more_b):
    before, after = Work(a, b), Work(a + more_a, b + more_b)
    assert after.beyond(before) == Work(more_a, more_b)
    assert before.beyond(after) == Work(0, 0)


def test_a_journal_that_cannot_be_written_is_a_warning(tmp_path, clock, caplog):
    Journal(tmp_path / "missing" / "journal.json", clock).record(Work(1, 1))
    assert "was not kept" in caplog.text


def test_nothing_is_left_beside_the_journal(path, clock):
    Journal(path, clock).record(Work(1, 1))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
