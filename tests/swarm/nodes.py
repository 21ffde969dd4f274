"""Real nodes on loopback, in an event loop on a thread of its own as in the worker."""

import asyncio
import os
import threading
import time

import psutil
import uvloop
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P

from peer.identity import Identity
from peer.swarm.bodies import PeerBody
from peer.swarm.dht import EnvelopeValidator
from peer.swarm.node import Node, NodeOptions
from peer.swarm.rpc import node_id_of

RUN = "tiny-" + "0" * 32
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def peer_body(**changed):
    fields = {
        "addresses": ("/ip4/127.0.0.1/tcp/1/p2p/Qm",),
        "protocol": 1,
        "version": "0.1.0",
        "generation": 0,
        "epoch": 0,
        "client": False,
        "started_s": 1.7e9,
        "now_s": 1.7e9,
    }
    return PeerBody(**(fields | changed))


class Nodes:
    """Starts nodes and hostile nodes, and ends them all whatever happens."""

    def __init__(self, folder):
        self.folder = folder
        self._started = []
        self._raw = []
        self._pids = set()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def do(self, coroutine, timeout_s=30.0):
        """Run `coroutine` in the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def identity(self, name):
        return Identity.load_or_create(self.folder / f"{name}.key")

    def start(self, name, *peers, **given):
        """Start a node; `peers` are nodes to begin with. Other arguments are of its options."""
        others = {k: given.pop(k) for k in ("clock", "storage", "on_misbehaved") if k in given}
        validator = given.pop("validator", None) or EnvelopeValidator()
        identity = self.identity(name)
        options = NodeOptions(
            identity_path=self.folder / f"{name}.key",
            **{
                "listen": (LOOPBACK,),
                "initial_peers": tuple(a for peer in peers for a in peer.addresses),
            }
            | given,
        )
        node = self.do(Node.start(options, identity, validator, **others), 100)
        node.validator, node.identity = validator, identity
        self._started.append(node)
        self._pids.add(node.p2pd_pid)
        return node

    def raw(self, *peers, own_place=True):
        """Start a node of plain hivemind with no validators; `own_place` gets it believed."""
        return self.do(self._start_raw([a for p in peers for a in p.addresses], own_place))

    async def _start_raw(self, addresses, own_place):
        p2p = await P2P.create(initial_peers=addresses, nat_port_map=False)
        self._pids.add(p2p._child.pid)
        node_id = node_id_of(p2p.peer_id) if own_place else None
        node = await DHTNode.create(p2p, node_id, initial_peers=addresses)
        self._raw.append(node)
        return node

    async def _stop(self):
        for node in self._raw:
            await node.shutdown()
            await node.p2p.shutdown()
        for node in self._started:
            await node.stop()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def close(self):
        try:
            self.do(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            for pid in self._pids:
                if alive(pid):
                    os.kill(pid, 9)


def alive(pid):
    """Return whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, timeout_s=20.0):
    """Ask until `condition` holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.02)
