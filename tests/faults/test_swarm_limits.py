"""The limits of the line, measured from outside: by the counters of a network interface.

Two real peers live in two network namespaces with a cable between them, so that every byte counts:
frames, records, headers of TCP and IP, acknowledgements.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

LIMIT_MB_PER_S = 1.0
MINUTE_S = 60.0
_numbers = itertools.count()


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10)


class Cable:
    """Two namespaces, each with an end of one cable."""

    def __init__(self):
        number = f"{os.getpid()}-{next(_numbers)}"
        self.names = tuple(f"ctpeer-{number}-{end}" for end in "ab")
        self.addresses = ("10.203.0.1", "10.203.0.2")
        self.problem = ""
        first, second = self.names
        self._do("netns", "add", first)
        self._do("netns", "add", second)
        self._do("-n", first, "link", "add", "end", "type", "veth", "peer", "name", "other")
        self._do("-n", first, "link", "set", "other", "netns", second, "name", "end")
        for name, address in zip(self.names, self.addresses, strict=True):
            self._do("-n", name, "addr", "add", f"{address}/24", "dev", "end")
            self._do("-n", name, "link", "set", "end", "up")
            self._do("-n", name, "link", "set", "lo", "up")

    def _do(self, *arguments):
        if not self.problem:
            done = ip(*arguments)
            self.problem = done.stderr if done.returncode else ""

    def program(self, end):
        return ("ip", "netns", "exec", self.names[end], sys.executable, "-m", "peer")

    def sent_bytes(self, end):
        shown = ip("-n", self.names[end], "-s", "-j", "link", "show", "dev", "end")
        return json.loads(shown.stdout)[0]["stats64"]["tx"]["bytes"]

    def remove(self):
        for name in self.names:
            ip("netns", "del", name)


@pytest.fixture
def cable():
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2: the limit was not measured")
    cable = Cable()
    try:
        if cable.problem:
            pytest.skip(f"no network namespaces here: the limit was not measured: {cable.problem}")
        yield cable
    finally:
        cable.remove()


@pytest.fixture(scope="module")
def heavy_run(make_run):
    """A run whose rounds take far longer than its work: 13 MB of gradient for each epoch."""
    flags = ("--layers", "4", "--hidden", "256", "--heads", "4", "--target-loss-terms", "512")
    return make_run(*flags, "--validate-every", "0")


def start_pair(make_daemon, cable, run, **environment):
    """Start a peer at each end of the cable; return them once each knows the other."""
    daemons, told = [], ()
    for end, address in enumerate(cable.addresses):
        daemon = make_daemon(CTPEER_SWARM__LISTEN=f"/ip4/{address}/tcp/0", **environment)
        daemon.start(run, "--paused", *told, program=cable.program(end))
        status = daemon.wait_until(lambda s: s["addresses"] and s["state"] == "paused")
        told = ("--peers", status["addresses"][0])
        daemons.append(daemon)
    for daemon in daemons:
        daemon.wait_until(lambda s: s["peers"]["reachable"] == 1)
    for daemon in daemons:
        daemon.run("resume")
    for daemon in daemons:
        daemon.wait_until(lambda s: s["rounds"]["group"] == 2, 120.0)
    return daemons


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("direction", ["UPLOAD", pytest.param("DOWNLOAD", marks=pytest.mark.soak)])
def test_a_limit_of_the_line_holds_over_a_minute_of_averaging(
    make_daemon, cable, heavy_run, direction, record_property
):
    # Only the first peer is limited in what it receives: then the second one's sending is measured.
    end = 0 if direction == "UPLOAD" else 1
    variable = f"CTPEER_LIMITS__{direction}_MB_PER_S"
    daemons = start_pair(make_daemon, cable, heavy_run, **{variable: str(LIMIT_MB_PER_S)})
    epochs = [daemon.status()["epoch"] for daemon in daemons]
    failed = [daemon.status()["rounds"]["failed"] for daemon in daemons]
    began_s, before = time.monotonic(), cable.sent_bytes(end)
    while time.monotonic() < began_s + MINUTE_S:
        time.sleep(0.5)  # the minute is what is measured
    sent_bytes = cable.sent_bytes(end) - before
    rate = sent_bytes / (time.monotonic() - began_s) / 1e6
    record_property("mb_per_s", rate)
    print(f"{direction}: {rate:.3f} MB/s of {LIMIT_MB_PER_S} MB/s")  # noqa: T201 the result
    for daemon, epoch, count in zip(daemons, epochs, failed, strict=True):
        status = daemon.status()
        assert status["epoch"] >= epoch + 2
        assert status["rounds"]["failed"] == count, status["rounds"]
        assert status["limits"]["felt"] == {}
    assert 0.7 * LIMIT_MB_PER_S <= rate <= 1.1 * LIMIT_MB_PER_S
