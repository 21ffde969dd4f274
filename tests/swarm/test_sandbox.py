"""`ctpeer sandbox` with real peers: it ends as it should, and leaves no process behind."""

import signal
import time

import pytest


def wait_until(condition, timeout_s):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_peers_and_a_kill_end_as_they_should(start_sandbox, tmp_path):
    sandbox = start_sandbox("--peers", "3", "--max-epochs", "8", "--kill", "1@4")
    code = sandbox.wait(250)
    report = sandbox.report
    assert (code, report["ok"], report["problems"]) == (0, True, []), sandbox.stderr
    assert [peer["alive"] for peer in report["peers"]] == [True, False, True]
    ends = {
        (peer["epoch"], peer["generation"], peer["state_root"], peer["heldout"])
        for peer in report["peers"]
        if peer["alive"]
    }
    assert len(ends) == 1
    assert ends.pop()[0] == report["epochs"] == 8
    assert [commit["epoch"] for commit in report["commits"]] == list(range(1, 9))
    ids = {peer["index"]: peer["peer_id"] for peer in report["peers"]}
    assert set(report["commits"][0]["group"]) == set(ids.values())
    assert set(report["commits"][-1]["group"]) == {ids[0], ids[2]}
    assert min(min(commit["loss_terms"].values()) for commit in report["commits"]) > 0
    (event,) = report["events"]
    assert (event["kind"], event["peer"], event["epoch"]) == ("kill", 1, 4)
    assert 0.0 < event["next_commit_s"] <= event["regrouped_s"] < 15.0
    assert sandbox.seen >= 9  # a supervisor, a worker and a p2pd each
    assert sandbox.left() == []
    assert sorted(path.name for path in (tmp_path / "homes").iterdir()) == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_peers(number, start_sandbox):
    sandbox = start_sandbox("--peers", "2")
    wait_until(lambda: len(sandbox.kinds()) == 3, 60)
    sandbox.process.send_signal(number)
    assert sandbox.wait(45) == 1, sandbox.stderr
    assert sandbox.left() == []
    assert sandbox.report["problems"][0].startswith(f"interrupted by {number.name} while waiting")


def test_all_peers_die_with_a_sandbox_that_is_killed(start_sandbox):
    sandbox = start_sandbox("--peers", "2")
    wait_until(lambda: len(sandbox.kinds()) == 3, 60)
    sandbox.process.kill()
    sandbox.process.wait(10)
    wait_until(lambda: not sandbox.left(), 10)


def test_a_timeout_ends_all_peers_and_is_a_problem(start_sandbox):
    sandbox = start_sandbox("--peers", "2", "--timeout", "4")
    assert sandbox.wait(45) == 1, sandbox.stderr
    assert sandbox.left() == []
    assert sandbox.report["problems"][0].startswith("4 s have passed while waiting")


def test_a_run_that_is_not_there_ends_the_sandbox_with_the_reason(start_sandbox, tmp_path):
    sandbox = start_sandbox("--peers", "2", "--run", str(tmp_path / "nothing"))
    assert sandbox.wait(30) == 1, sandbox.stderr
    assert sandbox.left() == []
    first = sandbox.report["problems"][0]
    assert first.startswith("peer 0 ended by itself with code 78: ")
    assert str(tmp_path / "nothing") in first
