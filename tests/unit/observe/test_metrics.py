import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from peer.daemon.lifecycle import State
from peer.daemon.restart import FailureClass
from peer.events import (
    CheckpointFailed,
    Progress,
    RoundCommitted,
    RoundFailed,
    RoundFailure,
    WorkRepeated,
)
from peer.observe.metrics import Metrics
from peer.observe.status import Snapshot, Surroundings, render

SURROUNDINGS = Surroundings(
    state="training",
    reason="gathering",
    now_s=0.0,
    unix_time_s=0.0,
    rss_bytes={},
    metrics_url="",
    run_id="run",
    pid=1,
    worker_pid=None,
)
COMMITTED = RoundCommitted(
    epoch=3,
    generation=0,
    group=1,
    weight=100,
    loss=2.0,
    seconds_by_phase={"gather": 0.1, "reduce": 0.2, "certify": 0.3, "outer_step": 0.4},
    bytes_sent=10,
    bytes_received=20,
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
    return Metrics(State, RoundFailure, FailureClass)


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
    for phase in ("gather", "reduce", "certify", "outer_step"):
        assert value(text, "ctpeer_round_seconds_count", phase=phase) == 0


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
    assert value(text, "ctpeer_received_bytes_total") == 20
    assert value(text, "ctpeer_round_seconds_sum", phase="certify") == pytest.approx(0.3)
    assert value(text, "ctpeer_repeated_tokens_total") == 5
    assert value(text, "ctpeer_dropped_tokens_total") == 64
    assert value(text, "ctpeer_checkpoints_total", result="failed") == 1
    assert value(text, "ctpeer_epoch") == 3


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("events", [(), (PROGRESS, COMMITTED)], ids=["fresh", "at work"])
def test_promtool_finds_nothing_to_complain_about(metrics, events):
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposed(metrics, *events),
        text=True,
        capture_output=True,
        timeout=30,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
