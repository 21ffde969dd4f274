"""Real nodes and entry points on loopback."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def swarm_tools():
    """Return the module of real nodes: `Nodes`, `RUN`, `peer_body`, `alive`, `wait_until`."""
    path = Path(__file__).parent / "nodes.py"
    spec = importlib.util.spec_from_file_location("ctpeer_test_nodes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nodes(swarm_tools, tmp_path_factory):
    """Start real nodes; ended after the module's last test."""
    house = swarm_tools.Nodes(tmp_path_factory.mktemp("nodes"))
    yield house
    house.close()


class EntryPoint:
    """`ctpeer-bootstrap` as a process of its own."""

    def __init__(self, folder, listen):
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dht_bootstrap", "--json", "--metrics-port", "0"),
                *("--listen", listen, "--identity", str(folder / "entry.key")),
            ],
            stdout=subprocess.PIPE,
            stderr=(folder / "entry.log").open("ab"),
            text=True,
        )
        self.log_path = folder / "entry.log"
        line = self.process.stdout.readline()
        assert line, self.log_path.read_text()
        self.told = json.loads(line)
        self.addresses = tuple(self.told["addresses"])


@pytest.fixture(scope="module")
def start_entry_point(tmp_path_factory):
    """Start an entry point; it is killed in the end, and p2pd with it."""
    started = []

    def start(folder=None, listen="/ip4/127.0.0.1/tcp/0"):
        started.append(EntryPoint(folder or tmp_path_factory.mktemp("entry"), listen))
        return started[-1]

    yield start
    for entry in started:
        entry.process.kill()
        entry.process.wait(10)
        entry.process.stdout.close()


@pytest.fixture(scope="module")
def entry(start_entry_point):
    """Return an entry point that no test breaks."""
    return start_entry_point()
