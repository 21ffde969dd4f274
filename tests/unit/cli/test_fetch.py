"""What a person sees while a checkpoint is fetched, and after Ctrl-C."""

import re

import pytest

from peer.cli import fetch
from peer.cli.fetch import _Meter

ROOT = "ab" * 32


@pytest.fixture
def clock(monkeypatch):
    """Return the monotonic time, which a test moves."""
    now = [100.0]
    monkeypatch.setattr(fetch.time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_how_much_is_here_and_how_fast_it_comes(clock, capsys):
    meter = _Meter(shown=True)
    meter.stage("looking for peers of the run")
    meter.picked(ROOT)
    for done in (2_000_000, 4_000_000, 8_000_000):
        meter.progress(done, 8_000_000)
        clock[0] += 1.0
    meter.clear()
    lines = re.split("\r(?:\x1b\\[2K)?", capsys.readouterr().err)
    assert lines == [
        "",
        "looking for peers of the run",
        "abababababab: 2.0 of 8.0 MB, 0.0 MB/s",
        "abababababab: 4.0 of 8.0 MB, 2.0 MB/s",
        "abababababab: 8.0 of 8.0 MB, 3.0 MB/s",
        "",
    ]


def test_the_line_is_not_drawn_for_every_chunk_but_for_the_last(clock, capsys):
    meter = _Meter(shown=True)
    meter.picked(ROOT)
    for done in range(1, 1001):
        meter.progress(done * 1000, 1_000_000)
        clock[0] += 0.001
    drawn = capsys.readouterr().err.split("\r")[1:]
    assert len(drawn) <= 7
    assert "1.0 of 1.0 MB" in drawn[-1]


def test_where_no_terminal_is_nothing_is_shown(capsys):
    meter = _Meter(shown=False)
    meter.stage("starting a node")
    meter.progress(1, 2)
    meter.clear()
    assert capsys.readouterr().err == ""


def test_after_an_interruption_it_says_what_goes_on_from_there(clock):
    meter = _Meter(shown=False)
    assert "fetch newest` begins anew" in meter.farewell("newest")
    meter.picked(ROOT)
    meter.progress(1_500_000, 3_000_000)
    words = meter.farewell("newest")
    assert words.startswith("interrupted: 1.5 of 3.0 MB are here")
    assert f"`ctpeer checkpoint fetch {ROOT}` goes on from there" in words
