"""The in-memory swarm of tests/sim, for what lies on a transport; real nodes, for what is one."""

import importlib.util
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sim():
    """Return the module of the in-memory swarm: `run`, `MemorySwarm`."""
    return load("ctpeer_sim_memory", TESTS / "sim" / "memory.py")


@pytest.fixture(scope="session")
def swarm_tools():
    """Return the module of real nodes: `Nodes`, `RUN`, `peer_body`, `alive`, `wait_until`."""
    return load("ctpeer_test_nodes", TESTS / "swarm" / "nodes.py")


@pytest.fixture(scope="module")
def nodes(swarm_tools, tmp_path_factory):
    """Start real nodes; ended after the module's last test."""
    house = swarm_tools.Nodes(tmp_path_factory.mktemp("nodes"))
    yield house
    house.close()
