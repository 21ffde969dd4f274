"""Every check is bounded, fails alone, and leaves no process behind."""

import json
import sys
import threading
import time

import psutil
import pytest

from peer.config.home import Home
from peer.config.settings import Settings
from peer.doctor import examine as examining
from peer.doctor.examine import _ask, _together, read_network
from peer.doctor.facts import Clocks, Unknown
from peer.doctor.judge import Level, judge
from peer.doctor.measure import Patient

CHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
time.sleep(600)
"""


def fail():
    raise RuntimeError("no such thing")


def test_a_check_that_fails_or_hangs_is_told_and_the_others_are_there():
    never = threading.Event()
    probes = {"good": (lambda: 1, 5.0), "bad": (fail, 5.0), "hung": (never.wait, 0.2)}
    found = _together(probes)
    never.set()
    assert found["good"] == 1
    assert found["bad"] == Unknown("this failed: RuntimeError('no such thing')", failed=True)
    assert found["hung"] == Unknown("this took over 0 s", failed=True)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make a module that a probe can be, and return its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(text):
        (tmp_path / "some_probe.py").write_text(text)
        return "some_probe"

    return make


def test_a_probe_is_told_something_and_answers(module):
    name = module("import json, sys; json.dump([sys.stdin.read(), sys.argv[1]], sys.stdout)")
    assert _ask(name, ("x",), "told", 20.0) == ["told", "x"]


def test_a_probe_that_hangs_is_ended_with_all_that_it_started(module):
    before = set(psutil.Process().children(recursive=True))
    began_s = time.monotonic()
    assert _ask(module(CHILD), (), "", 2.0) == Unknown("this took over 2 s", failed=True)
    assert time.monotonic() - began_s < 15.0
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_probe_that_crashes_is_quoted(module):
    found = _ask(module("import sys; sys.exit('the driver is too old')"), (), "", 20.0)
    assert found == Unknown("this failed with code 1: the driver is too old", failed=True)


@pytest.fixture
def patient(tmp_path):
    return Patient(home=Home(tmp_path), settings=Settings(), run_id="run")


def network(patient, **found):
    return read_network({"peers": {}, "ahead_s": {}} | found, patient, frozenset(), 31337)


def levels(found):
    return {f.check: f.level for f in judge(found) if f.check in found}


def test_peers_that_all_answer_are_in_order(patient):
    found = network(
        patient,
        peers={"a": None},
        ahead_s={"A": 0.0},
        records=1,
        dial_back={"reached": True, "ip": "203.0.113.7", "port": 31337},
        up_bytes_per_s=1e6,
        down_bytes_per_s=1e6,
    )
    assert set(levels(found).values()) == {Level.OK}


def test_where_nobody_is_reached_only_that_is_bad(patient):
    found = network(patient, peers={"a": "connection refused"})
    expected = dict.fromkeys(found, Level.SKIPPED) | {"peers": Level.BAD}
    assert levels(found) == expected


def test_peers_that_know_no_dial_back_and_give_nothing_are_skipped(patient):
    found = network(patient, peers={"a": None}, ahead_s={"A": 0.0}, dht_problem="no node answered")
    assert levels(found) == {
        "peers": Level.OK,
        "clock": Level.OK,
        "dht": Level.BAD,
        "dial_back": Level.SKIPPED,
        "bandwidth": Level.SKIPPED,
    }
    assert found["clock"] == Clocks(ahead_s={"A": 0.0})


def test_without_a_known_peer_no_process_is_started(patient, monkeypatch):
    monkeypatch.setattr(examining, "_ask", lambda *_: pytest.fail("it was"))
    found = examining._network(patient)
    assert {str(f.reason) for f in found.values()} == {"no peer is known; give one with --peers"}


def test_the_doctor_loads_nothing_heavy_itself():
    import subprocess

    script = "import sys, json, peer.doctor.examine, peer.doctor.judge, peer.cli.doctor\n"
    script += (
        "print(json.dumps([m for m in ('torch', 'hivemind', 'transformers') if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout) == []
