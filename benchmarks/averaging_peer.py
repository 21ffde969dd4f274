"""One peer of `benchmarks.averaging`: `python -m benchmarks.averaging_peer SYSTEM INDEX PEERS N`.

It prints where it is, reads where the others are, and then averages once for each line it reads.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch

_TIMEOUT_S = 120.0


class Peer(Protocol):
    """A peer of one of the systems."""

    def place(self) -> str:
        """Return where others find it."""
        ...

    def meet(self, places: list[str]) -> None:
        """Learn where the others are."""
        ...

    def average(self) -> int:
        """Run one round; return the bytes sent, by the system's own count or by arithmetic."""
        ...


class Ours:
    """Our round, on a node of its own in an event loop."""

    def __init__(self, elements: int, folder: Path) -> None:
        import uvloop

        from peer.clock import SystemClock
        from peer.identity import Identity
        from peer.swarm.membership import Roster
        from peer.swarm.node import Node, NodeOptions
        from peer.swarm.validator import EnvelopeValidator
        from peer.training.averages import AverageLog
        from peer.training.averaging import Averager
        from peer.training.muster import Limits, Muster

        self._values = _random(elements)
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._epoch = 0
        path = folder / "identity.key"
        identity = Identity.load_or_create(path)
        options = NodeOptions(identity_path=path, listen=("/ip4/127.0.0.1/tcp/0",))
        self._node = self._wait(Node.start(options, identity, EnvelopeValidator()))
        limits = Limits(max_weight=10, target=10, matchmaking_timeout_s=60.0)
        self._muster = Muster(
            identity,
            self._node.transport,
            _RUN,
            Roster(identity.peer_id),
            limits,
            SystemClock(),
            lambda _event: None,
        )
        log = AverageLog(folder / "averages", 4 * elements)
        self._averager = Averager(self._muster, log, elements, "none", lambda _event: None)
        self._log = log
        self._wait(self._muster.start())
        self._wait(self._averager.start())
        self._stand()

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    def _stand(self) -> None:
        self._loop.call_soon_threadsafe(self._muster.stand, 0, self._epoch, _root(self._epoch))

    def place(self) -> str:
        """See `Peer`."""
        return self._node.addresses[0]

    def meet(self, places: list[str]) -> None:
        """See `Peer`."""
        self._wait(self._meet(places))

    async def _meet(self, places: list[str]) -> None:
        await asyncio.sleep(1.0)  # the last one is just starting to serve
        mine = places.index(self.place())
        # Where two dial each other in the same moment, both handshakes fail.
        for place in places[:mine]:
            await self._node.connect(place)
        await asyncio.sleep(1.0)
        for place in (*places[:mine], *places[mine + 1 :]):
            peer = place.rpartition("/")[2]
            self._muster.roster.learn(peer, (place,))
            await self._muster.poll([peer])
        await asyncio.sleep(1.0)

    def average(self) -> int:
        """See `Peer`."""
        from peer.training.certificate import Base
        from peer.training.contribution import Contribution
        from peer.training.round import Committed

        base = Base(_RUN, 0, self._epoch, _root(self._epoch))
        name = hashlib.sha256(f"{self._node.peer_id}{self._epoch}".encode()).hexdigest()
        contribution = Contribution(name, self._values, 5, 5, 5, 1.0)
        before = self._node.transport.traffic.sent_bytes
        result = self._wait(self._averager.run(base, contribution))
        assert isinstance(result, Committed), result
        assert len(result.certificate.vote.group) > 1, "the group was not formed"
        self._epoch += 1
        self._stand()
        self._log.drop_before(self._epoch)
        return self._node.transport.traffic.sent_bytes - before


class Stock:
    """hivemind's averager."""

    def __init__(self, elements: int, index: int, peers: int) -> None:
        self._tensor = torch.from_numpy(_random(elements))
        self._index, self._peers = index, peers
        self._bytes = 4 * elements * 2 * (peers - 1) // peers
        self._dht: Any = None
        self._averager: Any = None
        import hivemind

        self._dht = hivemind.DHT(host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)

    def place(self) -> str:
        """See `Peer`."""
        return str(self._dht.get_visible_maddrs()[0])

    def meet(self, places: list[str]) -> None:
        """See `Peer`."""
        import hivemind
        from hivemind.averaging import DecentralizedAverager

        if self._index:
            self._dht.shutdown()
            self._dht = hivemind.DHT(
                initial_peers=places[:1], host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True
            )
        self._averager = DecentralizedAverager(
            [self._tensor],
            self._dht,
            prefix="benchmark",
            target_group_size=self._peers,
            min_group_size=self._peers,
            min_matchmaking_time=1.0,
            request_timeout=1.0,
            start=True,
        )

    def average(self) -> int:
        """See `Peer`."""
        result = None
        while result is None:
            result = self._averager.step(timeout=_TIMEOUT_S, weight=1.0)
        return self._bytes


class Gloo:
    """torch.distributed's all-reduce."""

    def __init__(self, elements: int, index: int, peers: int) -> None:
        self._tensor = torch.from_numpy(_random(elements))
        self._index, self._peers = index, peers
        self._bytes = 4 * elements * 2 * (peers - 1) // peers

    def place(self) -> str:
        """See `Peer`."""
        if self._index:
            return ""
        import socket

        with socket.create_server(("127.0.0.1", 0)) as free:
            return str(free.getsockname()[1])

    def meet(self, places: list[str]) -> None:
        """See `Peer`."""
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{places[0]}",
            rank=self._index,
            world_size=self._peers,
        )

    def average(self) -> int:
        """See `Peer`."""
        torch.distributed.all_reduce(self._tensor)
        self._tensor /= self._peers
        return self._bytes


_RUN = "benchmark-" + "0" * 32


def _root(epoch: int) -> str:
    return hashlib.sha256(str(epoch).encode()).hexdigest()


def _random(elements: int) -> Any:
    return np.random.default_rng(os.getpid()).standard_normal(elements, np.float32)


def _cpu_s() -> float:
    """Return the CPU time of this process and all below it."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextlib.contextmanager
def _make(system: str, index: int, peers: int, elements: int) -> Iterator[Peer]:
    with tempfile.TemporaryDirectory() as folder:
        match system:
            case "ours":
                yield Ours(elements, Path(folder))
            case "stock":
                yield Stock(elements, index, peers)
            case _:
                yield Gloo(elements, index, peers)


def main() -> None:
    """Serve the parent until it closes the pipe."""
    system, index, peers, elements = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    with _make(system, index, peers, elements) as peer:
        print(json.dumps(peer.place()), flush=True)
        peer.meet(json.loads(sys.stdin.readline())["places"])
        print(json.dumps("met"), flush=True)
        for _ in sys.stdin:
            cpu_s, started_s = _cpu_s(), time.perf_counter()
            sent = peer.average()
            seconds = time.perf_counter() - started_s
            measured = {"seconds": seconds, "cpu_seconds": _cpu_s() - cpu_s, "bytes": sent}
            print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
