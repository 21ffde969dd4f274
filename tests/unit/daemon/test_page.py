"""What the local page answers, asked as a browser, a stranger's page and a script would ask."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import threading
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from peer.config.settings import PageSettings
from peer.daemon.page import DEFAULT_PAGE_PORT, serve_page
from peer.errors import ConfigurationError
from peer.observe.page.guard import HEADERS, KEY_HEADER


class Page:
    """The page of a supervisor that runs no worker."""

    def __init__(self, supervisor, url):
        self.supervisor = supervisor
        parts = urlsplit(url)
        self.port, self.key = parts.port, parts.fragment

    def ask(self, method, path, body=None, **headers):
        """Return status, headers and text of an answer; `key` and `host` are given by name."""
        sent = {"Host": headers.pop("host", f"127.0.0.1:{self.port}")}
        if (key := headers.pop("key", self.key)) is not None:
            sent[KEY_HEADER] = key
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        ) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def view(self):
        return json.loads(self.ask("GET", "/view")[2])


@pytest.fixture
def page(supervise, home):
    supervisor, ended, loop = supervise([]), asyncio.Event(), asyncio.new_event_loop()
    urls, started = [], threading.Event()

    async def serve():
        async with serve_page(supervisor, home, PageSettings(port=0)) as url:
            urls.append(url)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield Page(supervisor, urls[0])
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)
    loop.close()


def test_the_page_and_its_files_need_no_key_but_bear_every_guard(page):
    for path in ("/", "/assets/page.css", "/assets/peer.js", "/assets/uplot.js"):
        status, headers, _ = page.ask("GET", path, key=None)
        assert status == 200
        assert {name: headers[name] for name in HEADERS} == HEADERS


def test_a_file_that_did_not_change_is_not_sent_again(page):
    _, headers, _ = page.ask("GET", "/assets/uplot.js")
    status, _, body = page.ask("GET", "/assets/uplot.js", If_None_Match=headers["ETag"])
    assert (status, body) == (304, "")


@pytest.mark.parametrize("path", ["/assets/%2e%2e/guard.py", "/assets/..%2fguard.py", "/assets/x"])
def test_no_other_file_is_served(page, path):
    assert page.ask("GET", path)[0] == 404


def test_the_view_is_what_the_supervisor_says(page):
    page.supervisor.snapshot.history.loss.add(1, 4.5)
    view = page.view()
    assert view["status"]["state"] == "restarting"
    assert view["history"]["loss"] == [[1, 4.5]]
    assert view["lineage"] == {"checkpoints": [], "verdicts": [], "problem": None}
    assert page.key not in json.dumps(view)


@pytest.mark.parametrize(("method", "path"), [("GET", "/view"), ("POST", "/pause")])
@pytest.mark.parametrize("key", [None, "", "x" * 32])
def test_without_the_key_nothing_is_told_and_nothing_is_done(page, method, path, key):
    status, headers, text = page.ask(method, path, key=key)
    assert status == 403
    assert "ctpeer status" in json.loads(text)["error"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert page.supervisor.paused is None


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/view"), ("GET", "/assets/peer.js"), ("POST", "/stop")],
)
def test_a_foreign_host_is_refused_whatever_it_asks_for(page, method, path):
    status, _, text = page.ask(method, path, host=f"evil.example:{page.port}")
    assert status == 403
    assert "evil.example" in json.loads(text)["error"]


@pytest.mark.parametrize(
    "foreign", [{"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}]
)
@pytest.mark.parametrize("command", ["pause", "resume", "finish", "stop"])
def test_a_command_of_another_site_is_refused_even_with_the_key(page, command, foreign):
    status, _, text = page.ask("POST", f"/{command}", **foreign)
    assert status == 403
    assert "another site" in json.loads(text)["error"]
    assert page.supervisor.paused is None


def test_no_other_site_is_told_that_it_may_send_the_key(page):
    status, headers, _ = page.ask(
        "OPTIONS", "/pause", Origin="http://evil.example", Access_Control_Request_Method="POST"
    )
    assert status in {403, 405}
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_a_command_of_the_page_itself_is_carried_out(page):
    origin = {"Origin": f"http://127.0.0.1:{page.port}", "Sec_Fetch_Site": "same-origin"}
    status, _, _ = page.ask("POST", "/pause", json.dumps({"for_s": 60}), **origin)
    assert status == 200
    assert page.view()["paused"].startswith("paused by you until ")
    assert page.ask("POST", "/resume", "{}", **origin)[0] == 200
    assert page.view()["paused"] is None


def test_a_command_that_makes_no_sense_is_refused_in_words(page):
    status, _, text = page.ask("POST", "/pause", '{"for_s": -1}')
    assert status == 400
    assert "for_s" in json.loads(text)["error"]


def test_a_request_that_is_too_large_is_refused(page):
    assert page.ask("POST", "/pause", "x" * 100_000)[0] == 413


def test_a_worker_that_says_nothing_is_told_of(page):
    assert page.view()["quiet_s"] is None
    page.supervisor._workers._worker = SimpleNamespace(pid=os.getpid())
    page.supervisor._watch._vitals._heard_s -= 60.0
    view = page.view()
    page.supervisor._workers._worker = None
    assert view["quiet_s"] >= 60.0
    assert "no word from the worker" in view["status"]["reason"]


def test_a_page_that_is_not_wanted_is_not_there(supervise, home):
    async def serve():
        async with serve_page(supervise([]), home, PageSettings(enabled=False)) as url:
            return url

    assert asyncio.run(serve()) is None
    assert not home.page_key_path.exists()


def test_a_port_that_was_asked_for_and_is_taken_is_refused(supervise, home):
    async def serve(port):
        async with serve_page(supervise([]), home, PageSettings(port=port)):
            pass

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"the page cannot be served .* --page-port"):
            asyncio.run(serve(port))


def test_the_page_moves_aside_when_nobody_asked_for_the_port_that_is_taken(supervise, home):
    async def serve():
        async with (
            serve_page(supervise([]), home, PageSettings()) as first,
            serve_page(supervise([]), home, PageSettings()) as second,
        ):
            return urlsplit(first).port, urlsplit(second).port

    first, second = asyncio.run(serve())
    assert first != second
    assert second != DEFAULT_PAGE_PORT
