"""Where the home is, and whether it can be used."""

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from peer.config.home import Home, resolve_home
from peer.errors import ConfigurationError, CtpeerError


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Make `tmp_path` the user's home folder and the working directory, and forget CTPEER_HOME."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("CTPEER_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_flag_beats_the_environment(user, monkeypatch):
    monkeypatch.setenv("CTPEER_HOME", "/from/environment")
    assert resolve_home("/from/flag").path == Path("/from/flag")


@pytest.mark.parametrize("flag", [None, ""])
def test_without_a_flag_the_environment_decides(flag, user, monkeypatch):
    monkeypatch.setenv("CTPEER_HOME", "/from/environment")
    assert resolve_home(flag).path == Path("/from/environment")


def test_with_neither_the_platforms_custom_decides(user):
    assert resolve_home(None).path == user / ".local" / "share" / "ctpeer"


@pytest.mark.parametrize(
    ("chosen", "expected"), [("~/peer", "peer"), ("relative/peer", "relative/peer")]
)
def test_a_home_is_resolved_to_an_absolute_path(chosen, expected, user):
    assert resolve_home(chosen).path == user / expected


def test_the_home_of_an_unknown_user_is_refused(user):
    with pytest.raises(CtpeerError, match="nosuchuser"):
        resolve_home("~nosuchuser/peer")


def test_a_prepared_home_is_private_and_empty_of_probes(tmp_path):
    home = Home(tmp_path / "a" / "b")
    home.prepare()
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert {path.name for path in home.path.iterdir()} == {"logs", "runs"}


def test_a_home_prepared_again_keeps_what_is_in_it(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    home.settings_path.write_text("[log]\n")
    home.prepare()
    assert home.settings_path.read_text() == "[log]\n"


def test_everything_a_home_holds_lies_below_it(tmp_path):
    home = Home(tmp_path)
    names = [name for name in vars(Home) if name.endswith("_path") and name != "run_path"]
    paths = [getattr(home, name) for name in names] + [home.run_path("a-run")]
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("letter", ["h", "é"])
def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(letter, tmp_path):
    home = Home(tmp_path / (letter * (101 // len(letter.encode()))))
    with pytest.raises(ConfigurationError, match=r"too long for a control socket.*--home"):
        home.prepare()
    assert not home.path.exists()


def test_a_socket_can_be_bound_in_the_home_with_the_longest_path_taken():
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        short = Home(Path(folder) / "x")
        home = Home(Path(folder) / ("x" * (101 - len(os.fsencode(short.socket_path)))))
        home.prepare()
        server.bind(str(home.socket_path))
        with pytest.raises(ConfigurationError, match="too long for a control socket"):
            Home(Path(f"{home.path}x")).prepare()


def test_the_disk_under_the_home_has_something_left(tmp_path):
    assert Home(tmp_path).disk_free_bytes() > 0


def test_of_a_home_that_is_not_there_the_disk_is_unknown(tmp_path):
    assert Home(tmp_path / "nothing").disk_free_bytes() is None


@pytest.mark.parametrize("blocked", ["home", "home/runs", "home/logs"])
def test_a_file_in_the_way_is_named_with_what_to_do(blocked, tmp_path):
    blocker = tmp_path / blocked
    blocker.parent.mkdir(exist_ok=True)
    blocker.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"home cannot be written.*a file is in its way"):
        Home(tmp_path / "home").prepare()
    assert blocker.read_text() == "mine"


def test_a_home_below_a_file_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigurationError, match="a file is in its way: move it"):
        Home(tmp_path / "file" / "home").prepare()
