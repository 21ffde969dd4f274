"""Meets the peers of a run for a moment: `python -m peer.doctor.swarm_probe`, JSON in and out.

A client of its own, under a key that is thrown away: it holds no records, and a daemon of the same
home is not disturbed. Every step has a deadline and fails alone; what was found until then is told.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from peer.config.address import parse_address
from peer.errors import CtpeerError, PeerError, UnreachableError
from peer.identity import Identity
from peer.swarm.blobs import FRAME_BYTES
from peer.swarm.dht import EnvelopeValidator
from peer.swarm.dialback import GREETING, ask_to_dial
from peer.swarm.node import Node, NodeOptions
from peer.swarm.wire import scoped

DEADLINE_S = 40.0

_DIAL_TIMEOUT_S = 8.0
_STEP_TIMEOUT_S = 10.0
_LEAST_S = 0.05
"""Shorter transfers say nothing about the line."""
_SAMPLE_S = 3.0
_PAD_BYTES = 600_000
_ASKED = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What to find out.

    Attributes:
        addresses: Of peers, each ending in /p2p/ID.
        run_id: The run, if there is one.
        port: Where this machine listens, or would; 0 is any port, None is none at all.
        listens: Whether somebody listens there.
    """

    addresses: tuple[str, ...]
    run_id: str | None
    port: int | None
    listens: bool


class Probe:
    """A node for a moment, and what was found with it."""

    def __init__(self, task: Task, node: Node) -> None:
        self._task = task
        self._node = node
        self._reached: list[str] = []
        self.found: dict[str, Any] = {"peers": {}, "ahead_s": {}}

    async def run(self) -> None:
        """Find out all that can be."""
        await asyncio.gather(*map(self._meet, self._task.addresses))
        run_id = self._task.run_id
        if not self._reached or run_id is None:
            return
        await self._look(run_id)
        for name, step in (
            ("dial_back", self._dial_back),
            ("down_bytes_per_s", self._down),
            ("up_bytes_per_s", self._up),
        ):
            with contextlib.suppress(PeerError, TimeoutError):
                async with asyncio.timeout(_STEP_TIMEOUT_S):
                    self.found[name] = await step(run_id)

    async def _meet(self, address: str) -> None:
        parsed = parse_address(address)
        try:
            if parsed is None:
                raise UnreachableError(f"{address} is no address")
            async with asyncio.timeout(_DIAL_TIMEOUT_S):
                await self._node.connect(address)
        except (PeerError, TimeoutError) as error:
            words = " ".join(str(error).split()) or f"{address} did not answer in time"
            self.found["peers"][address] = words[:300]
            return
        self.found["peers"][address] = None
        self._reached.append(parsed.peer_id)
        with contextlib.suppress(PeerError):  # a client has no clock to compare
            self.found["ahead_s"][parsed.peer_id] = await self._node.dht.ping(parsed.peer_id)

    async def _look(self, run_id: str) -> None:
        try:
            records = await self._node.dht.get(run_id, "peer")
            self.found["records"] = len(records)
        except PeerError as error:
            self.found["dht_problem"] = str(error)
            return
        # Of those that were met by chance, such as a bootstrap node, not all are in the run.
        for envelope in list(records.values())[:_ASKED]:
            if envelope.peer_id in self._reached:
                continue
            for address in envelope.body.addresses[:2]:
                with contextlib.suppress(PeerError, TimeoutError):
                    async with asyncio.timeout(_DIAL_TIMEOUT_S):
                        await self._node.connect(address)
                    self._reached.append(envelope.peer_id)
                    break

    async def _dial_back(self, run_id: str) -> dict[str, Any]:
        port = self._task.port
        if port is None:
            raise UnreachableError("a client listens nowhere")
        async with _listening(port, listened=self._task.listens) as at:
            for peer in self._reached[:_ASKED]:
                with contextlib.suppress(PeerError):
                    reached, ip = await ask_to_dial(self._node.transport, run_id, peer, at)
                    return {"reached": reached, "ip": ip, "port": at}
        raise UnreachableError("no peer tried")

    async def _down(self, run_id: str) -> float:
        for peer in self._reached[:_ASKED]:
            with contextlib.suppress(PeerError):
                return await self._down_from(peer, run_id)
        raise UnreachableError("no peer gave a file")

    async def _down_from(self, peer: str, run_id: str) -> float:
        _, manifest = await self._ask(peer, run_id, 0)
        channel = await self._node.transport.open(peer, scoped(run_id, "blob"))
        try:
            # What every peer has, and as large as the model.
            sha256 = tomllib.loads(manifest.decode())["initial_state"]
            await channel.send({"sha256": sha256, "offset": 0})
            size = int((await channel.receive()).header["size"])
            began_s, came = time.monotonic(), 0
            while came < size and time.monotonic() - began_s < _SAMPLE_S:
                came += len((await channel.receive(FRAME_BYTES)).body) or size
        except (KeyError, TypeError, ValueError) as error:
            raise UnreachableError("it answered nonsense") from error
        finally:
            channel.close()
        return came / max(_LEAST_S, time.monotonic() - began_s)

    async def _up(self, run_id: str) -> float:
        """Ask for the manifest with a few bytes and with many: what that takes longer is the line.

        The question is the only thing that every peer takes from a stranger and reads whole.
        """
        for peer in self._reached[:_ASKED]:
            with contextlib.suppress(PeerError):
                short_s, _ = await self._ask(peer, run_id, 0)
                long_s, _ = await self._ask(peer, run_id, _PAD_BYTES)
                return _PAD_BYTES / max(_LEAST_S, long_s - short_s)
        raise UnreachableError("no peer took a question")

    async def _ask(self, peer: str, run_id: str, pad_bytes: int) -> tuple[float, bytes]:
        """Return how long a question took that is padded by so many bytes, and the manifest."""
        channel = await self._node.transport.open(peer, scoped(run_id, "manifest"))
        try:
            began_s = time.monotonic()
            await channel.send({"pad": "0" * pad_bytes})
            manifest = (await channel.receive(_PAD_BYTES)).body
            return time.monotonic() - began_s, manifest
        finally:
            channel.close()


@contextlib.asynccontextmanager
async def _listening(port: int, *, listened: bool) -> AsyncIterator[int]:
    """Greet whoever dials `port`, as a node would, unless one does already; give the port."""
    if listened:
        yield port
        return

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(greet, "0.0.0.0", port)  # noqa: S104 as a node does
    except OSError as error:
        raise UnreachableError(f"port {port} cannot be listened at: {error.strerror}") from error
    async with server:
        yield server.sockets[0].getsockname()[1]


async def probe(task: Task) -> dict[str, Any]:
    """Return what was found; with `problem` where not even a node could be started."""
    with tempfile.TemporaryDirectory(prefix="ctpeer-doctor-") as folder:
        path = Path(folder) / "identity.key"
        identity = Identity.load_or_create(path)
        options = NodeOptions(identity_path=path, client=True)
        try:
            node = await Node.start(options, identity, EnvelopeValidator())
        except CtpeerError as error:
            return {"problem": str(error)}
    look = Probe(task, node)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                await look.run()
    finally:
        await node.stop()
    return look.found


def main() -> None:
    """Read a `Task` from stdin, print what was found."""
    told = json.load(sys.stdin)
    task = Task(**told | {"addresses": tuple(told["addresses"])})
    # Whoever ends us early wants nothing left behind, either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    json.dump(asyncio.run(probe(task)), sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # hivemind's threads are not worth waiting for


if __name__ == "__main__":
    main()
