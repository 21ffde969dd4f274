"""`ctpeer sandbox` with real peers: it ends as it should, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

SANDBOX = (sys.executable, "-m", "peer", "sandbox", "--json")


def wait_until(condition, timeout_s):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.05)


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Running:
    """A sandbox as a process, and all the processes that it was ever seen to have."""

    def __init__(self, folder, temporary, *arguments):
        self.process = subprocess.Popen(
            [*SANDBOX, "--home", str(folder / "homes"), *arguments],
            stdout=(folder / "stdout").open("wb"),
            stderr=(folder / "stderr").open("wb"),
            env=os.environ | {"TMPDIR": temporary},
        )
        self._folder = folder
        self._seen = set()

    def kinds(self):
        """Return the kinds of the processes that it has, and remember them."""
        kinds = set()
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self._seen.add(process)
            try:
                line = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            for kind in ("peer start", "peer.daemon.worker", "p2pd "):
                if kind in line:
                    kinds.add(kind.strip())
        return kinds

    def wait(self, timeout_s):
        """Wait for its end, and look for new processes meanwhile; return the exit code."""
        deadline_s = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, self.stderr
            self.kinds()
            time.sleep(0.2)
        return self.process.wait()

    def left(self):
        return [process for process in self._seen if lives(process)]

    @property
    def seen(self):
        return len(self._seen)

    @property
    def stderr(self):
        return (self._folder / "stderr").read_text()

    @property
    def report(self):
        return json.loads((self._folder / "stdout").read_text())

    def reap(self):
        if self.process.poll() is None:
            self.kinds()
            self.process.kill()
            self.process.wait(10)
        for process in self.left():
            process.kill()


@pytest.fixture
def start_sandbox(tmp_path):
    started = []
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as temporary:  # sockets: a short path

        def start(*arguments):
            started.append(Running(tmp_path, temporary, *arguments))
            return started[-1]

        yield start
        for sandbox in started:
            sandbox.reap()


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
    assert sandbox.wait(45) == 1
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
    assert sandbox.wait(45) == 1
    assert sandbox.left() == []
    assert sandbox.report["problems"][0].startswith("4 s have passed while waiting")


def test_a_run_that_is_not_there_ends_the_sandbox_with_the_reason(start_sandbox, tmp_path):
    sandbox = start_sandbox("--peers", "2", "--run", str(tmp_path / "nothing"))
    assert sandbox.wait(30) == 1
    assert sandbox.left() == []
    first = sandbox.report["problems"][0]
    assert first.startswith("peer 0 ended by itself with code 78: ")
    assert str(tmp_path / "nothing") in first
