"""Measured on homes that are in order, and on some that are not."""

import os
import shutil
import socket
import subprocess

import pytest

from peer.config.home import Home
from peer.config.settings import Settings
from peer.doctor import measure
from peer.doctor.examine import admit
from peer.doctor.facts import Unknown
from peer.doctor.judge import Level, judge
from peer.doctor.measure import Patient
from peer.identity import Identity
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def patient(home, **changes):
    settings = Settings.model_validate(changes.pop("settings", {}))
    return Patient(home=home, settings=settings, **changes)


def level(check, fact):
    return next(f for f in judge({check: fact}) if f.check == check)


def test_a_fresh_home_is_in_order_and_not_made(tmp_path):
    home = Home(tmp_path / "not" / "there")
    whom = admit(home, None, (), 0.0)
    for check in ("settings", "home", "key", "disk", "python", "memory", "ports", "daemon"):
        fact = getattr(measure, check)(whom)
        assert level(check, fact).level is not Level.BAD, fact
    assert not home.path.parent.exists()
    assert isinstance(measure.version(whom), Unknown)


def test_a_file_in_the_home_s_place_is_found(tmp_path):
    (tmp_path / "home").write_text("in the way")
    found = level("home", measure.home(patient(Home(tmp_path / "home"))))
    assert (found.level, "is no folder" in found.found) == (Level.BAD, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_found(home):
    home.path.chmod(0o500)
    try:
        assert level("home", measure.home(patient(home))).level is Level.BAD
    finally:
        home.path.chmod(0o700)


def test_a_key_that_others_may_read_is_found(home):
    Identity.load_or_create(home.identity_path)
    assert level("key", measure.key(patient(home))).level is Level.OK
    home.identity_path.chmod(0o644)
    found = level("key", measure.key(patient(home)))
    assert (found.level, found.fix.startswith("chmod 600")) == (Level.BAD, True)


def test_a_key_that_is_none_is_found_and_kept(home):
    home.identity_path.write_bytes(b"junk")
    home.identity_path.chmod(0o600)
    assert level("key", measure.key(patient(home))).level is Level.BAD
    assert home.identity_path.read_bytes() == b"junk"


def test_a_port_that_another_program_holds_is_found(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = {"swarm": {"listen": [f"/ip4/127.0.0.1/tcp/{port}"]}}
        found = level("ports", measure.ports(patient(home, settings=settings)))
        metrics = level("ports", measure.ports(patient(home, settings={"metrics": {"port": port}})))
    assert found.level is metrics.level is Level.BAD
    assert "another program uses that port" in found.found


def test_a_port_that_our_own_daemon_holds_is_in_order(home):
    with socket.create_server(("127.0.0.1", 0)) as ours:
        settings = {"swarm": {"listen": [f"/ip4/127.0.0.1/tcp/{ours.getsockname()[1]}"]}}
        running = patient(home, settings=settings, status={"rss_bytes": 0})
        assert level("ports", measure.ports(running)).level is Level.OK


@pytest.mark.parametrize(("protocol", "expected"), [(1, Level.OK), (2, Level.BAD)])
def test_a_run_of_another_protocol_is_found(home, protocol, expected):
    folder = home.run_path("some-run")
    folder.mkdir()
    (folder / "run.toml").write_text(f"protocol = {protocol}\n")
    home.last_run_path.write_text("some-run")
    whom = admit(home, None, (), 0.0)
    assert whom.run is None  # that manifest holds nothing else
    fact = measure.version(whom)
    assert fact.run_protocol == protocol
    if expected is Level.BAD:
        found = level("version", fact)
        assert (found.level, found.fix) == (Level.BAD, "install a newer ctpeer for this run")


def test_settings_that_make_no_sense_are_found_and_the_rest_is_looked_at(home):
    home.settings_path.write_text("[limits]\nupload = 3\n")
    whom = admit(home, None, (), 0.0)
    found = level("settings", measure.settings(whom))
    assert (found.level, "upload_mb_per_s" in found.found) == (Level.BAD, True)
    assert measure.disk(whom).kept == 8


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk: that was not tested")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, timeout=10).returncode:
        pytest.skip("a small disk cannot be mounted here: that was not tested")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=10)


def test_a_disk_that_is_nearly_full_is_found(small_disk):
    found = level("disk", measure.disk(patient(Home(small_disk / "home"))))
    assert (found.level, "200 MB is the least" in found.found) == (Level.BAD, True)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"limits": {"upload_mb_per_s": 0.1}}, Level.WARN),
        ({"swarm": {"upload_bytes_per_s": 1 << 16}}, Level.WARN),
        ({"limits": {"upload_mb_per_s": 1.0}}, Level.OK),
        ({}, Level.OK),
    ],
    ids=str,
)
def test_a_limit_on_the_line_that_serves_nobody_is_found_before_a_start(home, settings, expected):
    run = RunDirectory.open(demo_run_path())
    found = level("line", measure.line(patient(home, settings=settings, run=run)))
    assert (found.level, "serving averages" in found.found) == (expected, expected is Level.WARN)


def test_what_the_daemon_says_of_the_line_is_said_once(home):
    run = RunDirectory.open(demo_run_path())
    settings = {"limits": {"upload_mb_per_s": 0.1}}
    serving = measure.line(patient(home, settings=settings, run=run)).serving
    felt = {"limits.upload_mb_per_s": f"{serving}; rounds fail", "limits.download_mb_per_s": "low"}
    fact = measure.line(
        patient(home, settings=settings, run=run, status={"limits": {"felt": felt}})
    )
    assert (fact.serving, fact.felt) == (None, (f"{serving}; rounds fail", "low"))


def test_a_home_above_its_own_limit_is_found(home):
    (home.path / "stray").write_bytes(b"x" * 11_000_000)
    found = level("disk", measure.disk(patient(home, settings={"limits": {"disk_mb": 10}})))
    assert (found.level, "limits.disk_mb allows 10 MB" in found.found) == (Level.BAD, True)
