"""A daemon's life as a person leads it: start, look, pause, stop, start again."""

import json
import shutil
import signal
import subprocess
import urllib.request

import pytest


def test_a_run_with_a_last_epoch_ends_there_and_goes_on_later(daemon, tiny_run):
    assert daemon.start(tiny_run, "--max-epochs", 3).wait() == 0
    first = json.loads((daemon.home / "last_status.json").read_text())
    assert (first["epoch"], first["state"]) == (3, "stopped")
    assert daemon.start("--max-epochs", 5).wait() == 0
    second = json.loads((daemon.home / "last_status.json").read_text())
    assert second["run_id"] == first["run_id"]
    assert second["epoch"] == 5
    assert second["rounds"]["committed"] == 2


def test_the_loss_falls_and_the_score_beats_the_unigram_model(daemon, tiny_run):
    assert daemon.start(tiny_run, "--max-epochs", 300).wait() == 0
    status = json.loads((daemon.home / "last_status.json").read_text())
    assert status["losses"][-1] < status["losses"][0] - 0.5
    assert status["heldout"]["value"] < status["heldout"]["baselines"]["unigram"]


def test_stop_leaves_no_process_and_a_checkpoint_of_the_last_epoch(daemon, tiny_run):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: (status["epoch"] or 0) >= 3)
    assert daemon.run("stop").returncode == 0
    assert daemon.wait(10) == 0
    daemon.wait_for_no_process()
    status = json.loads((daemon.home / "last_status.json").read_text())
    assert status["checkpoint"]["epoch"] == status["epoch"]
    assert daemon.run("status").returncode == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_as_the_command_does(daemon, tiny_run, number):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: status["state"] == "training")
    daemon.process.send_signal(number)
    assert daemon.wait(20) == 0
    daemon.wait_for_no_process()


def test_a_pause_keeps_the_contribution_and_ends_when_told(daemon):
    daemon.start()  # the demo, whose epochs are long enough to pause in one
    daemon.wait_until(lambda status: (status["epoch"] or 0) >= 1)
    daemon.run("pause")
    paused = daemon.wait_until(lambda status: status["state"] == "paused")
    assert paused["reason"] == "paused by you"
    assert paused["checkpoint"]["epoch"] == paused["epoch"]
    later = daemon.wait_until(lambda status: status["uptime_s"] > paused["uptime_s"] + 2.5)
    for field in ("state", "epoch", "contribution", "tokens_total"):
        assert later[field] == paused[field]
    daemon.run("resume")
    after = daemon.wait_until(lambda status: (status["epoch"] or 0) > paused["epoch"])
    assert after["tokens_repeated"] == after["tokens_dropped"] == 0


def test_a_pause_for_a_time_ends_by_itself(daemon, tiny_run):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: (status["epoch"] or 0) >= 1)
    daemon.run("pause", "--for", "1s")
    paused = daemon.wait_until(lambda status: status["state"] == "paused")
    assert "until" in paused["reason"]
    daemon.wait_until(lambda status: (status["epoch"] or 0) > paused["epoch"])


def test_started_paused_it_waits_for_resume(daemon, tiny_run):
    daemon.start(tiny_run, "--paused")
    status = daemon.wait_until(lambda status: status["state"] == "paused")
    assert status["epoch"] == 0
    daemon.run("resume")
    daemon.wait_until(lambda status: (status["epoch"] or 0) >= 1)


def test_finish_completes_the_epoch_and_ends(daemon, tiny_run):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: (status["epoch"] or 0) >= 1)
    assert "will be the last" in daemon.run("finish").stdout
    assert daemon.wait(30) == 0
    status = json.loads((daemon.home / "last_status.json").read_text())
    assert status["reason"] == "asked to finish, and the epoch is complete"
    assert status["checkpoint"]["epoch"] == status["epoch"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_scraped_metrics_are_clean_and_agree_with_the_status(daemon, tiny_run):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: status["checkpoint"] is not None)
    daemon.run("pause")
    status = daemon.wait_until(lambda status: status["state"] == "paused")
    with urllib.request.urlopen(status["metrics_url"], timeout=5) as answer:
        text = answer.read().decode()
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=30
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
    assert f"ctpeer_epoch {float(status['epoch'])}" in text
    assert f"ctpeer_tokens_total {float(status['tokens_total'])}" in text
    assert 'ctpeer_state{state="paused"} 1.0' in text


def test_a_private_folder_is_trained_on(daemon, tiny_run, tmp_path):
    private = tmp_path / "diary"
    private.mkdir()
    (private / "today.txt").write_text("Nobody else shall read this.\n" * 50)
    daemon.start(tiny_run, CTPEER_DATA__PRIVATE=str(private))
    status = daemon.wait_until(lambda status: status["state"] == "training")
    reasons = {shard["name"]: shard["reason"] for shard in status["shards"]}
    assert "stays on this machine" in reasons["today.txt"]
