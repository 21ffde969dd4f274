"""Real programs that answer, die, are deaf, or are never ready."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import psutil
import pytest

from monitoring.children import Program, running
from peer.errors import ConfigurationError, CtpeerError

SERVE = """
import http.server, os, signal, sys
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("listening", flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
DIE = "import sys; print('no such thing'); sys.exit(3)"
IDLE = "import signal; signal.pause()"


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def program(tmp_path, port):
    def make(code, *arguments, ready_s=20.0, name="it"):
        return Program(
            name=name,
            command=[sys.executable, "-c", code, str(port), *arguments],
            variables={"MARK": str(tmp_path)},
            log_path=tmp_path / "logs" / f"{name}.log",
            ready_url=f"http://127.0.0.1:{port}/",
            ready_s=ready_s,
        )

    return make


def alive(tmp_path):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == str(tmp_path):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_program_runs_until_its_block_is_left(program, tmp_path):
    with running([program(SERVE)], Event()) as check:
        check()
        assert len(alive(tmp_path)) == 1
    assert alive(tmp_path) == []


def test_one_that_ends_by_itself_is_named_with_its_last_words(program, tmp_path):
    with (
        pytest.raises(CtpeerError, match=r"it ended by itself with code 3: no such thing"),
        running([program(DIE)], Event()),
    ):
        raise AssertionError


def test_one_that_is_killed_later_is_noticed(program, tmp_path):
    with running([program(SERVE)], Event()) as check:
        (process,) = alive(tmp_path)
        process.kill()
        deadline_s = time.monotonic() + 10.0
        while process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        with pytest.raises(CtpeerError, match="code -9: listening"):
            check()


def test_one_that_is_never_ready_is_given_up_and_ended(program, tmp_path):
    with (
        pytest.raises(CtpeerError, match=r"does not answer at .* after 1 s; its log is"),
        running([program(IDLE, ready_s=1.0)], Event()),
    ):
        raise AssertionError
    assert alive(tmp_path) == []


def test_a_port_that_is_taken_is_said_before_anything_starts(program, tmp_path):
    with (
        running([program(SERVE, name="one")], Event()),
        pytest.raises(CtpeerError, match=r"something answers at .* another address for two"),
        running([program(SERVE, name="two")], Event()),
    ):
        raise AssertionError
    assert not (tmp_path / "logs" / "two.log").exists()


def test_a_program_that_is_not_there_is_named(program):
    missing = program(SERVE)._replace(command=["/nothing/here"])
    with (
        pytest.raises(ConfigurationError, match="it cannot be started: No such file"),
        running([missing], Event()),
    ):
        raise AssertionError


def test_when_one_fails_those_before_it_end(program, tmp_path):
    bad = program(DIE, name="bad")._replace(ready_url="http://127.0.0.1:1/")
    with pytest.raises(CtpeerError, match="bad ended"), running([program(SERVE), bad], Event()):
        raise AssertionError
    assert alive(tmp_path) == []


@pytest.mark.timeout(60)
def test_one_that_is_deaf_to_the_request_is_killed(program, tmp_path, monkeypatch):
    monkeypatch.setattr("monitoring.children._END_S", 0.5)
    with running([program(SERVE, "deaf")], Event()):
        pass
    assert alive(tmp_path) == []


def test_a_stop_while_waiting_ends_it_at_once(program, tmp_path):
    stop = Event()
    stop.set()
    started_s = time.monotonic()
    with running([program(IDLE), program(IDLE)], stop):
        assert alive(tmp_path) == []
    assert time.monotonic() - started_s < 5.0


def test_it_dies_with_us_however_we_die(program, tmp_path):
    made = program(SERVE)
    code = (
        "import sys, signal; from threading import Event; from pathlib import Path\n"
        "from monitoring.children import Program, running\n"
        f"made = Program({made.name!r}, {made.command!r}, {made.variables!r}, "
        f"Path({str(made.log_path)!r}), {made.ready_url!r}, 20.0)\n"
        "with running([made], Event()):\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MARK"}
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert parent.stdout.readline() == "ready\n"
        (process,) = alive(tmp_path)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        gone, left = psutil.wait_procs([process], 10)
        assert (len(gone), left) == (1, [])
    finally:
        parent.kill()
        parent.stdout.close()
        parent.wait(10)
        for process in alive(tmp_path):
            process.kill()
