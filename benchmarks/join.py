"""What joining costs: the seconds until a state has come from other peers, whole and verified.

Ours fetches a snapshot of parameters and AdamW's two buffers in hashed chunks, from one donor and
from several, over libp2p on loopback, into staging files, and verifies it twice. The rival is the
stock averager's `load_state_from_peers` of as many numbers, which takes them from one donor into
memory and verifies nothing. Every donor is a process of its own and new for each run, so that its
hashing of the state is in our time.

    python -m benchmarks.join --json
"""

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.report import report, show, spread
from peer.checkpoint.fetch import fetched_snapshot
from peer.checkpoint.format import Checkpoint
from peer.checkpoint.snapshot import SnapshotServer
from peer.checkpoint.staging import Wanted
from peer.checkpoint.store import CheckpointStore
from peer.data.stream import Cursor
from peer.identity import Identity
from peer.run.manifest import AdamW
from peer.swarm.node import Node, NodeOptions
from peer.swarm.throttle import Throttle
from peer.swarm.validator import EnvelopeValidator
from peer.training.outer import initial_slots
from peer.training.state import GlobalState, Schema, TensorSpec
from peer.training.trainer import Place

RUN_ID = "benchmark-" + "0" * 32
MANIFEST_HASH = "0" * 64
_TIMEOUT_S = 300.0
_ROW = 1000


def main() -> None:
    """Run the measurements and print the report, or be one of the donors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=3, help="pairs (default 3)")
    parser.add_argument("--parameters", type=int, default=10_000_000, help="(default 10M)")
    parser.add_argument("--donors", type=int, default=3, help="of the larger run (default 3)")
    parser.add_argument("--donor", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.donor is not None:
        asyncio.run(give(options.donor))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), options.parameters, options.donors, options.runs)
    show(result, as_json=options.json)


def compare(folder: Path, parameters: int, donors: int, runs: int) -> dict[str, Any]:
    """Return the report of `runs` of each kind, one after the other in changing order."""
    schema = schema_of(parameters)
    root = save_state(folder / "checkpoints", schema)
    one: list[dict[str, float]] = []
    several: list[dict[str, float]] = []
    stock: list[dict[str, float]] = []
    kinds = [
        (one, lambda: join(folder, schema, root, 1)),
        (several, lambda: join(folder, schema, root, donors)),
        (stock, lambda: stock_join(3 * schema.elements)),
    ]
    for number in range(runs):
        for results, measure in kinds if number % 2 == 0 else reversed(kinds):
            results.append(measure())
    took_ms = [[1000 * run["seconds"] for run in results] for results, _ in kinds]
    return report(
        "join",
        "ms",
        took_ms[0],
        took_ms[2],
        parameters=schema.elements,
        state_bytes=12 * schema.elements + 16,
        donors=donors,
        several_donors_ms=spread(took_ms[1]),
        joiner_cpu_seconds={
            name: spread([run["cpu_seconds"] for run in results])
            for name, (results, _) in zip(("ours", "several", "rival"), kinds, strict=True)
        },
    )


def schema_of(parameters: int) -> Schema:
    """Return a schema of about so many parameters."""
    return Schema((TensorSpec("weight", (max(1, parameters // _ROW), _ROW)),))


def save_state(folder: Path, schema: Schema) -> str:
    """Write a checkpoint of random numbers; return its root."""
    draw = np.random.default_rng(0)
    state = GlobalState(
        epoch=1,
        schema=schema,
        parameters=draw.standard_normal(schema.elements, np.float32),
        optimizer={
            "exp_avg": draw.standard_normal(schema.elements, np.float32),
            "exp_avg_sq": draw.random(schema.elements, np.float32),
            "beta_powers": np.array([0.9, 0.95]),
        },
    )
    checkpoint = Checkpoint(
        state=state,
        state_root=state.root(MANIFEST_HASH),
        generation=0,
        place=Place.beginning(Cursor(0, (), 0, 0), 1, {}),
        certificate=None,
        code_version="0",
    )
    CheckpointStore(folder, MANIFEST_HASH, keep=1).save(checkpoint)
    return checkpoint.state_root


async def give(folder: Path) -> None:
    """Be a donor of the checkpoints in `folder` until the end of standard input."""
    with tempfile.TemporaryDirectory() as home:
        node = await _start_node(Path(home), ())
        try:
            store = CheckpointStore(folder, MANIFEST_HASH, keep=1)
            server = SnapshotServer(node.transport, RUN_ID, store, Throttle(None))
            await server.start()
            print(json.dumps({"peer_id": node.peer_id, "address": node.addresses[0]}), flush=True)
            await asyncio.to_thread(sys.stdin.read)
            server.close()
        finally:
            await node.stop()


def join(folder: Path, schema: Schema, root: str, donors: int) -> dict[str, float]:
    """Return the seconds, and this process's CPU seconds, to fetch the state from new donors."""
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "benchmarks.join", "--donor", str(folder / "checkpoints")]
        given = [stack.enter_context(_process(command)) for _ in range(donors)]
        found = [json.loads(donor.stdout.readline()) for donor in given if donor.stdout]
        wanted = Wanted(root, MANIFEST_HASH, schema, initial_slots(AdamW(lr=1.0), schema.elements))
        return asyncio.run(_join(folder, wanted, found))


async def _join(folder: Path, wanted: Wanted, donors: Sequence[dict[str, str]]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as home:
        node = await _start_node(Path(home), tuple(donor["address"] for donor in donors))
        try:
            begun_s, cpu_s = time.perf_counter(), _cpu_s()
            async with asyncio.timeout(_TIMEOUT_S):
                names = [donor["peer_id"] for donor in donors]
                staging = folder / "staging"
                async with fetched_snapshot(node.transport, RUN_ID, wanted, names, staging):
                    pass
            return {"seconds": time.perf_counter() - begun_s, "cpu_seconds": _cpu_s() - cpu_s}
        finally:
            await node.stop()


async def _start_node(home: Path, peers: tuple[str, ...]) -> Node:
    path = home / "identity.key"
    identity = Identity.load_or_create(path)
    options = NodeOptions(identity_path=path, listen=("/ip4/127.0.0.1/tcp/0",), initial_peers=peers)
    return await Node.start(options, identity, EnvelopeValidator())


def stock_join(elements: int) -> dict[str, float]:
    """Return the same of the stock averager, for so many numbers."""
    with _process([sys.executable, "-m", "benchmarks.stock_join", "give", str(elements)]) as donor:
        assert donor.stdout is not None
        address = json.loads(donor.stdout.readline())["address"]
        command = [sys.executable, "-m", "benchmarks.stock_join", "take", str(elements), address]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, text=True, check=True
        )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run `command` until the end of the context, its children included."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        children = psutil.Process(process.pid)
        try:
            yield process
        finally:
            doomed = [*children.children(recursive=True), children]
            assert process.stdin is not None
            process.stdin.close()
            _, alive = psutil.wait_procs(doomed, timeout=10)
            for left in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.send_signal(signal.SIGKILL)


def _cpu_s() -> float:
    """Return the CPU seconds of this process and its children, p2pd among them."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


if __name__ == "__main__":
    main()
