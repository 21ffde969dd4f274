import json

import pytest

from peer.events import (
    BranchLeft,
    CheckpointFailed,
    CheckpointRejected,
    CheckpointWritten,
    Evaluated,
    PartRefused,
    PeerMisbehaved,
    PeersSeen,
    Progress,
    RolledBack,
    RootComputed,
    RoundCommitted,
    RoundFailed,
    ShardQuarantined,
    WorkRepeated,
)
from peer.observe.status import Snapshot, Surroundings, render

PROMISED = {
    "schema", "state", "reason", "run_id", "role", "epoch", "generation", "state_root", "loss",
    "heldout", "tokens_total", "tokens_per_second", "contribution", "rounds", "shards",
    "checkpoint", "restarts", "uptime_s", "device", "rss_bytes", "metrics_url",
    "peer_id", "addresses", "reachability", "invite", "peers",
}  # fmt: skip


def progress(tokens, weight=None):
    return Progress(
        samples=1,
        tokens=tokens,
        loss=2.0,
        contribution_samples=1,
        contribution_weight=weight or tokens,
        tokens_total=tokens,
        seconds=0.1,
    )


def committed(epoch, loss=2.0, loss_terms=None, dropped_tokens=0):
    return RoundCommitted(
        epoch=epoch,
        generation=0,
        loss_terms=loss_terms or {"Qm": 100},
        loss=loss,
        seconds_by_phase={"reduce": 0.1},
        dropped_samples=0,
        dropped_tokens=dropped_tokens,
    )


def seen(*states):
    return PeersSeen(
        addresses=("/ip4/203.0.113.7/tcp/31337/p2p/Qm",),
        reachability="public",
        peers=tuple({"peer_id": f"Q{i}", "state": state} for i, state in enumerate(states)),
        sent_bytes=1,
        received_bytes=2,
        refused_records={},
        refused_requests={},
    )


def status_after(*events, now_s=0.0, unix_time_s=0.0):
    snapshot = Snapshot(started_s=0.0)
    for event in events:
        snapshot.apply(event, now_s)
    return render(
        snapshot,
        Surroundings(
            state="training",
            reason="gathering",
            now_s=now_s,
            unix_time_s=unix_time_s,
            rss_bytes={"supervisor": 1, "worker": 2},
            metrics_url="http://127.0.0.1:8470/metrics",
            run_id="run-1",
            role="trainer",
            pid=1,
            worker_pid=2,
        ),
    )


def test_before_the_worker_said_anything_every_promised_field_is_there():
    status = status_after()
    assert set(status) >= PROMISED
    assert set(status["heldout"]) >= {"name", "value", "epoch", "baselines"}
    assert set(status["contribution"]) >= {"samples", "weight"}
    assert set(status["rounds"]) >= {"committed", "failed", "last_failure"}
    assert set(status["peers"]) >= {"live", "in_group", "reachable"}
    assert (status["addresses"], status["reachability"], status["invite"]) == ([], None, None)
    json.dumps(status, allow_nan=False)


def test_progress_fills_the_contribution_and_a_commit_empties_it(make_loaded):
    assert status_after(make_loaded(), progress(70))["contribution"]["weight"] == 70
    after = status_after(make_loaded(), progress(70), committed(1))
    assert after["contribution"] == {"samples": 0, "weight": 0, "target_weight": 4096}
    assert (after["epoch"], after["rounds"]["committed"]) == (1, 1)


def test_loss_is_the_mean_of_the_last_ten_epochs():
    losses = [*range(100, 0, -10), 5]
    status = status_after(*(committed(i, loss) for i, loss in enumerate(losses, 1)))
    assert status["loss"] == pytest.approx(sum(losses[1:]) / 10)


def test_an_epoch_that_others_made_has_no_loss_of_ours():
    assert status_after(committed(1, 3.0), committed(2, None))["losses"] == [3.0]


def test_the_group_is_the_last_certificates_and_dropped_work_adds_up():
    status = status_after(
        committed(1, loss_terms={"Qm": 30, "Qn": 40}, dropped_tokens=5),
        committed(2, loss_terms={"Qm": 30, "Qn": 40, "Qo": 1}, dropped_tokens=7),
    )
    assert status["rounds"]["group"] == status["peers"]["in_group"] == 3
    assert status["tokens_dropped"] == 12


def test_the_commits_are_kept_with_who_brought_what_but_not_for_ever():
    snapshot = Snapshot(started_s=0.0)
    for epoch in range(2000):
        snapshot.apply(committed(epoch, loss_terms={"Qm": epoch + 1}), 0.0)
    assert len(snapshot.commits) == 512
    assert (snapshot.commits[-1].epoch, snapshot.commits[-1].loss_terms) == (1999, {"Qm": 2000})


def test_a_branch_that_was_left_is_shown_with_what_was_lost(make_loaded):
    left = BranchLeft(
        reason="3 peers went on there, 1 here",
        epoch=3,
        lost_epochs=4,
        lost_weight=100,
        dropped_samples=2,
        dropped_tokens=16,
    )
    status = status_after(make_loaded(), committed(9), progress(70), left, left)
    assert status["epoch"] == 3
    assert status["epochs_lost_in_branches"] == 8
    assert status["loss_terms_lost_in_branches"] == 200
    assert status["last_branch_left"] == "3 peers went on there, 1 here"
    assert status["tokens_dropped"] == 32
    assert status["contribution"]["weight"] == 0


def test_peers_are_live_when_they_answer_whatever_else_they_do():
    states = ("in group", "behind", "left out", "unreachable", "not asked yet")
    status = status_after(seen(), seen(*states))
    assert status["peers"] == {"live": 4, "in_group": 0, "reachable": 3, "known": 5}
    assert [peer["state"] for peer in status["swarm_peers"]] == list(states)
    assert status["reachability"] == "public"
    assert status["addresses"] == ["/ip4/203.0.113.7/tcp/31337/p2p/Qm"]


def test_without_a_network_this_peer_alone_is_live():
    assert status_after()["peers"] == {"live": 1, "in_group": 0, "reachable": 0, "known": 0}


def test_misbehaviour_is_shown_by_peer_and_its_memory_is_bounded():
    snapshot = Snapshot(started_s=0.0)
    for i in range(5000):
        snapshot.apply(PeerMisbehaved(peer_id=f"Q{i}", what="a vote without a name"), 0.0)
    snapshot.apply(PartRefused(peer_id="Q1", reason="not finite"), 0.0)
    assert len(snapshot.misbehaved) == 512
    assert snapshot.misbehaved["Q4999"] == "a vote without a name"
    assert snapshot.refused_parts == 1


def test_a_failed_round_is_counted_and_named():
    failure = RoundFailed(
        reason="not_finite",
        detail="own contribution not finite",
        dropped_samples=1,
        dropped_tokens=64,
    )
    rounds = status_after(failure, failure)["rounds"]
    assert rounds["failed"] == 2
    assert rounds["failed_by_reason"] == {"not_finite": 2}
    assert rounds["last_failure"] == "own contribution not finite"


def test_heldout_stands_beside_its_baselines(make_loaded):
    score = Evaluated(epoch=3, name="bits_per_byte", value=3.1, metrics={}, seconds=1.0)
    heldout = status_after(make_loaded(), score)["heldout"]
    assert (heldout["value"], heldout["epoch"]) == (3.1, 3)
    assert heldout["baselines"] == {"unigram": 3.678}


def test_the_rate_is_over_the_last_half_minute():
    snapshot = Snapshot(started_s=0.0)
    for second in range(100):
        snapshot.apply(progress(10 if second < 50 else 1000), float(second))
    assert snapshot.tokens_per_second(99.0) == pytest.approx(1000, rel=0.05)
    assert snapshot.tokens_per_second(200.0) == 0.0


def test_a_written_checkpoint_has_an_age_and_ends_an_earlier_problem():
    written = CheckpointWritten(state_root="ab", epoch=4, bytes=1, seconds=0.1, unix_time_s=1000.0)
    status = status_after(CheckpointFailed(reason="disk full"), written, unix_time_s=1012.0)
    assert status["checkpoint"] == {"root": "ab", "epoch": 4, "age_s": 12.0}
    assert status["checkpoint_problem"] is None


def test_a_resumed_run_shows_the_checkpoint_it_came_from(make_loaded):
    event = make_loaded(epoch=9, state_root="cd", checkpoint_unix_time_s=990.0)
    status = status_after(event, unix_time_s=1000.0)
    assert status["checkpoint"] == {"root": "cd", "epoch": 9, "age_s": 10.0}
    assert status["state_root"] == "cd"


def test_a_problem_with_checkpoints_is_said_until_one_is_written():
    rejected = CheckpointRejected(name="00000001-ab", reason="cut short")
    assert "cut short" in status_after(rejected)["checkpoint_problem"]


def test_the_state_root_names_its_epoch():
    status = status_after(committed(5), RootComputed(epoch=4, state_root="ef"))
    assert (status["state_root"], status["state_root_epoch"]) == ("ef", 4)


def test_repeated_work_and_quarantined_shards_are_shown():
    status = status_after(
        WorkRepeated(samples=1, tokens=64), ShardQuarantined(name="b.txt", reason="cut short")
    )
    assert status["tokens_repeated"] == 64
    assert status["shards_quarantined"] == {"b.txt": "cut short"}


def curves_after(*events):
    snapshot = Snapshot(started_s=0.0)
    for event in events:
        snapshot.apply(event, 0.0)
    return snapshot.history.shown()


def test_the_curves_go_over_all_epochs_and_scores(make_loaded):
    score = Evaluated(epoch=2, name="bits_per_byte", value=3.1, metrics={}, seconds=1.0)
    group = {"Qm": 30, "Qn": 40}
    assert curves_after(make_loaded(), committed(1, 5.0), committed(2, None, group), score) == {
        "loss": [[1, 5.0]],
        "heldout": [[2, 3.1]],
        "group": [[1, 1.0], [2, 2.0]],
    }


def test_a_worker_that_begins_at_an_earlier_epoch_takes_the_curves_back(make_loaded):
    epochs = [committed(epoch, 5.0) for epoch in range(1, 9)]
    curves = curves_after(make_loaded(), *epochs, make_loaded(epoch=6, state_root="ab"))
    assert curves["loss"][-1] == [6, 5.0]


def test_a_rollback_takes_the_curves_back():
    rolled = RolledBack(
        reason="rejected", generation=1, epoch=4, lost_epochs=4, dropped_samples=0, dropped_tokens=0
    )
    curves = curves_after(*(committed(epoch, 5.0) for epoch in range(1, 9)), rolled)
    assert curves["group"][-1] == [4, 1.0]


def test_a_dead_workers_unfinished_epoch_is_gone_but_its_tokens_count():
    snapshot = Snapshot(started_s=0.0)
    snapshot.apply(progress(70), 1.0)
    snapshot.worker_died("crash")
    assert snapshot.contribution_weight == 0
    assert snapshot.tokens_total == 70
