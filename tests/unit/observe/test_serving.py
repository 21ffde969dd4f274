"""Listeners on loopback: where they are, what refuses one, and what is served at them."""

import asyncio
import re
import socket

import pytest

from peer.errors import ConfigurationError
from peer.observe.serving import METRICS_TYPE, add_metrics, application, listen, serving, url_of

TOLD = {"what": "/metrics", "choice": "--port"}


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_port_0_is_any_free_one():
    with listen("127.0.0.1", 0, **TOLD) as listener:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", url_of(listener))


def test_where_no_port_is_asked_for_the_default_is_taken_if_it_is_free(taken_port):
    with listen("127.0.0.1", 0, **TOLD) as free:
        port = free.getsockname()[1]
    with listen("127.0.0.1", None, **TOLD, default=port) as listener:
        assert listener.getsockname()[1] == port
    with listen("127.0.0.1", None, **TOLD, default=taken_port) as listener:
        assert listener.getsockname()[1] != taken_port


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_stands_in_brackets():
    with listen("::1", 0, **TOLD) as listener:
        assert re.fullmatch(r"http://\[::1\]:[0-9]+", url_of(listener))


def test_a_port_that_is_taken_is_refused_with_what_to_do(taken_port):
    with pytest.raises(ConfigurationError) as refusal:
        listen("127.0.0.1", taken_port, **TOLD)
    assert str(refusal.value) == (
        f"/metrics cannot be served on 127.0.0.1 port {taken_port}: Address already in use; "
        "choose another address with --port"
    )


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "Cannot assign requested address"),
        ("no-such-host.invalid", "(?!Unknown error).+"),
        ("x" * 64, "this is no name of a host"),
    ],
)
@pytest.mark.parametrize("port", [0, None])
def test_a_host_that_is_not_ours_is_refused(host, reason, port):
    words = rf"/metrics cannot be served on {host} port any: {reason}; choose another"
    with pytest.raises(ConfigurationError, match=words):
        listen(host, port, **TOLD)


async def ask(listener, request):
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def test_metrics_are_served_as_prometheus_reads_them_until_the_end():
    async def scenario():
        listener, app = listen("127.0.0.1", 0, **TOLD), application()
        add_metrics(app, lambda: b"up 1\n")
        async with serving(app, listener):
            answer = await ask(listener, b"GET /metrics HTTP/1.0\r\n\r\n")
        assert listener.fileno() == -1
        return answer

    answer = asyncio.run(scenario())
    assert answer.startswith(b"HTTP/1.0 200")
    assert METRICS_TYPE.encode() in answer
    assert answer.endswith(b"\r\n\r\nup 1\n")


def test_a_large_request_is_refused():
    async def scenario():
        listener, app = listen("127.0.0.1", 0, **TOLD), application()

        async def take(request):
            await request.read()

        app.router.add_post("/", take)
        async with serving(app, listener):
            head = b"POST / HTTP/1.0\r\nContent-Length: 5000\r\n\r\n"
            return await ask(listener, head + b"x" * 5000)

    assert asyncio.run(scenario()).startswith(b"HTTP/1.0 413")


def test_an_application_that_does_not_start_leaves_no_listener():
    async def scenario():
        listener, app = listen("127.0.0.1", 0, **TOLD), application()

        async def fail(_app):
            raise ZeroDivisionError

        app.on_startup.append(fail)
        with pytest.raises(ZeroDivisionError):
            async with serving(app, listener):
                pass
        return listener

    assert asyncio.run(scenario()).fileno() == -1
