"""Processes that are killed, frozen or stuck at any moment."""

import json
import os
import random
import shutil
import signal
import time

import pytest


def test_status_answers_within_a_second_while_the_worker_imports_hangs_or_is_dead(daemon, tiny_run):
    def answers(*words):
        started_s = time.monotonic()
        status = daemon.status()
        assert time.monotonic() - started_s < 1.0
        said = f"{status['state']}: {status['reason']}"
        assert any(word in said for word in words), said

    daemon.start(tiny_run)
    daemon.wait_until(lambda status: True)
    answers("starting")
    status = daemon.wait_until(lambda status: status["state"] == "training")
    os.kill(status["worker_pid"], signal.SIGSTOP)
    answers("training", "averaging")  # whatever it was just doing
    os.kill(status["worker_pid"], signal.SIGKILL)
    daemon.wait_until(lambda status: status["state"] == "restarting", 10)
    answers("the worker crashed; it starts again in 1 s (killed by SIGKILL)")


def test_a_frozen_worker_is_killed_with_a_traceback_and_started_again(daemon, tiny_run):
    daemon.start(tiny_run, CTPEER_WORKER__HANG_TIMEOUT_S="2")
    status = daemon.wait_until(lambda status: status["checkpoint"] is not None)
    os.kill(status["worker_pid"], signal.SIGSTOP)
    daemon.wait_until(lambda status: status["restarts_by_reason"].get("hang") == 1, 20)
    daemon.wait_until(lambda status: status["state"] == "training")
    assert daemon.status()["epoch"] >= status["checkpoint"]["epoch"]


def test_a_killed_worker_goes_on_at_its_checkpoint(daemon, tiny_run):
    daemon.start(tiny_run)
    status = daemon.wait_until(lambda status: status["checkpoint"] is not None)
    os.kill(status["worker_pid"], signal.SIGKILL)
    after = daemon.wait_until(
        lambda status: status["restarts"] == 1 and status["state"] == "training"
    )
    assert after["epoch"] >= status["checkpoint"]["epoch"]
    assert after["tokens_total"] > 0


def test_after_sigkill_of_the_supervisor_nothing_is_left_and_the_next_start_goes_on(
    daemon, tiny_run
):
    daemon.start(tiny_run)
    status = daemon.wait_until(lambda status: status["checkpoint"] is not None)
    daemon.process.kill()
    daemon.wait_for_no_process(10)
    daemon.start()
    after = daemon.wait_until(lambda status: status["state"] == "training")
    assert after["run_id"] == status["run_id"]
    assert after["epoch"] >= status["checkpoint"]["epoch"]


def test_the_worker_follows_its_supervisor_while_it_is_frozen(daemon, tiny_run):
    daemon.start(tiny_run)
    status = daemon.wait_until(lambda status: status["state"] == "training")
    os.kill(status["worker_pid"], signal.SIGSTOP)
    daemon.process.kill()
    daemon.wait_for_no_process(10)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_twenty_epochs_with_three_sigkills_end_in_the_same_root(make_daemon, seed):
    """The demo run; every process of the daemon is killed at a random moment, three times."""
    straight, broken = make_daemon(), make_daemon()
    assert straight.start("--max-epochs", 20).wait(120) == 0
    broken.home.mkdir()
    # The data's order is drawn from the peer id, so both must be the same peer.
    shutil.copy(straight.home / "identity.key", broken.home)
    chance = random.Random(seed)
    resumed = []
    for _ in range(3):
        broken.start("--max-epochs", 20)
        begun = broken.wait_until(lambda status: status["device"] is not None)
        resumed.append(begun["checkpoint"]["epoch"] if begun["checkpoint"] else 0)
        last = begun["epoch"] + chance.randint(2, 5)
        broken.wait_until(lambda status, last=last: (status["epoch"] or 0) >= last)
        time.sleep(chance.random() * 0.3)
        broken.kill_all()
        broken.wait_for_no_process()
    assert broken.start("--max-epochs", 20).wait(120) == 0
    ends = [
        json.loads((daemon.home / "last_status.json").read_text()) for daemon in (straight, broken)
    ]
    assert resumed[0] == 0
    assert 0 < resumed[1] <= resumed[2]
    assert [end["state_root_epoch"] for end in ends] == [20, 20]
    assert ends[0]["state_root"] == ends[1]["state_root"]
    assert ends[0]["tokens_total"] == ends[1]["tokens_total"]
