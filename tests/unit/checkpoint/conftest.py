"""What the tests of checkpoints share: made-up states of a small schema."""

import numpy as np
import pytest

from peer.checkpoint.format import Checkpoint
from peer.data.stream import Cursor
from peer.run.manifest import AdamW
from peer.training.outer import initial_slots
from peer.training.state import GlobalState, Schema, TensorSpec
from peer.training.trainer import Place

MANIFEST_HASH = "ab" * 32


@pytest.fixture(scope="session")
def manifest_hash():
    return MANIFEST_HASH


@pytest.fixture(scope="session")
def schema():
    return Schema((TensorSpec("bias", (7,)), TensorSpec("scale", ()), TensorSpec("w", (40, 30))))


@pytest.fixture(scope="session")
def slots(schema):
    """Return the outer optimizer's state before the first step, as loading asks for it."""
    return initial_slots(AdamW(lr=1.0), schema.elements)


@pytest.fixture(scope="session")
def make_checkpoint(schema):
    """Return a checkpoint of random numbers, the same for each epoch."""

    def make(epoch, **given):
        draw = np.random.default_rng(epoch)
        state = GlobalState(
            epoch=epoch,
            schema=given.get("schema", schema),
            parameters=draw.normal(size=schema.elements).astype(np.float32),
            optimizer={
                "exp_avg": draw.normal(size=schema.elements).astype(np.float32),
                "exp_avg_sq": draw.random(size=schema.elements).astype(np.float32),
                "beta_powers": np.array([0.9, 0.95]) ** epoch,
            },
        )
        place = Place(
            cursor=Cursor(3, ("cd" * 32, "ef" * 32), 1, 17 * epoch),
            samples_total=100 * epoch,
            tokens_total=1600 * epoch,
            contributions=epoch + 2,
            micro_batch=8,
            loss_scale=0.1 + epoch,
            rng={"cpu": draw.integers(0, 256, 50, np.uint8)},
        )
        return Checkpoint(
            state=state,
            state_root=state.root(given.get("manifest_hash", MANIFEST_HASH)),
            generation=given.get("generation", 2),
            place=given.get("place", place),
            certificate='{"vote": "é"}' if epoch else None,
            code_version="0.1.0",
        )

    return make


@pytest.fixture(scope="session")
def assert_same():
    """Assert that two checkpoints are equal bit for bit."""

    def check(one, other):
        for name in ("state_root", "generation", "certificate", "code_version", "name"):
            assert getattr(one, name) == getattr(other, name)
        assert one.state.epoch == other.state.epoch
        assert one.state.schema == other.state.schema
        ours, theirs = dict(one.state.buffers()), dict(other.state.buffers())
        assert ours.keys() == theirs.keys()
        for name, buffer in ours.items():
            assert buffer.dtype == theirs[name].dtype
            assert buffer.tobytes() == theirs[name].tobytes()
        for field in one.place.__dataclass_fields__:
            if field != "rng":
                assert getattr(one.place, field) == getattr(other.place, field)
        assert one.place.rng.keys() == other.place.rng.keys()
        for name, states in one.place.rng.items():
            assert states.tobytes() == other.place.rng[name].tobytes()

    return check
