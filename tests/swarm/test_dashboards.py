"""Every panel and every alert on a real Prometheus that scraped real peers and the real exporter.

What this does not show is how Grafana draws it: there is no Grafana here. Panels are evaluated as
it would: their variables put in, over a range.
"""

import contextlib
import json
import math
import shutil
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from threading import Event

import pytest
import yaml

from monitoring.children import Program, running
from monitoring.names import FAMILIES
from monitoring.servers import GRAFANA_PATH, exporter, prometheus
from monitoring.stack import write_targets
from peer.config.home import Home
from peer.daemon.lifecycle import State
from peer.daemon.restart import FailureClass
from peer.events import RoundFailure
from peer.observe.metrics import Metrics
from peer.observe.status import Snapshot, Surroundings, render
from peer.swarm.records import Refusal

DASHBOARDS = sorted((GRAFANA_PATH / "dashboards").glob("*.json"), key=lambda path: path.name)
RANGE_S = 20.0
DOWN = {"CtpeerPeerDown"}
"""What a killed peer brings about: pending at first, and firing after five minutes."""
ZEROS = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(open(sys.argv[2], "rb").read())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def wait_until(condition, timeout_s):
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.5)
    return found


class Watching:
    """A Prometheus of the stack's, that scrapes every second, and what is known of its targets."""

    def __init__(self, folder, monitor, run_id):
        self.run_id, self.peer_id = run_id, None
        self.url = f"http://{(listen := free_address())}"
        self.program = prometheus(folder, listen, "1d", monitor=monitor, run_id=run_id)
        path = folder / "prometheus.yml"
        made = yaml.safe_load(path.read_text())
        made["global"] = dict.fromkeys(
            ("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s"
        )
        for job in made["scrape_configs"]:
            for kind in ("file_sd_configs", "http_sd_configs"):
                for each in job.get(kind, ()):
                    each["refresh_interval"] = "1s"
        path.write_text(yaml.safe_dump(made))

    def ask(self, what, **query):
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def now(self, query):
        """Return the values of `query` now."""
        return [float(one["value"][1]) for one in self.ask("query", query=query)["result"]]

    def problems(self, query):
        """Return what is wrong with `query` over the last seconds, as a panel would ask it."""
        for name, value in {
            "$run": self.run_id,
            "$peer": self.peer_id,
            "$__rate_interval": "10s",
            "$__range": "5m",
        }.items():
            query = query.replace(name, value)
        end_s = time.time()
        try:
            found = self.ask("query_range", query=query, start=end_s - RANGE_S, end=end_s, step=2)[
                "result"
            ]
        except urllib.error.HTTPError as error:
            return [json.load(error)["error"]]
        if not found or end_s - max(one["values"][-1][0] for one in found) > 2 * RANGE_S:
            return ["empty"]
        values = [float(value) for one in found for _, value in one["values"]]
        return [] if all(map(math.isfinite, values)) else ["NaN"]


def panels_of(path):
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def bad_panels(watching, path):
    """Return every query of a dashboard that fails, is empty or is NaN, and what is wrong."""
    queries = [(p["title"], t["expr"]) for p in panels_of(path) for t in p["targets"]]
    assert len(queries) > 10
    found = ((title, query, watching.problems(query)) for title, query in queries)
    return [each for each in found if each[2]]


def statuses(homes):
    found = []
    for home in homes:
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(home.last_status_path.read_text()))
    return found


@pytest.fixture(scope="module")
def swarm(start_lasting_sandbox, tmp_path_factory):
    """Watch four real peers, one of which is killed, from before that until long after."""
    rest = ("--kill", "1@40", "--validate-every", "10", "--timeout", "500")
    sandbox = start_lasting_sandbox("--peers", "4", "--max-epochs", "100000", *rest)
    homes = [Home(sandbox.homes_path / str(index)) for index in range(4)]

    def met():
        assert sandbox.process.poll() is None, sandbox.stderr
        known = statuses(homes)
        return len(known) == 4 and all(s["peer_id"] and s["invite"] for s in known) and known

    known = wait_until(met, 120.0)
    folder = tmp_path_factory.mktemp("watching")
    run_id, listen = known[0]["run_id"], free_address()
    watching = Watching(folder, listen, run_id)
    watching.peer_id = known[0]["peer_id"]
    monitor = exporter(known[0]["invite"], None, listen, folder, ("--interval", "1"))
    write_targets(folder, homes, [])
    with running([monitor, watching.program], Event()):
        wait_until(lambda: watching.now("max(ctpeer_swarm_verdict_round) > 0"), 150.0)
        wait_until(lambda: "killed at epoch" in sandbox.stderr, 150.0)
        wait_until(lambda: watching.now('count(up{job="ctpeer"} == 0)') == [1.0], 30.0)
        since_s = time.monotonic()
        wait_until(lambda: time.monotonic() - since_s > RANGE_S, 60.0)
        yield watching


@pytest.mark.slow
@pytest.mark.timeout(560)
def test_the_real_peers_and_the_exporter_told_what_the_panels_are_about(swarm):
    assert swarm.now('count(up{job="ctpeer"} == 1)') == [3.0]
    assert swarm.now("max(ctpeer_swarm_epoch)")[0] > 40
    assert swarm.now("max(ctpeer_swarm_shards_claimed)")[0] > 0
    assert swarm.now("count(ctpeer_swarm_member_loss_terms)")[0] >= 3
    assert swarm.now(f'ctpeer_disk_free_bytes{{peer_id="{swarm.peer_id}"}}')[0] > 0


@pytest.mark.slow
@pytest.mark.timeout(560)
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_has_data_of_a_real_swarm_and_none_is_nan(swarm, path):
    assert bad_panels(swarm, path) == []


@pytest.mark.slow
@pytest.mark.timeout(560)
def test_over_a_healthy_swarm_no_alert_fires_and_only_the_killed_peer_makes_one_wait(swarm):
    groups = swarm.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    ever = swarm.ask("query", query="count by (alertname) (count_over_time(ALERTS[10m]))")
    fired = swarm.now('count(count_over_time(ALERTS{alertstate="firing"}[10m]))')
    assert {one["metric"]["alertname"] for one in ever["result"]} == DOWN
    assert fired == []


@pytest.mark.slow
@pytest.mark.timeout(560)
@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("ctpeer_nothing_of_the_kind", "empty"),
        ("ctpeer_epoch / (ctpeer_epoch - ctpeer_epoch) * 0", "NaN"),
        ("sum(ctpeer_epoch", "parse error"),
    ],
)
def test_a_bad_query_is_found(swarm, query, problem):
    assert problem in swarm.problems(query)[0]


def idle_text():
    """Return what a peer that has done nothing tells, and an exporter that found nothing."""
    metrics = Metrics(State, RoundFailure, FailureClass, Refusal)
    around = Surroundings(
        state="paused",
        reason="",
        now_s=1.0,
        unix_time_s=1.0,
        rss_bytes={},
        metrics_url="",
        run_id="idle",
        role="trainer",
        pid=1,
        worker_pid=None,
        disk_free_bytes=10**11,
    )
    text = metrics.expose(render(Snapshot(started_s=0.0), around), {}).decode()
    for family in FAMILIES:
        for label, values in family.labels.items():
            text += "".join(
                f'{family.exposed}{{{label}="{value}"}} 0\n' for value in values or ("x",)
            )
        text += f"{family.exposed} 0\n" * (not family.labels)
    return text


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """Watch a peer and an exporter of which nothing is known but zeros."""
    folder = tmp_path_factory.mktemp("idle")
    (folder / "metrics.txt").write_text(idle_text())
    address = free_address()
    zeros = Program(
        name="zeros",
        command=[sys.executable, "-c", ZEROS, address.split(":")[1], str(folder / "metrics.txt")],
        variables={},
        log_path=Path(folder / "zeros.log"),
        ready_url=f"http://{address}/metrics",
        ready_s=20.0,
    )
    # Of the swarm only its monitor is heard: it is both.
    watching = Watching(folder, address, None)
    watching.run_id, watching.peer_id = "unnamed", address
    write_targets(folder, [], [address])
    with running([zeros, watching.program], Event()):
        wait_until(lambda: watching.now("count_over_time(up[1m]) > 12"), 60.0)
        yield watching


@pytest.mark.slow
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_over_an_idle_run_no_panel_is_empty_or_nan(idle, path):
    assert bad_panels(idle, path) == []
