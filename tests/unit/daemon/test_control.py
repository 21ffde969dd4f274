import asyncio
import http.client
import json
import socket
import stat
import threading

import pytest

from peer.config.settings import MetricsSettings
from peer.daemon import client
from peer.daemon.control import DEFAULT_METRICS_PORT, serve_control, serve_metrics
from peer.errors import ConfigurationError, CtpeerError, NotRunningError


@pytest.fixture
def served(supervise, home):
    """A supervisor that answers on its socket, in a thread of its own."""
    supervisor, started, ended = supervise([]), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve():
        async with serve_control(supervisor, home.socket_path):
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield supervisor
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)
    loop.close()


def post(home, path, body):
    connection = http.client.HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(home.socket_path))
    connection.request("POST", path, body)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, text


def test_the_socket_is_its_owners_alone(served, home):
    assert stat.S_IMODE(home.socket_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_status_is_what_the_supervisor_says(served, home):
    assert client.get_status(home)["state"] == "restarting"


def test_a_pause_with_a_time_reaches_the_supervisor(served, home):
    client.command(home, "pause", for_s=60.0)
    assert served._pauses.reason.startswith("paused by you until ")
    client.command(home, "resume")
    assert served._pauses.reason is None


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "\xff",
        '{"for_s": "1"}',
        '{"for_s": -1}',
        '{"for_s": 0}',
        '{"for_s": true}',
        '{"for_s": NaN}',
        '{"for_s": Infinity}',
        '{"for_s": 1e12}',
        '{"until": 3}',
    ],
)
def test_a_pause_that_makes_no_sense_is_refused_and_changes_nothing(served, home, body):
    status, text = post(home, "/pause", body)
    assert status == 400
    assert json.loads(text)["error"]
    assert served._pauses.reason is None


def test_a_request_that_is_too_large_is_refused(served, home):
    assert post(home, "/pause", "x" * 100_000)[0] == 413


def test_an_unknown_command_is_refused(served, home):
    assert post(home, "/reboot", "")[0] == 404
    with pytest.raises(CtpeerError):
        client.command(home, "reboot")


def test_without_a_daemon_the_client_says_how_to_start_one(home):
    with pytest.raises(NotRunningError, match="`ctpeer start` starts one"):
        client.get_status(home)


def test_a_socket_left_by_a_killed_daemon_counts_as_none(home):
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(str(home.socket_path))
    with pytest.raises(NotRunningError):
        client.get_status(home)


def test_a_daemon_that_does_not_answer_is_an_error_in_time(home, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(home.socket_path))
        silent.listen()
        with pytest.raises(CtpeerError, match="does not answer"):
            client.get_status(home)


def address_of(supervisor, **settings):
    async def serve():
        async with serve_metrics(supervisor, MetricsSettings(**settings)) as url:
            host, port = url.removeprefix("http://").removesuffix("/metrics").rsplit(":", 1)
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            body = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            return int(port), body

    return asyncio.run(serve())


def test_metrics_are_served_on_a_free_port_when_asked_for_any(supervise):
    port, body = address_of(supervise([]), port=0)
    assert port > 0
    assert body.startswith(b"HTTP/1.1 200")
    assert b"ctpeer_state" in body


def test_metrics_move_aside_when_nobody_asked_for_the_port_that_is_taken(supervise):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", DEFAULT_METRICS_PORT))
            other.listen()
        except OSError:
            pass  # taken by somebody else: as good
        assert address_of(supervise([]))[0] != DEFAULT_METRICS_PORT


def test_a_port_that_was_asked_for_and_is_taken_is_refused(supervise):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port}: Address already in use"):
            address_of(supervise([]), port=port)


def test_a_host_that_is_not_ours_is_refused(supervise):
    with pytest.raises(ConfigurationError, match="metrics cannot be served on"):
        address_of(supervise([]), host="192.0.2.1")
