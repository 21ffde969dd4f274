"""`ctpeer checkpoint fetch` from a real peer into a home on which nothing ever trained."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peer.config.home import Home
from peer.run.directory import RunDirectory

SLOW_LINE = {"CTPEER_SWARM__UPLOAD_BYTES_PER_S": str(1 << 16)}


@pytest.fixture
def donor(make_daemon, make_run):
    """Return a peer that holds epoch 3, and gives its state away slowly."""
    run = make_run("--hidden", "64")
    peer = make_daemon(**SLOW_LINE)
    peer.start(run, "--hold", "--max-epochs", 3)
    peer.wait_until(
        lambda s: s["invite"] and s["checkpoint"] is not None and s["checkpoint"]["epoch"] == 3
    )
    return peer


@pytest.fixture
def guest(make_daemon, donor):
    """Return a home that has the run and nothing else."""
    (run_id,) = Home(donor.home).run_ids()
    peer = make_daemon()
    home = Home(peer.home)
    home.prepare()
    RunDirectory.open(Home(donor.home).run_path(run_id)).import_into(home.runs_path)
    home.last_run_path.write_text(run_id)
    return peer


def interrupt_half_way(daemon, *arguments):
    """Begin to fetch, and press Ctrl-C when the first bytes lie on the disk; return the words."""
    process = subprocess.Popen(
        [sys.executable, "-m", "peer", "checkpoint", "fetch", *arguments],
        env=daemon._environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline_s = time.monotonic() + 90
        while not any(any(path.read_bytes()) for path in staged(daemon)):
            assert time.monotonic() < deadline_s
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1, words
    return words


def staged(daemon):
    """Return the files of buffers that are being fetched."""
    folders = Path(daemon.home).glob("runs/*/checkpoints/.fetching/*")
    return [path for folder in folders for path in folder.iterdir() if path.name.isdigit()]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_state_is_fetched_in_two_goes_then_verified_and_exported(donor, guest, tmp_path):
    invite = donor.status()["invite"]
    (entry,) = [
        each
        for each in json.loads(donor.run("checkpoint", "list", "--json").stdout)["checkpoints"]
        if each["epoch"] == 3
    ]
    root = entry["state_root"]
    words = interrupt_half_way(guest, "newest", "--invite", invite)
    assert f"`ctpeer checkpoint fetch {root}` goes on from there" in words
    assert staged(guest)

    done = guest.run("checkpoint", "fetch", root, "--invite", invite, "--json")
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert (body["state_root"], body["epoch"], body["fresh"], body["fetched"]) == (root, 3, 1, 1)
    for field in ("author", "parent", "scores", "code_version", "generation"):
        assert body[field] == entry[field]
    assert body["certificate"]["signers"] == [donor.status()["peer_id"]] == body["donors"]
    assert body["refused"] == []
    assert staged(guest) == []

    again = guest.run("checkpoint", "fetch", root[:10], "--invite", invite, "--json")
    assert json.loads(again.stdout)["fresh"] is False
    assert guest.run("checkpoint", "verify").returncode == 0
    done = guest.run("checkpoint", "export", "newest", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
    done = guest.run("checkpoint", "fetch", "--invite", invite)
    assert done.returncode == 1
    assert "no verdict has accepted a state" in done.stderr
