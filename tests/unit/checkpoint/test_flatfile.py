"""A saved state can be read chunk by chunk, and damage of its file is noticed."""

import json
import os

import numpy as np
import pytest
import safetensors.numpy

from peer.checkpoint.flatfile import FlatFile
from peer.checkpoint.store import CheckpointStore
from peer.errors import DamagedError
from peer.training.state import CHUNK_BYTES, root_of


@pytest.fixture
def saved(tmp_path, manifest_hash, make_large):
    """Return a checkpoint of several chunks and its state's file."""
    checkpoint = make_large(3)
    CheckpointStore(tmp_path, manifest_hash, keep=3).save(checkpoint)
    return checkpoint, tmp_path / checkpoint.name / "state.safetensors"


def test_the_header_is_the_one_of_the_state(saved, manifest_hash):
    checkpoint, path = saved
    header = FlatFile(path).header(manifest_hash, 3)
    assert header == checkpoint.state.header(manifest_hash)
    assert root_of(header) == checkpoint.state_root


def test_the_chunks_are_those_of_the_flat_buffers(saved):
    checkpoint, path = saved
    file, counts = FlatFile(path), []
    for number, (_, buffer) in enumerate(checkpoint.state.buffers()):
        data = buffer.tobytes()
        counts.append(-(-len(data) // CHUNK_BYTES))
        for index in range(counts[-1]):
            start = index * CHUNK_BYTES
            assert file.chunk(number, index) == data[start : start + CHUNK_BYTES]
    assert counts == [2, 1, 2, 2]


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (0, 2), (1, 1), (4, 0), (10**9, 0)])
def test_there_are_no_other_chunks(saved, place):
    with pytest.raises(IndexError):
        FlatFile(saved[1]).chunk(*place)


def test_a_removed_file_stays_readable_while_it_is_open(saved, manifest_hash):
    checkpoint, path = saved
    file = FlatFile(path)
    path.unlink()
    assert root_of(file.header(manifest_hash, 3)) == checkpoint.state_root


def test_the_file_is_closed_with_its_last_reader(saved):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    file = FlatFile(saved[1])
    assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208
    del file
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_file_that_was_cut_short_gives_no_wrong_bytes(saved):
    _, path = saved
    os.truncate(path, path.stat().st_size // 2)
    file, damaged = FlatFile(path), 0
    for place in [(0, 0), (0, 1), (2, 0), (2, 1), (3, 0), (3, 1)]:
        try:
            file.chunk(*place)
        except DamagedError:
            damaged += 1
    assert damaged >= 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" * (len(data) - 8),
        lambda data: data.replace(b'"F32"', b'"BF6"', 1),
        lambda data: data.replace(b'"data_offsets"', b'"data_offzets"', 1),
        lambda data: data.replace(b'"shape":[5]', b'"shape":[6]', 1),
        lambda data: (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_what_is_no_state_is_damaged(saved, spoil):
    _, path = saved
    before = path.read_bytes()
    path.write_bytes(spoil(before))
    assert path.read_bytes() != before
    with pytest.raises(DamagedError):
        FlatFile(path)


def test_parameters_of_another_dtype_are_damaged(tmp_path):
    path = tmp_path / "state.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(3)}, path)
    with pytest.raises(DamagedError, match="'w' as no state does"):
        FlatFile(path)


def test_metadata_in_the_file_is_no_tensor(tmp_path, manifest_hash):
    path = tmp_path / "state.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(3, np.float32)}, path, metadata={"a": "b"})
    assert b"__metadata__" in path.read_bytes()
    header = FlatFile(path).header(manifest_hash, 0)
    assert json.loads(header.to_bytes())["tensors"] == [["w", [3]]]
