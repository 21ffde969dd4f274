"""What the tests of the tasks share."""

import numpy as np
import pytest
import torch

from peer.data.stream import RowKey


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def keyed_rows():
    """Return `count` rows of `length` random tokens, each with its key in a pass."""

    def make(count, length, pass_number=0):
        ids = np.random.default_rng(1).integers(5, 300, (count, length), np.uint32)
        return [(RowKey(pass_number, "ab" * 32, i), row) for i, row in enumerate(ids)]

    return make
