"""What tests of several layers share: homes on which real runs trained, and a swarm in memory."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import peer
from peer.config.home import Home
from peer.data.folder import INDEX_NAME, IndexOptions, index_folder

TINY = {
    "--vocab-size": 300,
    "--layers": 1,
    "--hidden": 16,
    "--heads": 2,
    "--sequence-length": 16,
    "--evaluation-rows": 8,
    "--target-loss-terms": 64,
}


@pytest.fixture(scope="session")
def sim():
    """Return the module of the in-memory swarm: `run`, `MemorySwarm`."""
    path = Path(__file__).parents[1] / "sim" / "memory.py"
    spec = importlib.util.spec_from_file_location("ctpeer_sim_memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def train_tiny(tmp_path_factory, demo_shards):
    """Found a tiny run and train it to each of some epochs; return the home."""

    def train(name, epochs, **flags):
        folder = tmp_path_factory.mktemp(name)
        texts = folder / "texts"
        texts.mkdir()
        for shard, text in demo_shards:
            (texts / shard.name).write_text(text)
        options = IndexOptions(name="two poems", heldout=("cao-*",), licence="public domain")
        (texts / INDEX_NAME).write_bytes(index_folder(texts, options).to_bytes())
        given = TINY | {f"--{key}": value for key, value in flags.items()}
        arguments = [str(part) for pair in given.items() for part in pair]
        script = Path(__file__).parent / "train_tiny.py"
        home = folder / "home"
        numbers = ",".join(map(str, epochs))
        done = subprocess.run(
            [sys.executable, str(script), str(home), str(texts), numbers, *arguments],
            env=os.environ | {"PYTHONPATH": str(Path(peer.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return home

    return train


@pytest.fixture(scope="session")
def trained_home(train_tiny):
    """Return a home on which a causal model trained to epoch 2, 4, 5 and 7; do not change it."""
    return train_tiny("trained", [2, 4, 5, 7])


@pytest.fixture
def home(trained_home, tmp_path):
    """Return a copy of the trained home."""
    return Home(Path(shutil.copytree(trained_home, tmp_path / "home")))
