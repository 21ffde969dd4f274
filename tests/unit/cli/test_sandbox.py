"""`ctpeer sandbox` up to where processes would start, and what it says in the end."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from peer.cli.main import main
from peer.cli.sandbox import SCENARIOS, rows, summary
from peer.run.demo import demo_run_path
from peer.sandbox.outcome import Outcome
from peer.sandbox.plan import Fault, Kind
from peer.sandbox.scenario import ScenarioName

REPORT = {
    "schema": 1,
    "ok": True,
    "problems": [],
    "epochs": 8,
    "duration_s": 29.04,
    "failed_rounds": {"no_group": 2, "transfer": 1},
    "lost_epochs": 0,
    "peers": [
        {
            "index": 0,
            "alive": True,
            "epoch": 8,
            "state_root": "bb2e2dbd672316a6",
            "heldout": 3.93707,
            "commits_expected": 8,
            "commits_contributed": 7,
        },
        {
            "index": 1,
            "alive": False,
            "epoch": None,
            "state_root": None,
            "heldout": None,
            "commits_expected": 0,
            "commits_contributed": 0,
        },
    ],
    "events": [
        {"kind": "kill", "peer": 1, "epoch": 4, "next_commit_s": 0.762},
        {"kind": "join", "peer": 2, "epoch": 8, "next_commit_s": None},
    ],
    "commits": [],
    "verdicts": [
        {
            "epoch": 5,
            "decision": "reject",
            "difference_nats": 0.41,
            "signers": ["a", "b"],
            "seconds_after_candidate": 3.25,
        },
        {
            "epoch": 5,
            "decision": "accept",
            "difference_nats": -0.2,
            "signers": ["a", "b", "c"],
            "seconds_after_candidate": None,
        },
    ],
    "generation": 1,
    "rollbacks": 1,
    "superseded": [],
    "last_good": {"epoch": 5, "root": "cc"},
    "scenario": None,
}


class StandIn:
    """Takes the place of the sandbox; notes what it was given."""

    report = REPORT
    act = staticmethod(lambda interrupts: None)

    def __init__(self, plan, folder, scratch, manifest, interrupts, say, show):
        StandIn.given = SimpleNamespace(
            plan=plan, folder=folder, scratch=scratch, manifest=manifest
        )
        self._interrupts, self._say = interrupts, say

    def run(self):
        assert StandIn.given.scratch.is_dir()
        self._say("epoch 1: group of 4")
        StandIn.act(self._interrupts)
        return Outcome(StandIn.report)


@pytest.fixture
def sandbox(monkeypatch):
    monkeypatch.setattr("peer.sandbox.sandbox.Sandbox", StandIn)
    return lambda *arguments: CliRunner().invoke(main, ["sandbox", *arguments])


def test_without_flags_four_peers_train_the_demo_in_a_folder_that_is_gone_afterwards(sandbox):
    assert sandbox().exit_code == 0
    given = StandIn.given
    assert (given.plan.peers, given.plan.max_epochs, given.plan.faults) == (4, 20, ())
    assert given.manifest == demo_run_path()
    assert given.folder == given.scratch.parent
    assert not given.folder.exists()


def test_a_home_of_ones_own_and_a_manifest_are_passed_on(sandbox, tmp_path):
    assert sandbox("--home", str(tmp_path / "homes"), "--run", "somewhere").exit_code == 0
    assert StandIn.given.folder == tmp_path / "homes"
    assert StandIn.given.manifest == Path("somewhere")
    assert not StandIn.given.scratch.exists()


@pytest.mark.parametrize("founder", [["--kill-founder@9"], ["--kill-founder", "9"]])
def test_the_issues_spelling_of_faults_is_understood(founder, sandbox):
    flags = ["--kill", "1@5", *founder, "--join-at", "12", "--freeze", "2@14:20"]
    assert sandbox("--peers", "4", *flags).exit_code == 0
    assert StandIn.given.plan.faults == (
        Fault(Kind.KILL, 1, 5),
        Fault(Kind.KILL, 0, 9),
        Fault(Kind.JOIN, 4, 12),
        Fault(Kind.FREEZE, 2, 14, 20.0),
    )


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--kill", "1"], "PEER@EPOCH"),
        (["--kill", "4@5"], "there is no peer 4"),
        (["--kill-founder@x"], "not a valid integer"),
        (["--kill-founder@"], "not a valid integer"),
        (["--freeze", "1@5"], "PEER@EPOCH:SECONDS"),
        (["--join-at", "21"], "never reached"),
        (["--peers", "0"], "0 is not in the range"),
        (["--scenario", "killed-seats", "--kill", "1@5"], "a scenario has its own faults"),
        (["--scenario", "killed-seats", "--peers", "3"], "needs 4 peers at least"),
        (["--scenario", "earthquake"], "'earthquake' is not one of"),
        (["--timeout", "nan"], "after some seconds, not after nan"),
        (["--timeout", "inf"], "after some seconds, not after inf"),
        (["--timeout", "-1"], "after some seconds, not after -1.0"),
    ],
)
def test_nonsense_is_refused_with_exit_code_2(flags, why, sandbox):
    StandIn.given = None
    result = sandbox(*flags)
    assert result.exit_code == 2
    assert why in result.stderr
    assert StandIn.given is None


def test_json_is_all_that_stdout_gets(sandbox):
    result = sandbox("--json")
    assert json.loads(result.stdout) == REPORT
    assert result.stderr == "epoch 1: group of 4\n"


def test_a_sandbox_that_did_not_go_well_ends_with_exit_code_1(sandbox, monkeypatch):
    report = REPORT | {"ok": False, "problems": ["peer 1 ended at epoch 7, not at 8"]}
    monkeypatch.setattr(StandIn, "report", report)
    result = sandbox()
    assert result.exit_code == 1
    assert "problem: peer 1 ended at epoch 7, not at 8\n" in result.stdout
    assert json.loads(sandbox("--json").stdout)["ok"] is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_noted_while_it_runs_and_only_then(number, sandbox, monkeypatch):
    def act(interrupts):
        signal.raise_signal(number)
        assert interrupts == [number.name]

    before = signal.getsignal(number)
    monkeypatch.setattr(StandIn, "act", staticmethod(act))
    assert sandbox().exit_code == 0
    assert signal.getsignal(number) is before


def test_a_scenario_has_numbers_of_its_own(sandbox):
    assert sandbox("--scenario", "killed-seats").exit_code == 0
    plan = StandIn.given.plan
    assert (plan.peers, plan.max_epochs, plan.validate_every) == (8, 40, 5)
    assert plan.scenario.name == "killed-seats"
    assert StandIn.given.manifest != demo_run_path()


def test_a_scenario_takes_other_numbers(sandbox):
    numbers = ("--peers", "5", "--max-epochs", "12", "--validate-every", "4")
    assert sandbox("--scenario", "poisoned-candidate", *numbers).exit_code == 0
    plan = StandIn.given.plan
    assert (plan.peers, plan.max_epochs, plan.scenario.poison_from) == (5, 12, 8)


def test_the_scenarios_are_those_that_can_be_planned():
    assert list(SCENARIOS) == list(ScenarioName)


def test_without_a_distance_the_runs_own_counts(sandbox):
    assert sandbox("--max-epochs", "100").exit_code == 0
    assert StandIn.given.plan.validate_every == 100
    assert StandIn.given.plan.ends_judged


def test_the_summary_tells_of_a_scenario():
    told = {"name": "killed-seats", "hostile": [], "normal_s": [3.1]}
    lines = summary(REPORT | {"scenario": told}).splitlines()
    assert "scenario killed-seats: hostile [], normal_s [3.1]" in lines


def test_the_summary_says_how_each_peer_and_each_fault_ended():
    assert summary(REPORT).splitlines() == [
        "8 epochs in 29.0 s",
        "peer 0: live, epoch 8, root bb2e2dbd67, held-out 3.937, in 7 of 8 commits",
        "peer 1: gone, epoch None, root -, held-out -, in 0 of 0 commits",
        "verdict on epoch 5 3.2 s later: reject, +0.4100 nats, signed by 2",
        "verdict on epoch 5: accept, -0.2000 nats, signed by 3",
        "rollbacks: 1, to generation 1",
        "kill of peer 1 at epoch 4: next commit 0.8 s later",
        "join of peer 2 at epoch 8: no commit followed",
        "3 rounds failed, 0 epochs lost",
        "all as it should be",
    ]


def test_the_table_shows_what_is_known_and_dashes_for_the_rest():
    status = {"loss": 6.94712, "state_root": "bb2e2dbd672316a6", "rounds": {"group": 3}}
    fresh = {"index": 0, "peer_id": None, "status": None, "doing": "starting", "epoch": -1}
    frozen = {
        "index": 1,
        "peer_id": "Qm0123456789",
        "status": status,
        "doing": "frozen",
        "epoch": 4,
    }
    members = [
        SimpleNamespace(**fields, note="why", processes=SimpleNamespace(pid=7))
        for fields in (fresh, frozen)
    ]
    assert rows(members) == [
        ("0", "-", "7", "starting", "-", "-", "-", "-", "why"),
        ("1", "0123456789", "7", "frozen", "4", "3", "6.947", "bb2e2dbd67", "why"),
    ]
