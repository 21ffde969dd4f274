"""`ctpeer checkpoint` beside a daemon that trains, writes and drops checkpoints all the time."""

import json

import pytest


def written(status):
    return (status["checkpoint"] or {"epoch": 0})["epoch"]


@pytest.mark.slow
def test_commands_beside_a_training_daemon_find_nothing_damaged(daemon, tiny_run, tmp_path):
    daemon.start(tiny_run)
    daemon.wait_until(lambda status: written(status) >= 3)
    for _ in range(4):
        for command in ("list", "log", "verify", "gc", "show"):
            done = daemon.run("checkpoint", command, "--json")
            assert done.returncode == 0, (command, done.stderr)
            assert json.loads(done.stdout)["run_id"].startswith("tiny-")
    done = daemon.run("checkpoint", "export", "newest", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
    epoch = daemon.status()["epoch"]
    daemon.wait_until(lambda status: written(status) > epoch)
    assert daemon.run("stop").returncode == 0
    assert daemon.wait(20) == 0
    lineage = json.loads(daemon.run("checkpoint", "log", "--json").stdout)["lineage"]
    assert len(lineage) > 3
    assert lineage[-1]["parent"]["epoch"] == 0
    assert daemon.run("checkpoint", "verify").returncode == 0
