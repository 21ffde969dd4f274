"""The root of the initial state, without loading it, is the one that training begins with."""

import numpy as np
import pytest
from safetensors.numpy import save

from peer.checkpoint.initial import initial_root
from peer.errors import DamagedError
from peer.run.directory import RunDirectory, add_blob
from peer.run.manifest import SGD, AdamW
from peer.training.outer import initial_slots
from peer.training.state import CHUNK_BYTES, GlobalState, Schema, TensorSpec, read_initial_state


@pytest.fixture
def make_run(manifest, tmp_path):
    def make(tensors, optimizer):
        changes = {"initial_state": add_blob(tmp_path, save(tensors)), "optimizer": optimizer}
        return RunDirectory.create(tmp_path, manifest.model_copy(update=changes))

    return make


@pytest.mark.parametrize("optimizer", [AdamW(lr=1.0), SGD(name="sgd", lr=1.0)])
def test_it_is_the_root_of_the_state_at_epoch_0(make_run, optimizer):
    draw = np.random.default_rng(0)
    shapes = {"z": (CHUNK_BYTES // 4, 2), "scale": (), "bias": (7,), "a.w": (40, 30)}
    tensors = {n: np.array(draw.normal(size=s), np.float32) for n, s in shapes.items()}
    run = make_run(tensors, optimizer)
    schema = Schema(tuple(TensorSpec(name, shapes[name]) for name in sorted(shapes)))
    parameters = read_initial_state(run.read_blob(run.manifest.initial_state), schema)
    state = GlobalState(0, schema, parameters, initial_slots(optimizer, schema.elements))
    assert initial_root(run) == state.root(run.manifest_hash)


def test_a_blob_that_is_missing_or_changed_has_no_root(make_run):
    run = make_run({"w": np.ones(3, np.float32)}, AdamW(lr=1.0))
    path = run.blob_path(run.manifest.initial_state)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\1")
    with pytest.raises(DamagedError, match="was changed"):
        initial_root(run)
    path.unlink()
    with pytest.raises(DamagedError, match="cannot be read"):
        initial_root(run)
