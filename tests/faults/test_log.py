"""What a real daemon writes into its log, which people share, and on its terminal alone."""

import os
import pty
import subprocess
import threading

import pytest

from peer.config.home import Home


def log_of(daemon):
    return Home(daemon.home).log_path.read_text()


def test_the_key_of_the_page_is_not_in_the_log_but_its_address_is(daemon, tiny_run):
    daemon.start(tiny_run)
    url = daemon.wait_until(lambda status: status["worker_pid"])["page_url"]
    address, _, key = url.partition("#")
    assert key == Home(daemon.home).page_key_path.read_text().strip()
    assert url in daemon.run("status").stdout
    assert daemon.run("stop").returncode == 0
    daemon.wait()
    for log in (log_of(daemon), daemon.output):
        assert f"page: {address}; `ctpeer status` prints it with its key" in log
        assert key not in log


@pytest.mark.parametrize("plain", [("--plain",), ()], ids=["plain", "live"])
def test_a_terminal_is_told_the_key_of_the_page(daemon, tiny_run, plain, monkeypatch):
    ours, theirs = pty.openpty()
    popen = subprocess.Popen

    def on_terminal(*arguments, **options):
        if "start" in arguments[0]:
            options["stdout"] = theirs
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", on_terminal)
    shown = []

    def read():
        while True:
            try:
                shown.append(os.read(ours, 1 << 16))
            except OSError:  # the other end is closed
                return

    daemon.start(tiny_run, *plain, TERM="dumb")
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    url = daemon.wait_until(lambda status: status["worker_pid"])["page_url"]
    assert daemon.run("stop").returncode == 0
    daemon.wait()
    daemon.wait_for_no_process()
    reader.join(10)
    os.close(ours)
    assert url in b"".join(shown).decode(errors="replace")
    assert url.partition("#")[2] not in log_of(daemon)
