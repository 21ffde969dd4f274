"""`ctpeer sandbox` with validation: real peers judge the checkpoints that they make."""

import pytest

ENDS = ("epoch", "generation", "state_root", "heldout")


def ends(report):
    """Return where the live peers ended; one place if they stayed together."""
    return {tuple(p[name] for name in ENDS) for p in report["peers"] if p["alive"]}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_peers_judge_their_last_epoch_before_they_leave(start_sandbox):
    sandbox = start_sandbox("--peers", "3", "--max-epochs", "10", "--validate-every", "5")
    code = sandbox.wait(350)
    report = sandbox.report
    assert (code, report["ok"], report["problems"]) == (0, True, []), sandbox.stderr
    assert len(ends(report)) == 1
    ids = {peer["peer_id"] for peer in report["peers"]}
    verdict = report["verdicts"][-1]
    assert (verdict["epoch"], verdict["decision"], verdict["generation"]) == (10, "accept", 0)
    assert verdict["candidate"] == report["peers"][0]["state_root"]
    assert len(verdict["signers"]) >= verdict["quorum"] == 3
    assert set(verdict["signers"]) <= set(verdict["called"]) == ids
    assert verdict["small_swarm"]
    assert [each["round"] for each in report["verdicts"]] == [1, 2][: len(report["verdicts"])]
    assert report["last_good"] == {"epoch": 10, "root": verdict["candidate"]}
    assert (report["generation"], report["rollbacks"]) == (0, 0)
    assert sandbox.left() == []


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_a_hostile_majority_poisons_is_rolled_back_everywhere(start_sandbox):
    numbers = ("--peers", "4", "--max-epochs", "10", "--validate-every", "5")
    sandbox = start_sandbox("--scenario", "poisoned-candidate", *numbers)
    code = sandbox.wait(350)
    report = sandbox.report
    assert (code, report["ok"], report["problems"]) == (0, True, []), sandbox.stderr
    (end,) = ends(report)
    assert end[:2] == (10, report["generation"]) == (10, 1)
    rejected = [each for each in report["verdicts"] if each["decision"] == "reject"]
    assert [each["epoch"] for each in rejected] == [report["scenario"]["rejected_epoch"]]
    assert rejected[0]["difference_nats"] > 0.05
    assert report["scenario"]["hostile"] == [1, 2, 3]
    assert 0.0 < report["scenario"]["back_s"] < 60.0
    last = report["verdicts"][-1]
    assert (last["epoch"], last["decision"], last["generation"]) == (10, "accept", 1)
    assert end[2] == last["candidate"] != rejected[0]["candidate"]
    assert report["commits"][-1]["generation"] == 1
    assert sandbox.left() == []


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["poisoned-candidate", "lying-validators", "killed-seats"])
def test_eight_peers_come_through_a_scenario(name, start_sandbox):
    sandbox = start_sandbox("--scenario", name)
    code = sandbox.wait(1100)
    report = sandbox.report
    assert (code, report["ok"], report["problems"]) == (0, True, []), sandbox.stderr
    assert len(ends(report)) == 1
    assert report["scenario"]["name"] == name
    assert report["verdicts"][-1]["epoch"] == 40
    assert sandbox.left() == []
