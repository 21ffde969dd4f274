"""What the tests of checkpoints share: made-up states of a small schema, and of a larger one."""

import asyncio
import dataclasses

import numpy as np
import pytest

from peer.checkpoint import fetch, snapshot
from peer.checkpoint.format import Checkpoint, write_files
from peer.checkpoint.shelf import Shelf
from peer.checkpoint.snapshot import CHUNK, FRAME_BYTES, HEADER, SnapshotServer
from peer.checkpoint.staging import Wanted
from peer.checkpoint.store import CheckpointStore
from peer.data.stream import Cursor
from peer.errors import UnreachableError
from peer.run.manifest import AdamW
from peer.swarm.throttle import Throttle
from peer.swarm.wire import scoped
from peer.training.outer import initial_slots
from peer.training.state import CHUNK_BYTES, GlobalState, Schema, TensorSpec
from peer.training.trainer import Place

MANIFEST_HASH = "ab" * 32
RUN = "tiny-" + "0" * 32


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
        tensors = given.get("schema", schema)
        state = GlobalState(
            epoch=epoch,
            schema=tensors,
            parameters=draw.normal(size=tensors.elements).astype(np.float32),
            optimizer={
                "exp_avg": draw.normal(size=tensors.elements).astype(np.float32),
                "exp_avg_sq": draw.random(size=tensors.elements).astype(np.float32),
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


@pytest.fixture
def fetch_by_hand(manifest_hash):
    """Put a state into a store's folder as `ctpeer checkpoint fetch` does; return its name."""

    def put(folder, checkpoint, **given):
        def write(target):
            write_files(dataclasses.replace(checkpoint, place=None), manifest_hash, target)

        shelf = Shelf(folder)
        with shelf.fetching() as fetching:
            shelf.add(checkpoint.name, write, fetching / checkpoint.name, **given)
        return checkpoint.name

    return put


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
        if one.place is None or other.place is None:
            assert one.place is other.place
            return
        for field in one.place.__dataclass_fields__:
            if field != "rng":
                assert getattr(one.place, field) == getattr(other.place, field)
        assert one.place.rng.keys() == other.place.rng.keys()
        for name, states in one.place.rng.items():
            assert states.tobytes() == other.place.rng[name].tobytes()

    return check


@pytest.fixture(scope="session")
def large_schema():
    """Return a schema of several chunks, with names on both sides of the optimizer's."""
    shapes = {"a": (5,), "b": (513, 256), "m": (), "p": (7, 3), "z": (129, 1024)}
    return Schema(tuple(TensorSpec(name, shape) for name, shape in shapes.items()))


@pytest.fixture(scope="session")
def large_slots(large_schema):
    return initial_slots(AdamW(lr=1.0), large_schema.elements)


@pytest.fixture(scope="session")
def make_large(make_checkpoint, large_schema):
    """Return a checkpoint of 7 chunks; keyword arguments change its state."""

    def make(epoch, **changed):
        checkpoint = make_checkpoint(epoch, schema=large_schema)
        state = dataclasses.replace(checkpoint.state, **changed)
        root = state.root(MANIFEST_HASH)
        return dataclasses.replace(checkpoint, state=state, state_root=root)

    return make


class Town:
    """A joiner and donors in memory, with the refusals and the progress that the joiner is told."""

    def __init__(self, swarm, folder, wanted):
        self.swarm = swarm
        self.joiner = swarm.transport("joiner")
        self.folder = folder
        self.staging = folder / "staging"
        self.wanted = wanted
        self.refusals = []
        self.refused = asyncio.Event()
        self.progress = []
        self.asked = []  # (donor, buffer, index), in order
        self.stores = {}

    async def donor(self, name, *checkpoints, limiter=None, **more):
        """Start an honest donor that has `checkpoints`; return its server."""
        store = CheckpointStore(self.folder / name, MANIFEST_HASH, keep=3)
        for checkpoint in checkpoints:
            store.save(checkpoint)
        self.stores[name] = store
        transport = self.swarm.transport(name)
        server = SnapshotServer(transport, RUN, store, limiter or Throttle(None), **more)
        await server.start()
        return server

    async def stranger(self, name, state, header=None, spoil=None):
        """Start a donor that gives `header`, and of each chunk `await spoil(place, frames)`."""
        transport = self.swarm.transport(name)
        buffers = [buffer.tobytes() for _, buffer in state.buffers()]

        async def give_header(channel):
            await channel.receive()
            body = state.header(MANIFEST_HASH).to_bytes() if header is None else header
            await channel.send({}, body)

        async def give_chunks(channel):
            try:
                while True:
                    request = (await channel.receive()).header
                    place = (request["buffer"], request["index"])
                    self.asked.append((name, *place))
                    start = place[1] * CHUNK_BYTES
                    data = buffers[place[0]][start : start + CHUNK_BYTES]
                    frames = [data[i : i + FRAME_BYTES] for i in range(0, len(data), FRAME_BYTES)]
                    for frame in frames if spoil is None else await spoil(place, frames):
                        await channel.send({}, frame)
            except UnreachableError:
                return

        await transport.serve(scoped(RUN, HEADER), give_header)
        await transport.serve(scoped(RUN, CHUNK), give_chunks)

    def refuse(self, refusal):
        self.refusals.append(refusal)
        self.refused.set()

    def note(self, done, total):
        self.progress.append((done, total))

    async def fetch(self, donors, root, on_progress=None, **patience):
        """Fetch the state of `root` from `donors`."""
        wanted = dataclasses.replace(self.wanted, root=root)
        async with asyncio.timeout(3600):
            fetched = fetch.fetched_snapshot(
                self.joiner,
                RUN,
                wanted,
                donors,
                self.staging,
                on_progress or self.note,
                self.refuse,
                fetch.Patience(**patience),
            )
            async with fetched as state:
                return state


@pytest.fixture(scope="session")
def run_id():
    return RUN


@pytest.fixture
def make_town(sim, tmp_path, large_schema, large_slots):
    """Return a town whose joiner wants states of the large schema."""

    def make():
        wanted = Wanted(
            root="", manifest_hash=MANIFEST_HASH, schema=large_schema, slots=large_slots
        )
        return Town(sim.MemorySwarm(), tmp_path, wanted)

    return make


@pytest.fixture
def run(sim, monkeypatch):
    """Run a coroutine on the fake clock, in which there are no threads."""

    async def inline(_elements, function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(fetch, "offload", inline)
    monkeypatch.setattr(snapshot, "offload", inline)
    return sim.run
