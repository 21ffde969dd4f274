"""`ctpeer service` in front of a stand-in for systemctl; tests/boot has the real one."""

import http.server
import json
import socketserver
import sys
import threading

import pytest
from click.testing import CliRunner

from peer import __version__
from peer.cli.main import main

SYSTEMCTL = """#!{python}
import sys
with open({calls!r}, "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if "show" in sys.argv:
    print(open({shown!r}).read())
sys.exit("Job for ctpeer.service failed." if {fails!r} in sys.argv else 0)
"""
RUNS = """ActiveState=active
SubState=running
Result=success
UnitFileState=enabled
StatusText=training: gathering the epoch's batch; epoch 7
MainPID=42
NRestarts=1
ExecMainStatus=0"""
FAILED = """ActiveState=failed
SubState=failed
Result=exit-code
UnitFileState=disabled
StatusText=
MainPID=0
NRestarts=5
ExecMainStatus=78"""
INVITE = "ctpeer1abc"


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """Have a stand-in answer as systemd; return its calls so far, and how to have one fail."""
    calls, shown = tmp_path / "calls", tmp_path / "shown"
    shown.write_text(RUNS)

    class Systemd:
        unit = tmp_path / "config" / "systemd" / "user" / "ctpeer.service"

        def __init__(self):
            self.fail("nothing")

        def fail(self, verb):
            file = tmp_path / "bin" / "systemctl"
            file.parent.mkdir(exist_ok=True)
            python = {"python": sys.executable, "calls": str(calls), "shown": str(shown)}
            file.write_text(SYSTEMCTL.format(**python, fails=verb))
            file.chmod(0o755)

        def show(self, text):
            shown.write_text(text)

        def calls(self):
            lines = calls.read_text().splitlines() if calls.exists() else []
            calls.unlink(missing_ok=True)
            return [line.removeprefix("--user --no-pager ") for line in lines]

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CTPEER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("peer.daemon.unit.BOOTED_PATH", tmp_path)
    return Systemd()


def service(*arguments):
    return CliRunner().invoke(main, ["service", *arguments])


def test_installing_puts_the_unit_in_place_and_enables_it(systemd):
    result = service("install", "--user")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"installed: {systemd.unit}\n")
    assert "systemctl --user restart ctpeer" in result.stdout
    assert f"\nExecStart={sys.prefix}/bin/ctpeer start --plain\n" in systemd.unit.read_text()
    assert systemd.calls() == ["daemon-reload", "enable ctpeer.service"]


def test_installing_again_changes_nothing(systemd):
    service("install", "--user")
    before = systemd.unit.stat()
    result = service("install", "--user")
    assert result.stdout.startswith("already installed")
    assert systemd.unit.stat().st_ino == before.st_ino


def test_with_now_what_runs_is_restarted_though_its_unit_did_not_change(systemd):
    service("install", "--user")
    systemd.calls()
    result = service("install", "--user", "--now")
    assert result.exit_code == 0
    assert result.stdout.startswith("already installed")
    assert "it runs, and is restarted to take in what is installed now" in result.stderr
    assert "\nrestarted, and running\n" in result.stdout
    assert systemd.calls()[-1] == "restart ctpeer.service"


def test_with_now_what_does_not_run_is_started(systemd):
    systemd.show(FAILED)
    result = service("install", "--user", "--now")
    assert result.stderr.startswith("starting;")
    assert "\nrunning\n" in result.stdout
    assert systemd.calls()[-1] == "restart ctpeer.service"


def test_a_run_that_was_given_is_kept_by_later_installs(systemd):
    service("install", "--user", "--run", INVITE)
    line = f'Environment="CTPEER_RUN={INVITE}"'
    assert line in systemd.unit.read_text()
    assert service("install", "--user").stdout.startswith("already installed")
    service("install", "--user", "--run", f"{INVITE}d")
    assert f'Environment="CTPEER_RUN={INVITE}d"' in systemd.unit.read_text()


def test_uninstalling_stops_it_takes_it_away_and_names_the_home_that_stays(systemd, tmp_path):
    service("install", "--user")
    systemd.calls()
    (tmp_path / "home").mkdir()
    result = service("uninstall", "--user")
    assert result.exit_code == 0
    assert f"its home stays, with identity and checkpoints: {tmp_path / 'home'}" in result.stdout
    assert not systemd.unit.exists()
    assert systemd.calls() == ["disable --now ctpeer.service", "daemon-reload"]
    again = service("uninstall", "--user")
    assert (again.exit_code, again.stdout.split(":")[0]) == (0, "it is not installed")
    assert systemd.calls() == []


def test_the_status_says_how_it_is(systemd):
    service("install", "--user")
    result = service("status", "--user")
    assert result.exit_code == 0
    assert "state       active (running), enabled\n" in result.stdout
    assert "says        training: gathering the epoch's batch; epoch 7\n" in result.stdout
    found = json.loads(service("status", "--user", "--json").stdout)
    assert (found["schema"], found["active"], found["pid"], found["restarts"]) == (1, True, 42, 1)
    assert found["installed"]


def test_the_status_of_what_failed_says_with_which_code_and_exits_with_3(systemd):
    systemd.show(FAILED)
    result = service("status", "--user")
    assert result.exit_code == 3
    assert "failed (failed), not enabled; it ended by exit-code with code 78" in result.stdout
    assert "not installed; see `ctpeer service install`" in result.stdout


@pytest.fixture
def daemon(tmp_path):
    """Have a control socket in the home answer with a status."""
    home, listening = tmp_path / "home", []

    def answer_with(status):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(status).encode())

            def log_message(self, *_arguments):
                """Keep quiet: a client of a Unix socket has no address."""

        home.mkdir()
        server = socketserver.UnixStreamServer(str(home / "control.sock"), Answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        listening.append((server, thread))

    yield answer_with
    for server, thread in listening:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_status_of_a_daemon_of_another_version_says_how_to_take_this_one_in(systemd, daemon):
    daemon({"pid": 42, "version": "0.0.9"})
    said = service("status", "--user").stdout
    assert f"version     0.0.9 runs, but this ctpeer is {__version__}; " in said
    assert "`ctpeer service install --user --now` restarts it" in said
    found = json.loads(service("status", "--user", "--json").stdout)
    assert (found["version_running"], found["version"]) == ("0.0.9", __version__)


def test_the_status_of_a_daemon_of_this_version_says_just_that(systemd, daemon):
    daemon({"pid": 42, "version": __version__})
    assert f"version     {__version__}\n" in service("status", "--user").stdout


def test_a_daemon_that_somebody_started_by_hand_is_not_the_service(systemd, daemon):
    daemon({"pid": 43, "version": "0.0.9"})
    result = service("status", "--user")
    assert "version" not in result.stdout
    assert json.loads(service("status", "--user", "--json").stdout)["version_running"] is None


@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "restart"])
def test_what_systemctl_says_when_it_fails_is_shown_with_where_to_look(systemd, verb):
    systemd.fail(verb)
    result = service("install", "--user", "--now")
    assert result.exit_code == 1
    assert "Job for ctpeer.service failed." in result.stderr
    assert "journalctl --user -u ctpeer -n 50" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("ctpeer: `systemctl --user")


def test_a_unit_of_somebody_else_is_left_alone(systemd):
    systemd.unit.parent.mkdir(parents=True)
    systemd.unit.write_text("[Service]\nExecStart=/usr/bin/other\n")
    for command in ("install", "uninstall"):
        result = service(command, "--user")
        assert result.exit_code == 78
        assert "does not run ctpeer; move it away first" in result.stderr
    assert systemd.unit.read_text() == "[Service]\nExecStart=/usr/bin/other\n"


@pytest.mark.parametrize("run", ["no-such-run", ""])
def test_a_run_that_is_none_is_refused(systemd, run, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    result = service("install", "--user", "--run", run or "./run.toml")
    assert result.exit_code == 2
    assert "neither an invite nor the path of a run" in result.stderr
    assert not systemd.unit.exists()


@pytest.mark.parametrize("command", ["install", "uninstall", "status"])
def test_without_systemd_it_says_how_to_run_the_daemon(systemd, command, tmp_path, monkeypatch):
    monkeypatch.setattr("peer.daemon.unit.BOOTED_PATH", tmp_path / "nowhere")
    result = service(command)
    assert result.exit_code == 1
    assert "`ctpeer start` runs the daemon by hand" in result.stderr


def test_whoever_is_not_root_is_told_what_to_do(systemd, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = service("install")
    assert result.exit_code == 1
    assert "needs root" in result.stderr
    assert "--user" in result.stderr


def test_an_environment_that_the_service_could_not_see_is_refused(systemd, monkeypatch, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("sys.prefix", str(tmp_path))  # below /tmp, which is another one there
    (tmp_path / "bin" / "ctpeer").touch(mode=0o755)
    result = service("install")
    assert result.exit_code == 78
    assert "is hidden from a service of the system" in result.stderr
    assert "python3 -m venv /opt/ctpeer" in result.stderr


def test_there_is_no_entry_point_for_one_user(systemd):
    result = service("install", "bootstrap", "--user")
    assert result.exit_code == 2
    assert "there is no bootstrap for one user alone" in result.stderr
