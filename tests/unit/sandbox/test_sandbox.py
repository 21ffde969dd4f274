"""The sandbox with stand-ins for its peers: real processes, that train by the clock alone."""

import functools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from peer.errors import UsageError
from peer.sandbox.plan import Fault, Kind, make_plan
from peer.sandbox.processes import MARK, PeerProcesses
from peer.sandbox.sandbox import Sandbox

STAND_IN = Path(__file__).with_name("stand_in.py")
KILL_1 = Fault(Kind.KILL, 1, 3)


def running_stand_ins(folder):
    """Return the processes of the sandbox in `folder` that run."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = MARK in process.environ() and str(folder) in " ".join(process.cmdline())
        except psutil.Error:
            continue
        if ours and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture
def folder():
    """Return a folder with a short path: homes in it hold sockets."""
    folder = Path(tempfile.mkdtemp(prefix="sb-", dir="/tmp"))
    yield folder
    assert not running_stand_ins(folder)
    shutil.rmtree(folder)


@pytest.fixture
def run(folder, monkeypatch):
    """Run a plan to its end; `faults` says how peers misbehave, by index."""
    command = (sys.executable, str(STAND_IN))
    monkeypatch.setattr(
        "peer.sandbox.member.PeerProcesses", functools.partial(PeerProcesses, command=command)
    )

    def run(peers=2, max_epochs=6, faults=(), interrupts=(), show=lambda members: None, **planned):
        for index, fault in dict(faults).items():
            (folder / f"{index}.json").write_text(json.dumps(fault))
        run.said = []
        plan = make_plan(peers, max_epochs, **({"timeout_s": 20.0} | planned))
        manifest = folder / "run.toml"
        sandbox = Sandbox(plan, folder, folder, manifest, interrupts, run.said.append, show)
        return sandbox.run().report

    return run


def test_peers_that_hold_the_last_epoch_finish_and_are_as_they_should_be(run, folder):
    report = run(peers=3)
    assert (report["ok"], report["problems"]) == (True, [])
    assert [peer["epoch"] for peer in report["peers"]] == [6, 6, 6]
    assert [peer["commits_contributed"] for peer in report["peers"]] == [6, 6, 6]
    assert json.loads((folder / "2" / "last_status.json").read_text())["left"]
    assert (folder / "0" / "run").read_text() == str(folder / "run.toml")
    assert (folder / "2" / "run").read_text() == "invite of 0"


def test_a_killed_peer_is_gone_and_the_others_go_on(run):
    report = run(peers=3, hurts=[KILL_1])
    assert report["ok"]
    assert [peer["alive"] for peer in report["peers"]] == [True, False, True]
    (event,) = report["events"]
    assert event["swarm_epoch"] >= 3
    assert 0.0 < event["next_commit_s"] < 5.0


def test_a_peer_that_joins_is_invited_by_a_live_one(run, folder):
    report = run(hurts=[Fault(Kind.KILL, 0, 2)], join_at=[3])
    assert report["ok"], report["problems"]
    assert [peer["index"] for peer in report["peers"]] == [0, 1, 2]
    assert (folder / "2" / "run").read_text() == "invite of 1"
    assert [event["kind"] for event in report["events"]] == ["kill", "join"]
    assert report["events"][1]["catch_up_s"] > 0.0


def test_a_frozen_peer_is_thawed_before_all_leave(run):
    report = run(max_epochs=4, hurts=[Fault(Kind.FREEZE, 1, 2, 1.5)])
    assert report["ok"], report["problems"]
    assert report["peers"][1]["epoch"] == 4
    assert report["duration_s"] > 1.5
    assert report["events"][0]["catch_up_s"] is not None


def test_a_peer_that_dies_by_itself_is_a_problem_in_its_own_words(run):
    report = run(faults={1: {"dies_at": 3}})
    why = "peer 1 ended by itself with code 5: the disk is full; free some space"
    assert report["problems"] == [why]
    assert why in run.said
    assert [peer["alive"] for peer in report["peers"]] == [True, False]


def test_a_fault_to_a_peer_that_died_by_itself_is_no_event(run):
    report = run(faults={1: {"dies_at": 1}}, hurts=[Fault(Kind.KILL, 1, 6)])
    assert len(report["problems"]) == 1
    assert report["events"] == []


def test_a_peer_that_dies_before_all_have_met_ends_the_sandbox(run):
    report = run(peers=3, faults={1: {"dies_at": 0}})
    assert "peer 1 is gone before the peers have met" in report["problems"]
    assert report["duration_s"] < 15.0


def test_other_roots_are_a_problem(run):
    report = run(faults={1: {"root": "another"}})
    assert report["problems"] == [
        (
            "the roots differ at epoch 6: peer 0 has root of 6 of generation 0, "
            "peer 1 has another of generation 0"
        )
    ]


def test_absence_from_commits_is_a_problem(run):
    (problem,) = run(faults={1: {"absent": [2]}})["problems"]
    assert problem.startswith("peer 1 was in 5 of the 6 commits")


def test_peers_that_never_meet_end_with_the_timeout(run):
    report = run(faults={1: {"deaf": True}}, timeout_s=2.0)
    assert report["problems"][0] == "2 s have passed while waiting for the peers to meet"
    assert not report["ok"]


def test_an_interrupt_lets_the_peers_save_and_leave(run, folder):
    interrupts = []

    def show(members):
        if any(member.epoch >= 2 for member in members):
            interrupts.append("SIGINT")

    report = run(max_epochs=1000, interrupts=interrupts, show=show)
    assert report["problems"][0] == "interrupted by SIGINT while training"
    assert report["peers"][1]["alive"]
    assert json.loads((folder / "1" / "last_status.json").read_text())["left"]


def test_homes_that_go_on_are_expected_in_the_commits_to_come(run):
    report = run(faults={0: {"first": 4}, 1: {"first": 4}})
    assert report["ok"], report["problems"]
    assert [peer["commits_expected"] for peer in report["peers"]] == [2, 2]


def test_homes_that_have_been_further_are_refused(run):
    with pytest.raises(UsageError, match="at epoch 6 already; choose a larger --max-epochs"):
        run(faults={0: {"first": 6}, 1: {"first": 6}})


def test_an_error_of_our_own_leaves_no_process(run):
    def show(members):
        if len(members) > 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(show=show)


def test_all_wait_at_the_last_epoch_for_the_verdict_on_it(run):
    report = run(faults={0: {"judged_s": 0.5}, 1: {"judged_s": 1.5}}, validate_every=3)
    assert report["ok"], report["problems"]
    assert "verdict on epoch 6: accept, why not" in run.said
    assert "all hold epoch 6; waiting for the verdict on it" in run.said
    assert report["duration_s"] > 1.5


def test_no_verdict_on_the_last_epoch_is_a_problem(run, monkeypatch):
    monkeypatch.setattr("peer.sandbox.sandbox._VERDICT_S", 1.0)
    report = run(faults={0: {"judged_s": 0.2}}, validate_every=3)
    assert report["problems"] == ["there was no verdict on epoch 6 in 1 s at the peers 1"]


def test_a_last_epoch_that_is_no_candidate_is_not_waited_for(run):
    assert run(validate_every=4)["ok"]
