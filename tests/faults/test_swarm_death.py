"""Peers of a real swarm that die or freeze at any moment: the others go on, with nothing lost."""

import os
import signal

import psutil
import pytest

DEADLINE_S = 15.0
"""How long the next round may take after any death."""


def lost_nothing(status):
    return status["epochs_lost_in_branches"] == 0 and status["tokens_dropped"] == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("phase", ["matchmaking", "transfer", "vote", "certified"])
def test_a_peer_that_is_killed_in_any_phase_of_a_round_costs_the_others_nothing(make_swarm, phase):
    swarm = make_swarm(3, max_epochs=30, faults={1: f"{phase}:10"})
    dead = swarm.daemons.pop(1)
    dead.wait_for_no_process(60)
    assert swarm.wait_for_epoch(12) < DEADLINE_S
    swarm.hold_together(30)
    for status in swarm.statuses():
        assert lost_nothing(status), status


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_founder_and_only_bootstrap_node_is_killed_and_comes_back_without_naming_anyone(
    make_swarm,
):
    swarm = make_swarm(3, max_epochs=250)
    swarm.wait_for_epoch(10)
    founder = swarm.daemons.pop(0)
    founder.kill_all()
    epoch = max(status["epoch"] for status in swarm.statuses())
    assert swarm.wait_for_epoch(epoch + 2) < DEADLINE_S
    founder.start("--hold", "--max-epochs", 250)
    founder.wait_until(lambda status: status["peers"]["in_group"] == 3)
    swarm.daemons.append(founder)
    swarm.hold_together(250)
    for status in swarm.statuses()[:2]:
        assert status["epochs_lost_in_branches"] == 0, status


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", ["p2pd", "worker"])
def test_a_dead_or_frozen_process_is_noticed_and_replaced(make_swarm, victim, number):
    swarm = make_swarm(2, CTPEER_WORKER__HANG_TIMEOUT_S="10")
    swarm.wait_for_epoch(5)
    struck, other = swarm.daemons
    status = struck.status()
    pid = struck.p2pd().pid if victim == "p2pd" else status["worker_pid"]
    os.kill(pid, number)
    struck.wait_until(lambda s: s["restarts"] == 1, 60)
    back = struck.wait_until(lambda s: s["peers"]["in_group"] == 2 and s["state"] == "training", 60)
    assert back["worker_pid"] != status["worker_pid"]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert other.status()["restarts"] == 0


def test_nothing_is_left_when_the_supervisor_is_killed(daemon, tiny_run):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: status["addresses"])
    assert daemon.p2pd() in daemon.processes()
    daemon.process.kill()
    daemon.wait_for_no_process(10)


def test_nothing_is_left_after_an_orderly_stop(daemon, tiny_run):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: status["addresses"])
    assert daemon.run("stop").returncode == 0
    daemon.wait_for_no_process(5)
