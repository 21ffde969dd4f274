import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.cli.view import duration, lines, plain, spark, table
from peer.events import Evaluated, PeersSeen, RoundCommitted
from peer.observe.status import Snapshot, Surroundings, render


def status(*events, role="trainer"):
    snapshot = Snapshot(started_s=0.0)
    for event in events:
        snapshot.apply(event, 1.0)
    around = Surroundings(
        state="training",
        reason="gathering the epoch's batch",
        now_s=100.0,
        unix_time_s=0.0,
        rss_bytes={"worker": 5_000_000},
        metrics_url="http://127.0.0.1:8470/metrics",
        run_id="shakespeare-ab",
        role=role,
        pid=1,
        worker_pid=2,
    )
    return render(snapshot, around)


def test_a_daemon_that_has_just_begun_can_be_shown():
    text = plain(status())
    assert "training: gathering the epoch's batch" in text
    assert "checkpoint  none yet" in text


def test_what_a_peer_wants_to_be_is_shown_unless_it_is_like_most():
    assert "role" not in dict(lines(status()))
    assert dict(lines(status(role="validator")))["role"] == "validator"


def test_loss_score_and_baselines_are_shown(make_loaded):
    commit = RoundCommitted(
        epoch=1,
        generation=0,
        loss_terms={"me": 4096},
        loss=6.9,
        seconds_by_phase={},
        dropped_samples=0,
        dropped_tokens=0,
    )
    score = Evaluated(epoch=1, name="bits_per_byte", value=4.4, metrics={}, seconds=1.0)
    shown = dict(lines(status(make_loaded(), commit, score)))
    assert shown["loss"].startswith("6.900 nats")
    assert shown["held-out"].startswith("4.400 bits per byte at epoch 1, unigram 3.678")
    assert "0.5 M parameters on cpu" in shown["run"]


def test_the_other_peers_and_the_invite_are_shown():
    def seen(state):
        return {"peer_id": "Qm", "address": None, "state": state}

    event = PeersSeen(
        addresses=("/ip4/127.0.0.1/tcp/4001/p2p/Qm" + "a" * 44,),
        reachability="loopback only",
        peers=(seen("in group"), seen("behind"), seen("unreachable")),
        sent_bytes=0,
        received_bytes=0,
        refused_records={},
        refused_requests={},
    )
    shown = dict(lines(status(event)))
    assert shown["peers"].startswith("2 others reachable, this one is loopback only; 1 known but")
    assert "peers" not in dict(lines(status()))


def test_the_live_table_renders_what_the_plain_lines_say(make_loaded):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120)
    console.print(table(status(make_loaded()), "a hint"))
    text = console.file.getvalue()
    assert "0 of 4,096 loss terms" in text
    assert "a hint" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert duration(seconds) == text


@given(st.lists(st.floats(), max_size=300))
def test_any_history_makes_a_short_spark_line(values):
    line = spark(values)
    assert len(line) <= 40
    assert bool(line) == any(math.isfinite(value) for value in values)


def test_a_falling_history_falls():
    assert spark([3.0, 2.0, 1.0]) == "█▅▁"
