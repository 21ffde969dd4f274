"""`ctpeer doctor` on real peers: in good order, and with set-ups that are broken."""

import json
import socket
from pathlib import Path

import psutil
import pytest

NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.fixture(scope="module")
def founder(make_lasting_swarm):
    """A peer that trains, for whoever looks."""
    return make_lasting_swarm(1).daemons[0]


@pytest.fixture
def diagnose(make_daemon):
    """Run the doctor on a home; return its exit code and the findings by check."""

    def run(*arguments, daemon=None, **environment):
        daemon = daemon or make_daemon()
        before = processes()
        done = daemon.run("doctor", "--json", *arguments, **environment)
        assert processes() <= before, "the doctor left processes behind"
        body = json.loads(done.stdout or "{}")
        assert body["schema"] == 1, done.stderr
        assert body["good"] == (done.returncode == 0)
        return done.returncode, {one["check"]: one for one in body["findings"]}

    return run


def processes():
    return set(psutil.Process().children(recursive=True))


def invite(founder):
    return founder.wait_until(lambda status: status["invite"])["invite"]


@pytest.mark.slow
def test_a_stranger_with_an_invite_is_in_good_order(diagnose, founder):
    code, found = diagnose(invite(founder))
    assert code == 0, found
    for check in ("peers", "clock", "dht", "dial_back", "bandwidth"):
        assert found[check]["level"] == "ok", found[check]
    assert "dialled 127.0.0.1" in found["dial_back"]["found"]
    assert "up" in found["bandwidth"]["found"]
    assert "down" in found["bandwidth"]["found"]


@pytest.mark.slow
def test_beside_a_daemon_it_says_what_that_does(diagnose, founder):
    code, found = diagnose(daemon=founder)
    assert code == 0, found
    assert "held by the daemon" in found["ports"]["found"]
    assert found["version"]["level"] == "ok"
    assert "the run needs about" in found["memory"]["found"]
    assert founder.process.poll() is None


@pytest.mark.slow
def test_five_things_that_are_broken_are_found_at_once(diagnose, make_daemon):
    daemon = make_daemon()
    daemon.home.mkdir()
    (daemon.home / "identity.key").write_bytes(b"junk")
    (daemon.home / "identity.key").chmod(0o644)
    run = daemon.home / "runs" / "a-run"
    run.mkdir(parents=True)
    (run / "run.toml").write_text("protocol = 2\n")
    (daemon.home / "last_run").write_text("a-run")
    (daemon.home / "stray").write_bytes(b"x" * 11_000_000)
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, found = diagnose(
            "--peers",
            NOBODY,
            daemon=daemon,
            CTPEER_SWARM__LISTEN=f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}",
            CTPEER_LIMITS__DISK_MB="10",
        )
    assert code == 1
    bad = {check for check, one in found.items() if one["level"] == "bad"}
    assert bad == {"key", "version", "ports", "disk", "peers"}
    assert all(found[check]["fix"] for check in bad)


@pytest.mark.slow
def test_a_clock_that_is_wrong_is_found(diagnose, founder, tmp_path):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("faketime is not installed: a wrong clock was not tested")
    # libfaketime reckons wrongly with clock_nanosleep(2), which time.sleep is: now and then EINVAL.
    (tmp_path / "sitecustomize.py").write_text(
        "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"
    )
    code, found = diagnose(
        invite(founder),
        LD_PRELOAD=str(library),
        FAKETIME="+1h",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        PYTHONPATH=str(tmp_path),
    )
    assert found["clock"]["level"] == "bad", found["clock"]
    assert code == 1
    assert "ahead of" in found["clock"]["found"]
