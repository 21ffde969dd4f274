"""What reaches the socket of a service manager, and what a process that it aborts prints."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from peer.observe.notify import ServiceManager

HANG = """
from peer.observe.notify import dump_when_aborted
dump_when_aborted()
def where_it_hangs():
    print("hangs", flush=True)
    while True:
        pass
where_it_hangs()
"""


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """Return a socket that listens as systemd does, and a service that it started."""
    address = str(tmp_path / "notify")
    if request.param == "abstract":
        address = f"@ctpeer-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        listener.settimeout(5)
        yield (
            listener,
            ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "120000000"}),
        )


def test_each_word_is_an_assignment_of_its_own(manager):
    listener, service = manager
    assert service.listens
    for say in (service.ready, service.alive, service.stopping):
        say()
    service.status("training: all is well")
    service.extend(90.0)
    assert [listener.recv(1000).decode() for _ in range(5)] == [
        "READY=1",
        "WATCHDOG=1",
        "STOPPING=1",
        "STATUS=training: all is well",
        "EXTEND_TIMEOUT_USEC=90000000",
    ]


def test_a_status_with_the_words_of_a_stranger_stays_one_line(manager):
    listener, service = manager
    service.status("joining: it said 'bye\nREADY=1\nMAINPID=1\r\0'" + "x" * 5000)
    told = listener.recv(10_000).decode()
    assert told.startswith("STATUS=joining: it said 'bye READY=1 MAINPID=1")
    assert told.isprintable()
    assert len(told) < 400


def test_a_manager_that_reads_nothing_does_not_stop_the_service(manager):
    _, service = manager
    for _ in range(5000):  # more than any queue of datagrams holds
        service.alive()


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@ctpeer-nobody-listens"])
def test_without_anybody_who_listens_nothing_happens(address):
    service = ServiceManager({"NOTIFY_SOCKET": address})
    assert service.listens == bool(address)
    service.ready()
    service.stopping()


@pytest.mark.parametrize(
    ("limit", "pid", "expected_s"),
    [
        ("120000000", "", 120.0),
        ("1500000", "our own", 1.5),
        ("1500000", "1", None),
        ("", "", None),
        ("0", "", None),
        ("-5", "", None),
        ("soon", "", None),
        ("²", "", None),
    ],
)
def test_the_watchdogs_limit_is_read_as_systemd_means_it(limit, pid, expected_s):
    pid = pid.replace("our own", str(os.getpid()))
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": limit, "WATCHDOG_PID": pid}
    assert ServiceManager(environment).watchdog_s == expected_s


def test_without_a_watchdog_nothing_is_pinged(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        service.alive()
        service.ready()
        assert listener.recv(1000) == b"READY=1"


def test_a_process_that_is_aborted_prints_where_it_hangs():
    with subprocess.Popen(
        [sys.executable, "-c", HANG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "hangs\n"
            process.send_signal(signal.SIGABRT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in said
    assert "in where_it_hangs" in said
