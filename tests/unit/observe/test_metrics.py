import dataclasses
import math
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from peer.daemon.lifecycle import State
from peer.daemon.restart import FailureClass
from peer.events import (
    BranchLeft,
    CheckpointFailed,
    PartRefused,
    PeerMisbehaved,
    PeersSeen,
    Progress,
    RoundCommitted,
    RoundFailed,
    RoundFailure,
    WorkRepeated,
)
from peer.observe.metrics import PART_REFUSALS, ROUND_PHASES, SURVIVED_PARTS, Metrics
from peer.observe.status import Snapshot, Surroundings, render
from peer.swarm.records import Refusal

SURROUNDINGS = Surroundings(
    state="training",
    reason="gathering",
    now_s=0.0,
    unix_time_s=0.0,
    rss_bytes={},
    metrics_url="",
    run_id="run",
    role="trainer",
    pid=1,
    worker_pid=None,
)
COMMITTED = RoundCommitted(
    epoch=3,
    generation=0,
    loss_terms={"a": 60, "b": 40},
    loss=2.0,
    seconds_by_phase=dict(zip(ROUND_PHASES, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True)),
    dropped_samples=1,
    dropped_tokens=8,
)
SEEN = PeersSeen(
    addresses=("/ip4/203.0.113.7/tcp/31337/p2p/Qm",),
    reachability="public",
    peers=({"state": "reachable"}, {"state": "unreachable"}, {"state": "not asked yet"}),
    sent_bytes=10,
    received_bytes=20,
    refused_records={str(Refusal.PLAIN): 3},
    refused_requests={"busy": 2},
)
PROGRESS = Progress(
    samples=2,
    tokens=64,
    loss=1.0,
    contribution_samples=2,
    contribution_weight=64,
    tokens_total=64,
    seconds=0.1,
)


@pytest.fixture
def metrics():
    return Metrics(State, RoundFailure, FailureClass, Refusal)


def exposed(metrics, *events):
    snapshot = Snapshot(started_s=0.0)
    for event in events:
        snapshot.apply(event, 0.0)
        metrics.apply(event)
    return metrics.expose(render(snapshot, SURROUNDINGS), {"supervisor": 7}).decode()


def value(text, name, **labels):
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise AssertionError(f"{name} {labels} is not there")


def test_every_counter_is_there_at_zero_before_anything_happened(metrics):
    text = exposed(metrics)
    for result in ("committed", *RoundFailure):
        assert value(text, "ctpeer_rounds_total", result=result) == 0
    for reason in FailureClass:
        assert value(text, "ctpeer_restarts_total", reason=reason) == 0
    for name in ("tokens", "samples", "sent_bytes", "received_bytes", "repeated_tokens"):
        assert value(text, f"ctpeer_{name}_total") == 0
    for name in ("peer_misbehaviour", "branches_left", "branch_lost_epochs", "dropped_tokens"):
        assert value(text, f"ctpeer_{name}_total") == 0
    for phase in ROUND_PHASES:
        assert value(text, "ctpeer_round_seconds_count", phase=phase) == 0
    for part in SURVIVED_PARTS:
        assert value(text, "ctpeer_supervisor_failures_total", part=part) == 0
    for reason in Refusal:
        assert value(text, "ctpeer_records_refused_total", reason=reason) == 0
    for reason in (*PART_REFUSALS, "other"):
        assert value(text, "ctpeer_parts_refused_total", reason=reason) == 0
    for state in ("known", "reachable"):
        assert value(text, "ctpeer_peers", state=state) == 0


def test_exactly_one_state_is_one(metrics):
    text = exposed(metrics)
    states = {state: value(text, "ctpeer_state", state=state) for state in State}
    assert [state for state, there in states.items() if there] == [State.TRAINING]


def test_events_are_counted(metrics, make_loaded):
    failed = RoundFailed(reason="not_finite", detail="x", dropped_samples=1, dropped_tokens=64)
    repeated = WorkRepeated(samples=1, tokens=5)
    text = exposed(
        metrics,
        make_loaded(),
        PROGRESS,
        COMMITTED,
        failed,
        repeated,
        CheckpointFailed(reason="full"),
    )
    assert value(text, "ctpeer_tokens_total") == 64
    assert value(text, "ctpeer_rounds_total", result="committed") == 1
    assert value(text, "ctpeer_rounds_total", result="not_finite") == 1
    assert value(text, "ctpeer_round_seconds_sum", phase="certify") == pytest.approx(0.5)
    assert value(text, "ctpeer_repeated_tokens_total") == 5
    assert value(text, "ctpeer_dropped_tokens_total") == 64 + 8
    assert value(text, "ctpeer_group_peers") == 2
    assert value(text, "ctpeer_checkpoints_total", result="failed") == 1
    assert value(text, "ctpeer_epoch") == 3


def test_what_is_seen_of_the_swarm_is_counted(metrics):
    text = exposed(metrics, SEEN, SEEN)
    assert value(text, "ctpeer_sent_bytes_total") == 20
    assert value(text, "ctpeer_received_bytes_total") == 40
    assert value(text, "ctpeer_records_refused_total", reason=Refusal.PLAIN) == 6
    assert value(text, "ctpeer_requests_refused_total", reason="busy") == 4
    assert value(text, "ctpeer_peers", state="known") == 3
    assert value(text, "ctpeer_peers", state="reachable") == 1


def test_what_peers_do_wrong_is_counted_by_kind(metrics):
    text = exposed(
        metrics,
        PartRefused(peer_id="a", reason="wrong shape: 5 bytes for 20"),
        PartRefused(peer_id="a", reason="not finite"),
        PartRefused(peer_id="b", reason="not finite: a scale is none"),
        PartRefused(peer_id="b", reason="x" * 100),
        PeerMisbehaved(peer_id="a", what="not finite"),
    )
    assert value(text, "ctpeer_parts_refused_total", reason="wrong shape") == 1
    assert value(text, "ctpeer_parts_refused_total", reason="not finite") == 2
    assert value(text, "ctpeer_parts_refused_total", reason="other") == 1
    assert value(text, "ctpeer_peer_misbehaviour_total") == 1


def test_a_branch_that_was_left_is_counted_with_what_was_lost(metrics):
    left = BranchLeft(
        reason="3 peers went on there, 1 here",
        epoch=9,
        lost_epochs=4,
        lost_weight=100,
        dropped_samples=2,
        dropped_tokens=16,
    )
    text = exposed(metrics, left)
    assert value(text, "ctpeer_branches_left_total") == 1
    assert value(text, "ctpeer_branch_lost_epochs_total") == 4
    assert value(text, "ctpeer_dropped_tokens_total") == 16


@pytest.mark.parametrize("free", [5_000, 0])
def test_the_disk_has_what_the_status_says(metrics, free):
    around = dataclasses.replace(SURROUNDINGS, disk_free_bytes=free)
    text = metrics.expose(render(Snapshot(started_s=0.0), around), {}).decode()
    assert value(text, "ctpeer_disk_free_bytes") == free


def test_a_disk_that_cannot_be_asked_is_no_full_one(metrics):
    assert math.isnan(value(exposed(metrics), "ctpeer_disk_free_bytes"))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("events", [(), (PROGRESS, COMMITTED, SEEN)], ids=["fresh", "at work"])
def test_promtool_finds_nothing_to_complain_about(metrics, events):
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposed(metrics, *events),
        text=True,
        capture_output=True,
        timeout=30,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
