import json
import threading
import time

import click
import pytest
from click.testing import CliRunner

from peer.cli.control import Duration
from peer.cli.main import main


@pytest.fixture
def ctpeer(tmp_path, monkeypatch):
    """Run a command in this process on a home of its own."""
    monkeypatch.setenv("CTPEER_HOME", str(tmp_path / "home"))

    def run(*arguments):
        return CliRunner().invoke(main, arguments)

    return run


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1 d", 86400)]
)
def test_a_duration_is_read_in_its_unit(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "soon", "1w", "1e9", "nan", "inf", "5 m s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a time such as"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("command", ["status", "stop", "finish", "pause", "resume"])
def test_without_a_daemon_the_exit_code_is_3(ctpeer, command):
    result = ctpeer(command)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("ctpeer: no daemon runs on the home")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [("strat",), ("status", "--jsno"), ("start", "--max-epochs", "0"), ("pause", "--for", "soon")],
)
def test_what_makes_no_sense_has_exit_code_2(ctpeer, arguments):
    assert ctpeer(*arguments).exit_code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_script(ctpeer, shell):
    result = ctpeer("completion", shell)
    assert result.exit_code == 0
    assert "_CTPEER_COMPLETE" in result.stdout


def test_version_names_what_decides_numbers(ctpeer):
    body = json.loads(ctpeer("version", "--json").stdout)
    assert set(body) >= {"ctpeer", "python", "torch", "transformers", "numpy"}


def test_config_show_names_every_origin(ctpeer, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "peer.toml").write_text("[compute]\nthreads = 3\n")
    monkeypatch.setenv("CTPEER_CHECKPOINT__KEEP", "7")
    body = json.loads(ctpeer("config", "show", "--json").stdout)["settings"]
    assert body["compute.threads"]["value"] == 3
    assert body["compute.threads"]["origin"].startswith("file ")
    assert body["checkpoint.keep"] == {
        "value": 7,
        "origin": "environment CTPEER_CHECKPOINT__KEEP",
    }
    assert body["compute.device"]["origin"] == "default"
    text = ctpeer("config", "show", "--origin").stdout
    assert "keep = 7" in text
    assert "# environment CTPEER_CHECKPOINT__KEEP" in text


def test_a_misspelt_setting_has_exit_code_78_and_a_suggestion(ctpeer, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "peer.toml").write_text("[compute]\nthread = 3\n")
    result = ctpeer("config", "show")
    assert result.exit_code == 78
    assert "compute.thread is unknown; did you mean threads?" in result.stderr


def test_logs_without_any_say_so(ctpeer):
    result = ctpeer("logs")
    assert result.exit_code == 78
    assert "has a daemon ever run" in result.stderr


@pytest.fixture
def log_path(tmp_path):
    path = tmp_path / "home" / "logs" / "ctpeer.log"
    path.parent.mkdir(parents=True)
    return path


def test_logs_are_the_last_lines(ctpeer, log_path):
    log_path.write_text("".join(f"line {i}\n" for i in range(100)))
    assert ctpeer("logs", "-n", "2").stdout == "line 98\nline 99\n"


def test_followed_logs_go_on_over_a_rotation(log_path, capfd):
    import peer.cli.logs as module

    log_path.write_text("one\n")
    reader = threading.Thread(target=module._follow, args=(log_path, 0), daemon=True)
    reader.start()
    seen = ""

    def wait_for(text):
        nonlocal seen
        deadline_s = time.monotonic() + 10
        while text not in seen:
            assert time.monotonic() < deadline_s, seen
            time.sleep(0.02)
            seen += capfd.readouterr().out

    wait_for("one\n")
    with log_path.open("a") as file:
        file.write("two\n")
    wait_for("two\n")
    log_path.rename(log_path.with_suffix(".log.1"))
    log_path.write_text("three\n")
    wait_for("three\n")
    assert seen == "one\ntwo\nthree\n"
    log_path.unlink()
