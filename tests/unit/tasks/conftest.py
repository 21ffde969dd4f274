"""What the tests of the tasks share."""

import hashlib

import numpy as np
import pytest
import torch

from peer.data.index import Shard
from peer.data.stream import RowKey
from peer.data.tokens import TokenCache
from peer.tasks.task import HeldOutRows


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def examples_of(tmp_path_factory):
    """Return a shard of one text and the rows that a task makes of it."""
    folder = tmp_path_factory.mktemp("tokens")

    def make(task, text):
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        shard = Shard(name="a.txt", format="text", bytes=len(data), examples=1, sha256=digest)
        return shard, task.examples(shard, [text], TokenCache(folder / task.name))

    return make


@pytest.fixture(scope="session")
def keyed_rows():
    """Return `count` rows of `length` random tokens, each with its key in a pass."""

    def make(count, length, pass_number=0):
        ids = np.random.default_rng(1).integers(5, 300, (count, length), np.uint32)
        return [(RowKey(pass_number, "ab" * 32, i), row) for i, row in enumerate(ids)]

    return make


@pytest.fixture(scope="session")
def heldout(examples_of, demo_shards):
    """Return all rows of the Chinese demo shard, held out."""

    def make(task) -> HeldOutRows:
        return task.heldout_rows([examples_of(task, demo_shards[1][1])], 10**6)

    return make
