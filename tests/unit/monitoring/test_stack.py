"""`ctpeer-monitor stack`: a real Prometheus, and a stand-in for Grafana, which cannot be had here.

The stand-in shows that Grafana is started with all that it needs to find. It does not show that
Grafana takes it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml
from click.testing import CliRunner

from monitoring.stack import run_id_of, stack, write_targets
from peer.config.home import Home
from peer.errors import UsageError
from peer.run.demo import demo_run_path

ROOT = Path(__file__).parents[3]
STAND_IN = """#!{python}
import http.server, json, os, pathlib, sys
folder = pathlib.Path(os.environ["GF_PATHS_DATA"])
folder.mkdir(parents=True)
told = {{k: v for k, v in os.environ.items() if k.startswith(("GF_", "CTPEER_"))}}
(folder / "told.json").write_text(json.dumps({{"arguments": sys.argv[1:], **told}}))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
address = (os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"]))
http.server.HTTPServer(address, Answer).serve_forever()
"""

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def asked(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


class Stack:
    """The command as a process, on a folder and addresses of its own."""

    def __init__(self, folder, *arguments, binaries=None):
        self.data = folder / "data"
        self.home = Home(folder / "home")
        self.prometheus, self.grafana = free_address(), free_address()
        path = f"{binaries}:{os.environ['PATH']}" if binaries else os.environ["PATH"]
        code = "from monitoring.stack import stack; stack()"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", code, "--json", "--data", str(self.data)),
                *("--prometheus", self.prometheus, "--grafana", self.grafana, *arguments),
            ],
            env=os.environ | {"PATH": path, "CTPEER_HOME": str(self.home.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def told(self):
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def children(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def targets(self):
        found = asked(f"http://{self.prometheus}/api/v1/targets")["data"]["activeTargets"]
        return {target["labels"]["instance"]: target["labels"] for target in found}

    def wait_for_targets(self, wanted):
        deadline_s = time.monotonic() + 30.0
        while set(found := self.targets()) != wanted:
            assert time.monotonic() < deadline_s, found
            time.sleep(0.2)
        return found


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(*arguments, **options):
        started.append(Stack(tmp_path, *arguments, **options))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            children = one.children()
            one.process.kill()
            for process in psutil.wait_procs(children, 10)[1]:
                process.kill()
        one.process.wait(10)
        one.process.stdout.close()
        one.process.stderr.close()


@pytest.fixture
def grafana(tmp_path):
    """Put a stand-in for Grafana into a folder of binaries."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "grafana"
    file.write_text(STAND_IN.format(python=sys.executable))
    file.chmod(0o755)
    return folder


@needs_prometheus
def test_one_command_starts_all_with_rules_and_targets_and_ends_all(start, grafana):
    one = start("--target", "127.0.0.1:1", binaries=grafana)
    told = one.told()
    assert told == {
        "monitor": None,
        "prometheus": f"http://{one.prometheus}",
        "grafana": f"http://{one.grafana}",
    }
    groups = asked(f"http://{one.prometheus}/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert {group["name"] for group in groups} >= {"ctpeer-peer", "ctpeer-swarm"}
    labels = one.wait_for_targets({"127.0.0.1:1"})["127.0.0.1:1"]
    assert (labels["peer_id"], labels["run"]) == ("127.0.0.1:1", "unnamed")

    said = json.loads((one.data / "grafana" / "told.json").read_text())
    assert said["arguments"][0] == "server"
    assert said["CTPEER_PROMETHEUS_URL"] == f"http://{one.prometheus}"
    assert Path(said["CTPEER_DASHBOARDS"], "ctpeer-swarm.json").exists()
    assert Path(said["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).exists()
    assert Path(said["GF_PATHS_PROVISIONING"], "datasources", "ctpeer.yml").exists()
    assert said["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"

    children = one.children()
    assert len(children) == 2
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(20) == 0
    assert not any(process.is_running() for process in children)


@needs_prometheus
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_peer_of_this_machine_is_followed_when_its_port_changes(start):
    one = start()
    one.home.path.mkdir(parents=True)
    assert one.told()["grafana"] is None
    status = {"run_id": "plays-1", "peer_id": "QmX"}
    for port in (2, 3):
        url = f"http://127.0.0.1:{port}/metrics"
        one.home.last_status_path.write_text(json.dumps(status | {"metrics_url": url}))
        labels = one.wait_for_targets({f"127.0.0.1:{port}"})[f"127.0.0.1:{port}"]
        assert (labels["run"], labels["peer_id"]) == ("plays-1", "QmX")


@needs_prometheus
def test_a_prometheus_that_dies_ends_it_with_its_last_words(start):
    one = start()
    one.told()
    (child,) = one.children()
    child.kill()
    assert one.process.wait(20) == 1
    assert "ctpeer-monitor: prometheus ended by itself with code -9" in one.process.stderr.read()


@needs_prometheus
def test_a_monitor_that_serves_already_is_scraped(start):
    one = start("--monitor", "127.0.0.1:4")
    assert one.told()["monitor"] == "http://127.0.0.1:4"
    made = yaml.safe_load((one.data / "prometheus.yml").read_text())
    assert [job["job_name"] for job in made["scrape_configs"]] == ["ctpeer-monitor", "ctpeer"]
    assert one.wait_for_targets({"127.0.0.1:4"})["127.0.0.1:4"]["job"] == "ctpeer-monitor"


def test_without_prometheus_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(stack, ["--data", str(tmp_path / "data")])
    assert done.exit_code == 78
    assert done.stderr.startswith("ctpeer-monitor: prometheus is not installed: `apt-get install")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@needs_prometheus
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "data").write_text("mine")
    done = CliRunner().invoke(stack, ["--data", str(tmp_path / "data")])
    assert done.exit_code == 78
    assert "choose another place with --data" in done.stderr


@pytest.mark.parametrize("option", ["--target", "--prometheus", "--grafana", "--monitor"])
def test_what_is_no_address_is_refused(option, tmp_path):
    done = CliRunner().invoke(stack, ["--data", str(tmp_path / "data"), option, "nonsense"])
    assert done.exit_code == 2
    assert "write it as HOST:PORT" in done.stderr


def test_a_run_is_known_by_its_manifest_and_by_its_id():
    assert run_id_of(str(demo_run_path())).startswith("shakespeare-")
    assert run_id_of("plays-0123") == "plays-0123"
    with pytest.raises(UsageError):
        run_id_of("ctpeer1nonsense")


def test_targets_are_written_anew_only_when_they_changed(tmp_path):
    path = tmp_path / "targets" / "peers.json"
    path.parent.mkdir()
    write_targets(tmp_path, [], ["127.0.0.1:1"])
    first = path.stat()
    write_targets(tmp_path, [], ["127.0.0.1:1"])
    assert path.stat().st_ino == first.st_ino
    write_targets(tmp_path, [Home(tmp_path / "nobody")], ["127.0.0.1:2"])
    assert "127.0.0.1:2" in path.read_text()
    assert [each.name for each in path.parent.iterdir()] == ["peers.json"]
