"""A swarm that a monitor has something to see in, and `ctpeer-monitor` before it."""

import os
import re
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
from nodes import peer_body

from peer.clock import SystemClock
from peer.data import claims
from peer.data.index import parse_index
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory
from peer.run.manifest import dump_manifest
from peer.swarm.blobs import BlobServer
from peer.swarm.bodies import ClaimBody, StatusBody
from peer.swarm.membership import Roster
from peer.swarm.throttle import Throttle
from peer.training.certificate import (
    Base,
    Certificate,
    Entry,
    Vote,
    group_id,
    sign_part,
    sign_vote,
)
from peer.training.history import History
from peer.training.muster import Limits, Muster
from peer.training.repair import Repair

EPOCHS = 7
METRICS = "127.0.0.1:18470"


def root(epoch):
    return f"{epoch:064x}"


class Swarm:
    """Two real nodes that serve what peers serve, with certificates of both."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.run = RunDirectory.open(demo_run_path())
        self.run_id = self.run.run_id
        self.one = nodes.start("monitored-one")
        self.two = nodes.start("monitored-two", self.one)
        self.peers = (self.one, self.two)
        self.index = parse_index(self.run.read_blob(self.run.manifest.data.index), "the index")
        self.row = [self.certified(epoch) for epoch in range(EPOCHS)]
        self.told = {}
        self.histories = [nodes.do(self.serve(node)) for node in self.peers]
        self.speak()

    def certified(self, epoch):
        base = Base(self.run_id, 0, epoch, root(epoch))
        both = [node.identity for node in self.peers]
        entries = tuple(Entry(p.peer_id, root(epoch), 100, 0) for p in both)
        part = sign_part(both[0], group_id(base, entries), b"average", 3, 1.0)
        vote = Vote(base, entries, (part,))
        return Certificate(vote, tuple(sign_vote(p, vote) for p in both))

    async def serve(self, node):
        muster = Muster(
            node.identity,
            node.transport,
            self.run_id,
            Roster(node.peer_id),
            Limits(max_weight=32, target=16),
            SystemClock(),
            lambda _event: None,
        )
        history = History()
        history.replace(self.row)
        await Repair(muster, history, ()).start()

        async def find(hash_):
            return self.run.find_blob(hash_)

        manifest = (dump_manifest(self.run.manifest), self.run.signatures())
        throttle = Throttle(1 << 30)
        await BlobServer(node.transport, self.run_id, find, manifest, throttle).start()
        return history

    def advance(self, **told):
        """Certify one more epoch, and have both peers tell of it."""
        epoch = len(self.row)
        self.row.append(self.certified(epoch))

        async def go_on():
            for history in self.histories:
                history.replace(self.row)

        self.nodes.do(go_on())
        self.told = {"epoch": epoch, "root": root(epoch)[:16], "committed": epoch + 1} | told
        self.speak()

    def speak(self):
        """Have both peers put their records, as they do again and again; one opted in."""
        for node in self.peers:
            names = [shard.name for shard in self.index.split("train")[:5]]
            claimed = claims.encode(node.peer_id, self.index, names)
            metrics = METRICS if node is self.one else None
            for kind, body in (
                ("peer", self.here(node)),
                ("status", status(metrics=metrics, **self.told)),
                ("claim", ClaimBody(shards=claimed)),
            ):
                assert self.nodes.do(node.dht.put(self.run_id, kind, body, 110.0))

    def here(self, node, **changed):
        now = {"addresses": node.addresses, "epoch": len(self.row), "now_s": time.time()}
        return peer_body(**now | changed)


def status(**changed):
    fields = {
        "phase": "training",
        "device": "cpu",
        "generation": 0,
        "epoch": EPOCHS - 1,
        "root": root(EPOCHS - 1)[:16],
        "group": 2,
        "tokens_per_s": 1000.0,
        "loss_nats": 4.0,
        "heldout": 3.0,
        "committed": EPOCHS,
        "failed": 1,
        "refused": 0,
        "metrics": None,
    }
    return StatusBody(**(fields | changed))


class Monitor:
    """`ctpeer-monitor` as a process of its own."""

    def __init__(self, folder, *arguments):
        self.log_path = folder / "monitor.log"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "monitoring", *map(str, arguments)),
                *("--listen", "127.0.0.1:0", "--interval", "1"),
            ],
            stdout=subprocess.PIPE,
            stderr=self.log_path.open("ab"),
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            text=True,
        )
        lines = [self.process.stdout.readline() for _ in range(3)]
        assert lines[2], self.log_path.read_text()
        self.url = lines[2].removeprefix("metrics: ").strip().removesuffix("/metrics")

    def get(self, page, **headers):
        request = urllib.request.Request(f"{self.url}{page}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def scrape(self):
        pattern = r"^(ctpeer_swarm_[a-z0-9_]+(?:{[^}]*})?) (\S+)$"
        found = re.findall(pattern, self.get("/metrics"), re.MULTILINE)
        return {name.removeprefix("ctpeer_swarm_"): float(value) for name, value in found}

    @property
    def p2pd(self):
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if child.name() == "p2pd"]

    def reap(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def swarm(nodes):
    return Swarm(nodes)


@pytest.fixture(scope="module")
def start_monitor(tmp_path_factory, swarm):
    started = []

    def start(*arguments):
        peers = [part for a in swarm.one.addresses for part in ("--peers", a)]
        folder = tmp_path_factory.mktemp("monitor")
        started.append(Monitor(folder, swarm.run_id, *peers, *arguments))
        return started[-1]

    yield start
    for monitor in started:
        monitor.reap()
