"""A stand-in for a peer: three processes, each in a session of its own, as a real one has."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from peer.sandbox.processes import MARK, PeerProcesses, marked

STAND_IN = """
import subprocess, sys
depth = int(sys.argv[1])
if depth:
    again = [sys.executable, "-c", sys.argv[2], str(depth - 1), sys.argv[2]]
    child = subprocess.Popen(again, start_new_session=True)
print(f"depth {depth} is there", flush=True)
sys.stdin.close()
import signal
signal.pause()
"""
SANDBOX = """
import sys, signal
from pathlib import Path
from peer.sandbox.processes import PeerProcesses
peer = PeerProcesses(sys.argv[1], Path(sys.argv[2]), (sys.executable, "-c", sys.argv[3]))
peer.start(["0", sys.argv[3]], Path("/tmp"))
signal.pause()
"""


def wait_until(condition, timeout_s=10.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture
def mark(tmp_path):
    mark = f"test/{tmp_path}"
    yield mark
    for process in marked(mark):
        process.kill()


@pytest.fixture
def peer(mark, tmp_path):
    """Return a stand-in peer whose three processes are there."""
    peer = PeerProcesses(mark, tmp_path / "output.log", (sys.executable, "-c", STAND_IN))
    peer.start(["2", STAND_IN], tmp_path)
    wait_until(lambda: (tmp_path / "output.log").read_text().count("is there") == 3)
    yield peer
    peer.kill()


def states(mark):
    return [process.status() for process in marked(mark)]


def test_all_of_a_peers_processes_are_found_whatever_their_session(peer, mark):
    assert len(peer.left()) == len(list(marked(mark))) == 3
    assert list(marked(mark + "x")) == []


def test_a_kill_leaves_no_process(peer, mark):
    found = list(marked(mark))
    assert peer.kill() == []
    assert peer.exit_code() == -signal.SIGKILL
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in found)
    assert peer.left() == []


def test_a_kill_takes_processes_whose_parent_is_gone(peer, mark):
    os.kill(peer.pid, signal.SIGKILL)
    wait_until(lambda: peer.exit_code() is not None)
    assert len(peer.left()) == 2
    assert peer.kill() == []
    assert peer.left() == []


def test_a_freeze_stops_all_and_a_thaw_lets_all_go_on(peer, mark):
    peer.freeze()
    wait_until(lambda: states(mark) == [psutil.STATUS_STOPPED] * 3)
    peer.thaw()
    wait_until(lambda: psutil.STATUS_STOPPED not in states(mark))
    assert len(states(mark)) == 3


def test_a_frozen_peer_can_be_killed(peer):
    peer.freeze()
    assert peer.kill() == []
    assert peer.left() == []


def test_a_peer_dies_with_the_sandbox(mark, tmp_path):
    arguments = [mark, str(tmp_path / "output.log"), STAND_IN]
    sandbox = subprocess.Popen([sys.executable, "-c", SANDBOX, *arguments])
    try:
        wait_until(lambda: len(list(marked(mark))) == 1)
    finally:
        sandbox.kill()
        sandbox.wait(10)
    wait_until(lambda: not list(marked(mark)))


def test_a_peer_finds_its_mark_and_its_temporary_folder_in_the_environment(peer, mark, tmp_path):
    environment = psutil.Process(peer.pid).environ()
    assert (environment[MARK], environment["TMPDIR"]) == (mark, str(tmp_path))


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", ""),
        ("one\ntwo\n", "two"),
        ("INFO\nctpeer: it cannot be:\n  * this\n  * that\n", "it cannot be: * this * that"),
    ],
)
def test_why_a_daemon_ended_is_read_from_its_output(output, words, tmp_path):
    (tmp_path / "output.log").write_text(output)
    assert PeerProcesses("none", tmp_path / "output.log").last_words() == words


def test_a_peer_that_was_never_started_has_nothing_to_end(tmp_path):
    peer = PeerProcesses("none", tmp_path / "output.log")
    assert (peer.pid, peer.exit_code(), peer.last_words(), peer.kill()) == (None, None, "", [])
