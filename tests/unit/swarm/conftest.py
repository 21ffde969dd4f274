"""Real nodes, for what is a transport; what lies on one has the swarm in memory."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def swarm_tools():
    """Return the module of real nodes: `Nodes`, `RUN`, `peer_body`, `alive`, `wait_until`."""
    path = Path(__file__).parents[2] / "swarm" / "nodes.py"
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
