"""Limits that a volunteer sets, held by real daemons."""

import json

import psutil
import pytest

pytestmark = pytest.mark.slow

MICRO_BATCH = 256


@pytest.fixture(scope="module")
def wide_run(make_run):
    """A run whose micro-batches take hundreds of megabytes and whose model takes none."""
    flags = ("--sequence-length", "128", "--hidden", "128", "--vocab-size", "1000")
    return make_run(*flags, "--target-loss-terms", "32768", "--validate-every", "0")


def start(daemon, run, memory_mb, **environment):
    return daemon.start(
        run,
        "--micro-batch",
        MICRO_BATCH,
        CTPEER_LIMITS__MEMORY_MB=str(memory_mb),
        **environment,
    )


def test_a_memory_limit_leads_to_a_smaller_micro_batch(daemon, wide_run):
    start(daemon, wide_run, 700)
    # It is halved once in three seconds at most, and then stays.
    status = daemon.wait_until(lambda s: (s["epoch"] or 0) >= 12)
    assert status["micro_batch"] < MICRO_BATCH
    assert "limits.memory_mb allows 700" in daemon.output
    parts = psutil.Process(status["worker_pid"]).memory_maps()
    assert sum(part.anonymous for part in parts) < 700e6
    assert status["limits"]["memory_mb"] == 700
    assert daemon.run("stop").returncode == 0


def test_a_memory_limit_that_nothing_fits_into_is_refused_in_words(daemon, tiny_run):
    start(daemon, tiny_run, 150)
    assert daemon.wait() == 78
    assert "limits.memory_mb allows 150, before it trained anything; raise" in daemon.output
    status = json.loads((daemon.home / "last_status.json").read_text())
    assert status["state"] == "failed"
    daemon.wait_for_no_process()


def test_a_schedule_that_is_closed_pauses_until_a_person_resumes(daemon, tiny_run):
    never = "mon 00:00-00:01"  # but for one minute of the week
    daemon.start(tiny_run, CTPEER_PAUSE__SCHEDULE=never)
    status = daemon.wait_until(lambda s: s["state"] == "paused")
    assert never in status["reason"]
    assert (status["pause"]["by"], status["epoch"]) == ("schedule", 0)
    daemon.run("resume")
    daemon.wait_until(lambda s: (s["epoch"] or 0) >= 1)
    assert daemon.status()["pause"]["overruled"] == ["schedule"]


def test_the_worker_and_p2pd_stand_back_and_the_supervisor_does_not(make_daemon, tiny_run):
    daemon = make_daemon(CTPEER_SWARM__ENABLED="true")
    before = psutil.Process().nice()
    daemon.start(tiny_run)
    status = daemon.wait_until(lambda s: (s["epoch"] or 0) >= 1)
    assert psutil.Process(status["pid"]).nice() == before
    assert psutil.Process(status["worker_pid"]).nice() == max(before, 10)
    assert daemon.p2pd().nice() == max(before, 10)


def test_a_disk_limit_that_is_reached_pauses_with_what_to_do(daemon, tiny_run):
    daemon.home.mkdir()
    (daemon.home / "stray").write_bytes(b"x" * 11_000_000)
    daemon.start(tiny_run, CTPEER_LIMITS__DISK_MB="10")
    status = daemon.wait_until(lambda s: s["state"] == "paused")
    assert "limits.disk_mb; raise it" in status["reason"]
    assert daemon.run("resume").returncode == 0
    assert daemon.status()["state"] == "paused"
